// A place to drop a recording on. The file travels in pieces, each sent when the one before has arrived.
const PIECE = 1 << 20; // bytes

const STYLE = `
.pianoamt-drop { display: block; border: 2px dashed #777; border-radius: 6px; padding: 14px; text-align: center; cursor: pointer; }
.pianoamt-drop:focus-within, .pianoamt-drop.over { border-color: #1a5fb4; background: rgba(26, 95, 180, 0.08); }
.pianoamt-drop input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.pianoamt-drop progress { width: 60%; vertical-align: middle; margin-left: 1em; }
`;

function render({ model, el }) {
  const style = document.createElement("style");
  const zone = document.createElement("label");
  const input = document.createElement("input");
  const text = document.createElement("span");
  const bar = document.createElement("progress");
  style.textContent = STYLE;
  zone.className = "pianoamt-drop";
  input.type = "file";
  input.accept = "audio/*,.wav,.flac,.mp3,.ogg,.opus,.m4a,.aif,.aiff";
  bar.hidden = true;
  zone.append(input, text, bar);
  el.append(style, zone);

  let file = null;
  let sent = 0;
  const rest = () => `Drop a recording here, or click to choose one (up to ${model.get("scene").megabytes} MB)`;
  const settle = (line) => {
    file = null;
    bar.hidden = true;
    input.value = "";
    text.textContent = line;
  };
  const begin = (chosen) => {
    if (!chosen || file) return;
    const limit = model.get("scene").megabytes;
    if (chosen.size > limit * 1e6) return settle(`${chosen.name} is larger than ${limit} MB. ${rest()}`);
    [file, sent] = [chosen, 0];
    text.textContent = file.name;
    bar.hidden = false;
    bar.value = 0;
    model.send({ kind: "begin", name: file.name, size: file.size });
  };
  const next = async () => {
    if (!file) return;
    const piece = await file.slice(sent, sent + PIECE).arrayBuffer();
    sent += piece.byteLength;
    bar.value = sent / Math.max(file.size, 1);
    model.send({ kind: "piece" }, undefined, [piece]);
  };

  model.on("msg:custom", (message) => {
    if (message.kind === "next") next().catch(() => settle(`the file cannot be read. ${rest()}`));
    if (message.kind === "end") settle(rest());
  });
  model.on("change:scene", () => file || settle(rest()));
  input.addEventListener("change", () => begin(input.files[0]));
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    begin(event.dataTransfer.files[0]);
  });
  settle(rest());
}

export default { render };
