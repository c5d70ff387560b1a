// The notes over the spectrogram. Python says what there is in `scene` and `picture`; the mouse and the keyboard
// answer with messages, and nothing changes here before Python has agreed.
const KEYS = 88;
const LOWEST = 21; // MIDI pitch of the bottom row
const ROW = 5; // pixels
const HEAD = 6; // pixels above the highest key
const LEFT = 36; // room for the names of the Cs
const FOOT = 22; // and for the seconds
const NEAR = 4; // pixels: how close a click must come
const NEW_NOTE = 0.25; // s

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function render({ model, el }) {
  const canvas = document.createElement("canvas");
  const sound = document.createElement("audio");
  canvas.className = "pianoamt-roll";
  canvas.tabIndex = 0;
  canvas.style.cssText = `display: block; width: 100%; height: ${HEAD + KEYS * ROW + FOOT}px; touch-action: none;`;
  sound.controls = true;
  sound.style.cssText = "width: 100%; height: 36px;";
  el.append(canvas, sound);
  const pen = canvas.getContext("2d");

  let image = null; // the spectrogram of what is shown
  let pictures = 0; // how many have been asked for
  let chosen = null; // onset and pitch of the note that was clicked
  let drag = null; // the note in the hand: where it was, where it is, how it is held
  let begins = 0; // where in the recording the sound begins, s

  // where things are
  const scene = () => model.get("scene");
  const width = () => canvas.clientWidth - LEFT;
  const x = (time) => LEFT + ((time - scene().start) / scene().seconds) * width();
  const y = (pitch) => HEAD + (LOWEST + KEYS - 1 - pitch) * ROW;
  const time = (px) => scene().start + ((px - LEFT) / width()) * scene().seconds;
  const pitch = (py) => clamp(LOWEST + KEYS - 1 - Math.floor((py - HEAD) / ROW), LOWEST, LOWEST + KEYS - 1);
  const isChosen = (note) => chosen && chosen[1] === note[2] && Math.abs(chosen[0] - note[0]) < 1e-6;
  const noteAt = (px, py) => {
    const row = pitch(py);
    return scene().notes.findLast((note) => note[2] === row && px > x(note[0]) - NEAR && px < x(note[1]) + NEAR);
  };

  // drawing
  const drawGrid = () => {
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (let c = 24; c < LOWEST + KEYS; c += 12) {
      pen.fillStyle = "rgba(0, 0, 0, 0.18)";
      pen.fillRect(LEFT, y(c) + ROW - 0.5, width(), 1);
      pen.fillStyle = "#333";
      pen.fillText(`C${c / 12 - 1}`, LEFT - 6, y(c) + ROW / 2);
    }
    pen.textAlign = "center";
    const step = [0.5, 1, 2, 5, 10, 30, 60, 300].find((size) => scene().seconds / size <= 12) || 600;
    for (let t = Math.ceil(scene().start / step) * step; t <= scene().start + scene().seconds; t += step) {
      pen.fillRect(x(t), HEAD + KEYS * ROW, 1, 4);
      pen.fillText(`${+t.toFixed(1)} s`, clamp(x(t), LEFT + 10, canvas.clientWidth - 18), HEAD + KEYS * ROW + 13);
    }
  };
  const drawNote = (note, isHeld) => {
    const [left, right] = [x(note[0]), Math.max(x(note[1]), x(note[0]) + 2)];
    pen.fillStyle = isHeld ? "rgba(230, 97, 0, 0.75)" : `rgba(26, 95, 180, ${0.3 + note[3] / 250})`;
    pen.fillRect(left, y(note[2]), right - left, ROW);
    pen.strokeStyle = isHeld ? "#8a3a00" : "#0b2d57";
    pen.lineWidth = isHeld || note[4] ? 2 : 0.8; // made or moved by hand: a heavy frame
    pen.strokeRect(left, y(note[2]) + 0.5, right - left, ROW - 1);
  };
  const draw = () => {
    const scale = window.devicePixelRatio || 1;
    const [wide, high] = [canvas.clientWidth, HEAD + KEYS * ROW + FOOT];
    if (!wide || !scene().seconds) return;
    [canvas.width, canvas.height] = [wide * scale, high * scale];
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.font = "11px sans-serif";
    pen.fillStyle = "white";
    pen.fillRect(0, 0, wide, high);
    pen.imageSmoothingEnabled = false;
    if (image) pen.drawImage(image, LEFT, HEAD, width(), KEYS * ROW);
    drawGrid();
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, HEAD, width(), KEYS * ROW);
    pen.clip();
    for (const note of scene().notes) if (!drag || note !== drag.was) drawNote(note, isChosen(note));
    if (drag) drawNote(drag.now, true);
    if (sound.src && !sound.ended) {
      pen.fillStyle = "#c01c28";
      pen.fillRect(x(begins + sound.currentTime), HEAD, 1.5, KEYS * ROW);
    }
    pen.restore();
  };
  const describe = () => {
    const { start, seconds, notes } = scene();
    const span = `${start.toFixed(1)} to ${(start + seconds).toFixed(1)} s`;
    canvas.setAttribute("aria-label", `Piano roll, ${notes.length} notes, ${span}`);
    draw();
  };
  const loadPicture = async () => {
    const mine = ++pictures; // a large picture may be ready after a small one that was asked for later
    const bytes = model.get("picture");
    const made = bytes && bytes.byteLength ? await createImageBitmap(new Blob([bytes], { type: "image/png" })) : null;
    if (mine !== pictures) return;
    image = made;
    draw();
  };

  // what the user does
  const choose = (note) => {
    chosen = note ? [note[0], note[2]] : null;
    model.set("chosen", chosen || []);
    model.save_changes();
    draw();
  };
  const edit = (was, now) => {
    if (was && now && [0, 1, 2].every((i) => was[i] === now[i])) return; // at a border
    model.send({ kind: "edit", removed: was && [was[0], was[2]], added: now && now.slice(0, 4) });
    choose(now);
  };
  const moved = (note, dt, dp, isEnd) => {
    const last = scene().length;
    if (isEnd) return [note[0], clamp(note[1] + dt, note[0] + 0.01, last), ...note.slice(2)];
    const shift = clamp(dt, -note[0], Math.max(last - note[1], 0));
    return [note[0] + shift, note[1] + shift, clamp(note[2] + dp, LOWEST, LOWEST + KEYS - 1), note[3], true];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus();
    const note = noteAt(event.offsetX, event.offsetY);
    choose(note);
    if (!note) return;
    const isEnd = x(note[1]) - x(note[0]) > 12 && Math.abs(event.offsetX - x(note[1])) < NEAR;
    drag = { was: note, now: note, isEnd, px: event.offsetX, row: pitch(event.offsetY) };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const under = drag ? drag.was : noteAt(event.offsetX, event.offsetY);
    const atEnd = drag ? drag.isEnd : under && Math.abs(event.offsetX - x(under[1])) < NEAR;
    canvas.style.cursor = under ? (atEnd ? "ew-resize" : "grab") : "crosshair";
    if (!drag) return;
    const dx = Math.abs(event.offsetX - drag.px) < 2 ? 0 : time(event.offsetX) - time(drag.px);
    const dp = pitch(event.offsetY) - drag.row;
    drag.now = dx || dp ? moved(drag.was, dx, dp, drag.isEnd) : drag.was;
    draw();
  });
  canvas.addEventListener("pointerup", () => {
    const held = drag;
    drag = null;
    if (held && held.now !== held.was) edit(held.was, held.now);
  });
  canvas.addEventListener("pointercancel", () => {
    drag = null;
    draw();
  });
  canvas.addEventListener("dblclick", (event) => {
    const begin = time(event.offsetX);
    if (noteAt(event.offsetX, event.offsetY) || event.offsetX < LEFT || begin >= scene().length) return;
    const end = Math.min(begin + NEW_NOTE, scene().length);
    edit(null, [Math.max(0, end - NEW_NOTE), end, pitch(event.offsetY), 64, true]);
  });
  canvas.addEventListener("keydown", (event) => {
    const note = scene().notes.find(isChosen);
    const steps = { ArrowLeft: [-0.01, 0], ArrowRight: [0.01, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!note) return;
    if (["Delete", "Backspace"].includes(event.key)) edit(note, null);
    else if (event.key === "Escape") choose(null);
    else if (steps[event.key]) edit(note, moved(note, ...steps[event.key], event.shiftKey));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  // what Python sends
  const silence = () => {
    sound.pause();
    if (sound.src) URL.revokeObjectURL(sound.src);
    sound.removeAttribute("src");
    sound.load();
  };
  model.on("msg:custom", (message, buffers) => {
    if (message.kind === "silence") silence(); // another recording is here
    if (!["sound", "file"].includes(message.kind)) return;
    const address = URL.createObjectURL(new Blob([buffers[0]], { type: message.type }));
    if (message.kind === "sound") {
      if (sound.src) URL.revokeObjectURL(sound.src);
      [sound.src, begins] = [address, message.start];
      sound.play().catch(() => {}); // the browser may insist on a click: the player is there for it
    } else {
      const link = document.createElement("a");
      [link.href, link.download] = [address, message.name];
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 60000);
    }
  });
  const follow = () => {
    draw();
    if (!sound.paused) requestAnimationFrame(follow);
  };
  sound.addEventListener("play", follow);
  sound.addEventListener("seeked", draw);
  model.on("change:scene", describe);
  model.on("change:picture", loadPicture);
  const observer = new ResizeObserver(draw);
  observer.observe(canvas);
  describe();
  loadPicture();
  return () => {
    observer.disconnect();
    silence();
  };
}

export default { render };
