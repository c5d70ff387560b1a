// The explorer in the browser: it draws the notes over the spectrogram, plays them, and tells Python what the user
// decides. The notes belong to Python: every decision is a message, and the answer is what is drawn.
const LOWEST = 21; // MIDI pitch of the lowest key
const KEYS = 88;
const RATE = 16000; // Hz, of the sound that Python sends
const SOUND_SECONDS = 10; // of the recording in one message
const UPLOAD_BYTES = 1 << 20; // of a file in one message
const FRAMES_PER_SECOND = 62.5; // of the spectrogram
const TILE = 1024; // frames of the spectrogram in one bitmap
const RULER = 20; // pixels above the highest key
const LANE = 18; // pixels of the pedal lane
const OVERVIEW = 48; // pixels
const NEAR = 5; // pixels: how close to a note's end a drag begins to move that end
const NEW_NOTE = 0.3; // s
const THRESHOLDS = ["onset", "frame", "offset", "release", "pedal"];
const SOFT_TO_LOUD = {
  light: [[150, 205, 222], [52, 138, 189], [74, 75, 168], [134, 32, 124], [176, 20, 52]],
  dark: [[44, 74, 110], [46, 134, 171], [84, 190, 160], [200, 214, 90], [255, 236, 150]],
};

const KEY_NAMES = "C♭ G♭ D♭ A♭ E♭ B♭ F C G D A E B F♯ C♯".split(" ").map((major, i) =>
  `${major} major, ${"A♭ E♭ B♭ F C G D A E B F♯ C♯ G♯ D♯ A♯".split(" ")[i]} minor`);

const PAGE = `
<label class="drop"><input type="file" accept="audio/*,video/*,.flac,.opus,.m4a,.mka,.aif,.aiff"><span></span>
  <small>Piano recordings in any sound or film format. They stay on this machine.</small></label>
<p class="message" role="status"></p>
<div class="busy" hidden><progress max="1" aria-label="Progress"></progress> <span></span></div>
<div class="work" hidden>
  <div class="bar" role="toolbar" aria-label="Listen and edit">
    <button data-do="play" class="main" aria-keyshortcuts="Space">Play</button>
    <span class="clock" aria-label="Position"></span>
    <label>Listen to <select name="voices">
      <option>original</option><option>transcription</option><option selected>one in each ear</option></select></label>
    <label class="grow">Sensitivity <input type="range" name="sensitivity" min="-5" max="5" step="0.1"
      title="To the right: more notes, including soft ones. To the left: only the most certain ones."><output></output></label>
  </div>
  <div class="tabs" role="tablist">
    <button role="tab" data-do="roll" aria-selected="true" aria-controls="pianoamt-roll">Piano roll</button>
    <button role="tab" data-do="sheet" aria-selected="false" aria-controls="pianoamt-sheet">Sheet music</button>
  </div>
  <div id="pianoamt-roll" role="tabpanel">
  <canvas class="roll" tabindex="0" role="application" aria-describedby="pianoamt-keys"></canvas>
  <canvas class="overview" tabindex="0" role="slider" aria-label="Part of the recording in view" aria-valuemin="0"></canvas>
  <div class="bar" role="toolbar" aria-label="Notes and view">
    <button data-do="undo" aria-keyshortcuts="Control+Z">Undo</button>
    <button data-do="redo" aria-keyshortcuts="Control+Shift+Z">Redo</button>
    <button data-do="add" aria-keyshortcuts="A">Add note</button>
    <button data-do="delete" aria-keyshortcuts="Delete">Delete note</button>
    <button data-do="closer" aria-label="Zoom in" aria-keyshortcuts="+">+</button>
    <button data-do="wider" aria-label="Zoom out" aria-keyshortcuts="-">&minus;</button>
    <button data-do="all">Show all</button>
    <span class="grow selection" role="status"></span>
    <span class="legend">soft <i></i> loud</span>
  </div>
  </div>
  <div id="pianoamt-sheet" role="tabpanel" hidden>
    <div class="bar">
      <label>Meter <select name="meter"><option value="">as found</option>
        ${["2/4", "3/4", "4/4", "3/8", "6/8", "9/8", "12/8"].map((name) => `<option>${name}</option>`)}</select></label>
      <label>Level <select name="level"><option value="">as found</option>
        <option value="half">half as many beats</option><option value="double">twice as many</option></select></label>
      <label>Key <select name="key"><option value="">as found</option>
        ${KEY_NAMES.map((name, i) => `<option value="${i - 7}">${name}</option>`)}</select></label>
      Download <button data-do="musicxml" class="main">MusicXML</button><button data-do="pdf">PDF</button>
    </div>
    <p class="reading" role="status"></p>
    <div class="pages" tabindex="0" aria-label="Sheet music"></div>
  </div>
  <div class="bar">
    Download <button data-do="midi" class="main">MIDI</button><button data-do="csv">CSV</button><button data-do="png">PNG</button>
    <label>Durations <select name="durations">
      <option value="key">key: until the finger lifts</option><option value="pedal">pedal: until the damper falls</option></select></label>
  </div>
  <details><summary>Advanced: thresholds</summary>
    <p>How sure the network must be, from 0 to 1. Sensitivity moves the first two.</p>
    <div class="thresholds"></div><button data-do="reset">Thresholds of the weights</button>
  </details>
  <details id="pianoamt-keys"><summary>Mouse, touch and keys</summary>
    <p>Click a note and drag it, or drag its end. Double-click an empty place to add a note, press the keyboard to hear a key.
    Turn the wheel or pinch to zoom, drag the background to scroll, click the time line to move the playhead.</p>
    <p><kbd>Space</kbd> play or pause · <kbd>N</kbd> <kbd>P</kbd> next and previous note · <kbd>&larr;</kbd> <kbd>&rarr;</kbd>
    move it by 10 ms, with <kbd>Shift</kbd> its end · <kbd>&uarr;</kbd> <kbd>&darr;</kbd> by a semitone, with <kbd>Ctrl</kbd>
    its velocity · <kbd>A</kbd> add a note · <kbd>Delete</kbd> · <kbd>Ctrl</kbd>+<kbd>Z</kbd> undo, with <kbd>Shift</kbd> redo ·
    <kbd>+</kbd> <kbd>-</kbd> zoom · <kbd>Home</kbd> <kbd>End</kbd> playhead to the beginning or the end</p>
  </details>
</div>`;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const isBlack = (pitch) => [1, 3, 6, 8, 10].includes(pitch % 12);
const pitchName = (pitch) => ["C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B"][pitch % 12] + (Math.floor(pitch / 12) - 1);
const clock = (seconds, digits = 0) =>
  `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0")}`;
const timeLeft = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s left` : `${Math.ceil(seconds / 60)} min left`);
const isSame = (note, other) => note && other && note.pitch === other.pitch && Math.abs(note.onset - other.onset) < 1e-6;

// The numbers of a message as rows; the bytes may begin anywhere, so they are copied.
function readRows(view, width) {
  const numbers = new Float64Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  return Array.from({ length: numbers.length / width }, (_, row) => numbers.subarray(row * width, (row + 1) * width));
}

function velocityColours(stops) {
  return Array.from({ length: 128 }, (_, velocity) => {
    const place = clamp((velocity - 20) / 90, 0, 0.999) * (stops.length - 1);
    const [low, high, share] = [stops[Math.floor(place)], stops[Math.floor(place) + 1], place % 1];
    return `rgb(${low.map((value, i) => Math.round(value + share * (high[i] - value)))})`;
  });
}

// Sends a file in pieces, each when the one before has arrived.
class Uploader {
  constructor(model, showBusy) {
    Object.assign(this, { model, showBusy, file: null });
  }
  begin(file) {
    if (!file || this.file) return;
    Object.assign(this, { file, sent: 0 });
    this.model.send({ kind: "begin", name: file.name, size: file.size });
  }
  async next() {
    if (!this.file) return;
    const piece = await this.file.slice(this.sent, this.sent + UPLOAD_BYTES).arrayBuffer();
    this.showBusy(`Uploading ${this.file.name}`, this.sent / this.file.size);
    this.sent += piece.byteLength;
    this.model.send({ kind: "piece" }, undefined, [piece]);
  }
  end() {
    this.file = null;
    this.showBusy("", -1);
  }
}

// Plays the recording, which arrives in pieces, and the notes, on strings of a few partials.
class Player {
  constructor(request, onchange) {
    Object.assign(this, { request, onchange, voices: "one in each ear", waves: new Map(), notes: [] });
    this.reset(0, 0);
  }
  reset(length, loudness) {
    this.stop();
    Object.assign(this, { length, loudness, position: 0, pieces: new Map(), asked: new Set() });
  }
  get playing() {
    return this.timer !== undefined;
  }
  get time() {
    if (!this.playing || this.waiting) return this.position;
    return clamp(this.position + this.context.currentTime - this.began, 0, this.length);
  }
  open() {
    if (!this.context) {
      this.context = new AudioContext({ sampleRate: RATE });
      const limiter = new DynamicsCompressorNode(this.context, { threshold: -6, knee: 3, ratio: 20, attack: 0.002 });
      limiter.connect(this.context.destination);
      this.outputs = ["original", "transcription"].map((name, i) => {
        const [gain, pan] = [new GainNode(this.context), new StereoPannerNode(this.context)];
        gain.connect(pan).connect(i ? limiter : this.context.destination);
        return { name, gain, pan };
      });
    }
    this.context.resume();
    this.setVoices(this.voices);
  }
  setVoices(voices) {
    this.voices = voices;
    const energy = this.notes.reduce((sum, note) => sum + (note.velocity / 127) ** 4 * Math.min(note.damped - note.onset, 1), 0);
    const match = this.loudness / (0.11 * Math.sqrt(energy / Math.max(this.length, 1)) + 1e-4);
    for (const [i, { name, gain, pan }] of (this.outputs || []).entries()) {
      gain.gain.value = voices.startsWith("one") || voices === name ? (i ? clamp(match, 0.3, 8) : 1) : 0;
      pan.pan.value = voices.startsWith("one") ? 2 * i - 1 : 0;
    }
  }
  play(from) {
    this.stop();
    this.open();
    this.position = from >= this.length - 0.05 ? 0 : from;
    Object.assign(this, { waiting: true, live: new Set(), scheduled: new Set(), until: this.position });
    this.timer = setInterval(() => this.schedule(), 100);
    this.schedule();
    this.onchange();
  }
  stop() {
    if (!this.playing) return;
    this.position = this.time;
    clearInterval(this.timer);
    this.timer = undefined;
    for (const node of this.live) node.stop();
    this.onchange();
  }
  receive(index, bytes) {
    const samples = new Int16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    const buffer = new AudioBuffer({ length: Math.max(samples.length, 1), sampleRate: RATE });
    buffer.copyToChannel(Float32Array.from(samples, (sample) => sample / 32768), 0);
    this.asked.delete(index);
    this.pieces.set(index, buffer);
    if (this.pieces.size > 12) this.pieces.delete(this.pieces.keys().next().value);
    if (this.playing) this.schedule();
  }
  schedule() {
    const now = this.time;
    if (now >= this.length) return this.stop();
    for (let index = Math.floor(now / SOUND_SECONDS); index * SOUND_SECONDS < Math.min(now + 6, this.length); index++) {
      if (!this.pieces.has(index) && !this.asked.has(index)) {
        this.asked.add(index);
        this.request(index);
      } else if (this.pieces.has(index) && !this.scheduled.has(index)) {
        if (this.waiting) Object.assign(this, { waiting: false, began: this.context.currentTime + 0.05 });
        this.scheduled.add(index);
        const begins = this.began + index * SOUND_SECONDS - this.position;
        const late = Math.max(0, Math.max(this.context.currentTime, this.began) - begins);
        const source = new AudioBufferSourceNode(this.context, { buffer: this.pieces.get(index) });
        source.connect(this.outputs[0].gain);
        source.start(begins + late, late);
        this.keep(source);
      }
    }
    if (this.waiting) return;
    for (const note of this.notes) {
      if (note.onset >= this.until && note.onset < now + 1) {
        this.strike(note.pitch, note.velocity, this.began + note.onset - this.position, note.damped - note.onset);
      }
    }
    this.until = Math.max(this.until, now + 1);
  }
  keep(node) {
    this.live.add(node);
    node.onended = () => this.live.delete(node);
  }
  wave(pitch) {
    if (!this.waves.has(pitch)) {
      const hertz = 440 * 2 ** ((pitch - 69) / 12);
      const count = clamp(Math.floor((0.46 * RATE) / hertz), 1, 40);
      const levels = Float32Array.from({ length: count + 1 }, (_, n) =>
        n ? (Math.abs(Math.sin(0.12 * Math.PI * n)) / n ** 1.2) * Math.exp((-hertz * (n - 1)) / 1200) : 0);
      this.waves.set(pitch, new PeriodicWave(this.context, { imag: levels }));
    }
    return this.waves.get(pitch);
  }
  strike(pitch, velocity, when, seconds) {
    const string = new OscillatorNode(this.context, { frequency: 440 * 2 ** ((pitch - 69) / 12), periodicWave: this.wave(pitch) });
    const gain = new GainNode(this.context, { gain: 0 });
    const decay = clamp(2 * 2 ** ((60 - pitch) / 16), 0.2, 3);
    const begin = Math.max(when, this.context.currentTime);
    gain.gain.setValueAtTime(0, begin);
    gain.gain.linearRampToValueAtTime(0.25 * (velocity / 127) ** 2, begin + 0.004);
    gain.gain.setTargetAtTime(0, begin + 0.004, decay);
    gain.gain.setTargetAtTime(0, begin + Math.max(seconds, 0.03), 0.05);
    string.connect(gain).connect(this.outputs[1].gain);
    string.start(begin);
    string.stop(begin + Math.min(seconds, 6) + 0.4);
    this.keep(string);
  }
  audition(pitch, velocity = 80) {
    this.open();
    this.live ||= new Set();
    this.outputs[1].gain.gain.value ||= 1;
    this.strike(pitch, velocity, 0, 0.5);
  }
}

// The piano roll and the strip below it that shows the whole recording.
class Roll {
  constructor(root, player, actions) {
    Object.assign(this, { root, player, actions, notes: [], pedal: [], length: 0, start: 0, seconds: 10, selected: null });
    Object.assign(this, { picture: new Uint8Array(), tiles: new Map(), pointers: new Map(), drag: null, key: 60 });
    [this.canvas, this.strip] = [root.querySelector(".roll"), root.querySelector(".overview")];
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      this.canvas.addEventListener(kind, (event) => this[kind](event));
    }
    this.canvas.addEventListener("dblclick", (event) => this.addAt(event));
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.canvas.addEventListener("keydown", (event) => this.keydown(event));
    this.strip.addEventListener("pointerdown", (event) => this.strip.setPointerCapture(event.pointerId));
    for (const kind of ["pointerdown", "pointermove"]) {
      this.strip.addEventListener(kind, (event) => event.buttons && this.centre((event.offsetX / this.strip.clientWidth) * this.length));
    }
    this.strip.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.25, ArrowRight: 0.25, PageUp: -1, PageDown: 1 }[event.key];
      if (step) this.look(this.start + step * this.seconds);
      if (step) event.preventDefault();
    });
  }

  // where things are
  get left() {
    return this.canvas.clientWidth < 500 ? 32 : 46;
  }
  get row() {
    return (this.canvas.clientHeight - RULER - LANE) / KEYS;
  }
  get width() {
    return this.canvas.clientWidth - this.left;
  }
  get floor() {
    return RULER + KEYS * this.row;
  }
  x(time) {
    return this.left + ((time - this.start) / this.seconds) * this.width;
  }
  y(pitch) {
    return RULER + (LOWEST + KEYS - 1 - pitch) * this.row;
  }
  time(x) {
    return this.start + ((x - this.left) / this.width) * this.seconds;
  }
  pitch(y) {
    return clamp(LOWEST + KEYS - 1 - Math.floor((y - RULER) / this.row), LOWEST, LOWEST + KEYS - 1);
  }
  noteAt(x, y, slack) {
    const distance = (note) => Math.abs(this.y(note.pitch) + this.row / 2 - y);
    const near = this.notes.filter((note) => distance(note) <= this.row / 2 + slack && x > this.x(note.onset) - NEAR && x < this.x(note.offset) + NEAR);
    return near.sort((a, b) => distance(a) - distance(b))[0];
  }

  // what is in view
  look(start, seconds = this.seconds) {
    this.seconds = clamp(seconds, 1, Math.max(this.length, 5));
    this.start = clamp(start, 0, Math.max(this.length - this.seconds, 0));
    this.draw();
  }
  centre(time) {
    this.look(time - this.seconds / 2);
  }
  zoom(factor, time = this.start + this.seconds / 2) {
    const seconds = clamp(this.seconds / factor, 1, Math.max(this.length, 5));
    this.look(time - ((time - this.start) / this.seconds) * seconds, seconds);
  }
  follow() {
    const now = this.player.time;
    if (now < this.start || now > this.start + 0.95 * this.seconds) this.look(now - 0.05 * this.seconds);
  }
  select(note) {
    this.selected = note || null;
    if (note) this.key = note.pitch;
    if (note && (note.offset < this.start || note.onset > this.start + this.seconds)) this.centre(note.onset);
    this.draw();
  }

  // drawing
  setTheme(isDark) {
    this.paint = null;
    this.colours = velocityColours(SOFT_TO_LOUD[isDark ? "dark" : "light"]);
    this.ink = isDark ? 255 : 0;
    this.tiles.clear();
    this.root.querySelector(".legend i").style.background = `linear-gradient(to right, ${[20, 42, 65, 87, 110].map((v) => this.colours[v])})`;
    this.draw();
  }
  setNotes(notes, pedal) {
    const find = (held) => held && notes.find((note) => isSame(note, held));
    Object.assign(this, { notes, pedal, held: null, selected: find(this.selected) || null });
    this.draw();
  }
  setPicture(bytes) {
    this.picture = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.tiles.clear();
    this.draw();
  }
  readPaint() {
    const style = getComputedStyle(this.root);
    const names = ["roll", "black-row", "grid", "text", "ink", "accent", "pedal", "window"];
    this.paint = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`)]));
  }
  draw() {
    this.pending ||= requestAnimationFrame(() => {
      this.pending = 0;
      if (!this.length) return;
      if (this.player.playing) this.follow();
      if (this.canvas.clientWidth) this.drawAll();
      this.actions.drawn();
      if (this.player.playing) this.draw();
    });
  }
  drawAll() {
    if (!this.paint) this.readPaint();
    this.drawRoll(this.prepare(this.canvas));
    this.drawStrip(this.prepare(this.strip));
  }
  prepare(canvas) {
    const scale = window.devicePixelRatio || 1;
    const size = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = this.paint.roll;
    pen.fillRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    return pen;
  }
  tile(index) {
    if (!this.tiles.has(index)) {
      const canvas = Object.assign(document.createElement("canvas"), { width: TILE, height: KEYS });
      const image = new ImageData(TILE, KEYS);
      for (let frame = 0; frame < TILE; frame++) {
        for (let key = 0; key < KEYS; key++) {
          const pixel = 4 * ((KEYS - 1 - key) * TILE + frame);
          image.data.fill(this.ink, pixel, pixel + 3);
          image.data[pixel + 3] = 0.5 * (this.picture[(index * TILE + frame) * KEYS + key] || 0);
        }
      }
      canvas.getContext("2d").putImageData(image, 0, 0);
      this.tiles.set(index, canvas);
    }
    return this.tiles.get(index);
  }
  drawRoll(pen) {
    this.drawRows(pen);
    this.drawRuler(pen);
    pen.save();
    pen.beginPath();
    pen.rect(this.left, RULER, this.width, this.floor - RULER + LANE);
    pen.clip();
    const span = TILE / FRAMES_PER_SECOND;
    for (let index = Math.floor(this.start / span); index * span < Math.min(this.start + this.seconds, this.length); index++) {
      pen.drawImage(this.tile(index), this.x(index * span), RULER, (span / this.seconds) * this.width, this.floor - RULER);
    }
    for (const note of this.notes) {
      if (note.damped > this.start && note.onset < this.start + this.seconds && note !== this.drag?.note) this.drawNote(pen, note);
    }
    const moved = this.drag?.now || this.held;
    if (moved) this.drawNote(pen, moved, true);
    pen.fillStyle = this.paint.pedal;
    for (const [down, up] of this.pedal) pen.fillRect(this.x(down), this.floor + 4, Math.max(this.x(up) - this.x(down), 1), LANE - 6);
    pen.fillStyle = this.paint.accent;
    pen.fillRect(this.x(this.player.time) - 0.75, RULER, 1.5, this.floor + LANE);
    pen.restore();
    this.drawKeyboard(pen);
  }
  drawRows(pen) {
    for (let pitch = LOWEST; pitch < LOWEST + KEYS; pitch++) {
      pen.fillStyle = this.paint["black-row"];
      if (isBlack(pitch)) pen.fillRect(this.left, this.y(pitch), this.width, this.row);
      pen.fillStyle = this.paint.grid;
      if (pitch % 12 === 0) pen.fillRect(this.left, this.y(pitch) + this.row - 0.5, this.width, 1);
    }
    pen.fillRect(this.left, this.floor, this.width, 1);
  }
  drawNote(pen, note, isMoving = false) {
    const [left, top, height] = [this.x(note.onset), this.y(note.pitch), Math.max(this.row - 0.5, 2)];
    const width = Math.max(this.x(note.offset) - left, 2);
    pen.fillStyle = this.colours[note.velocity];
    pen.globalAlpha = 0.3;
    pen.fillRect(left, top + height / 4, Math.max(this.x(note.damped) - left, width), height / 2);
    pen.globalAlpha = 0.9;
    pen.fillRect(left, top, width, height);
    pen.globalAlpha = 1;
    pen.fillStyle = this.paint.ink;
    pen.fillRect(left, top, 1, height);
    const isSelected = isMoving || isSame(note, this.selected);
    if (!isSelected && !note.byHand) return;
    pen.strokeStyle = isSelected ? this.paint.accent : this.paint.ink;
    pen.lineWidth = isSelected ? 2 : 1.2;
    pen.strokeRect(left - 1, top - 1, width + 2, height + 2);
  }
  drawRuler(pen) {
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300].find((size) => this.seconds / size <= this.width / 80) || 600;
    for (let tick = Math.ceil(this.start / step); tick * step <= this.start + this.seconds; tick++) {
      const x = this.x(tick * step);
      pen.fillStyle = this.paint.grid;
      pen.fillRect(x, RULER - 4, 1, this.floor - RULER + 4);
      pen.fillStyle = this.paint.text;
      pen.fillText(clock(tick * step, step < 1 ? 1 : 0), clamp(x, this.left + 14, this.canvas.clientWidth - 18), RULER / 2);
    }
  }
  drawKeyboard(pen) {
    const sounding = new Map();
    const now = this.player.time;
    if (this.player.playing) for (const note of this.notes) if (note.onset <= now && note.offset > now) sounding.set(note.pitch, note.velocity);
    pen.fillStyle = "#fbfbf8";
    pen.fillRect(0, RULER, this.left - 2, KEYS * this.row);
    pen.textAlign = "right";
    for (let pitch = LOWEST; pitch < LOWEST + KEYS; pitch++) {
      const [top, wide] = [this.y(pitch), isBlack(pitch) ? 0.62 * (this.left - 2) : this.left - 2];
      pen.fillStyle = sounding.has(pitch) ? this.colours[sounding.get(pitch)] : isBlack(pitch) ? "#1d1d20" : "#fbfbf8";
      if (isBlack(pitch) || sounding.has(pitch)) pen.fillRect(0, top, wide, this.row);
      pen.fillStyle = "#9a9a9a";
      if (isBlack(pitch)) pen.fillRect(wide, top + this.row / 2, this.left - 2 - wide, 0.5);
      else if ([0, 5].includes(pitch % 12)) pen.fillRect(0, top + this.row, this.left - 2, 0.5);
      pen.fillStyle = "#333";
      if (pitch % 12 === 0) pen.fillText(`C${pitch / 12 - 1}`, this.left - 4, top + this.row / 2);
    }
    pen.fillStyle = this.paint.text;
    pen.fillText("Ped.", this.left - 6, this.floor + LANE / 2);
  }
  drawStrip(pen) {
    const [wide, high] = [this.strip.clientWidth, this.strip.clientHeight];
    const x = (time) => (time / this.length) * wide;
    for (const note of this.notes) {
      pen.fillStyle = this.colours[note.velocity];
      pen.fillRect(x(note.onset), (1 - (note.pitch - LOWEST + 1) / KEYS) * (high - 4) + 2, Math.max(x(note.offset) - x(note.onset), 1), 1.5);
    }
    pen.fillStyle = this.paint.window;
    pen.fillRect(0, 0, x(this.start), high);
    pen.fillRect(x(this.start + this.seconds), 0, wide, high);
    pen.strokeStyle = this.paint.accent;
    pen.strokeRect(x(this.start) + 0.5, 0.5, Math.max(x(this.seconds) - 1, 3), high - 1);
    pen.fillStyle = this.paint.accent;
    pen.fillRect(x(this.player.time), 0, 1.5, high);
    this.strip.setAttribute("aria-valuenow", this.start.toFixed(1));
    this.strip.setAttribute("aria-valuemax", Math.max(this.length - this.seconds, 0).toFixed(1));
    this.strip.setAttribute("aria-valuetext", `${clock(this.start, 1)} to ${clock(this.start + this.seconds, 1)}`);
  }

  // what mouse, finger and keyboard do
  edit(was, now) {
    if (was && now && ["onset", "offset", "pitch", "velocity"].every((name) => was[name] === now[name])) return;
    this.held = now;
    this.actions.edit(was && [was.onset, was.pitch], now && [now.onset, now.offset, now.pitch, now.velocity]);
    this.select(now);
  }
  moved(note, seconds, semitones, isEnd) {
    if (isEnd) return { ...note, offset: clamp(note.offset + seconds, note.onset + 0.01, this.length), damped: 0 };
    const shift = clamp(seconds, -note.onset, Math.max(this.length - note.offset, 0));
    const pitch = clamp(note.pitch + semitones, LOWEST, LOWEST + KEYS - 1);
    return { ...note, onset: note.onset + shift, offset: note.offset + shift, damped: 0, pitch, byHand: true };
  }
  add(onset, pitch) {
    const begin = clamp(onset, 0, Math.max(this.length - NEW_NOTE, 0));
    this.player.audition(pitch);
    this.edit(null, { onset: begin, offset: begin + NEW_NOTE, damped: 0, pitch, velocity: 64, byHand: true });
  }
  addAt({ offsetX, offsetY }) {
    if (offsetX < this.left || offsetY < RULER || this.noteAt(offsetX, offsetY, 0) || this.time(offsetX) >= this.length) return;
    this.add(this.time(offsetX), this.pitch(offsetY));
  }
  pointerdown(event) {
    const { offsetX: x, offsetY: y, pointerId } = event;
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(pointerId);
    this.pointers.set(pointerId, { x, y });
    if (this.pointers.size > 1) return Object.assign(this, { drag: null, spread: this.spreadOf() });
    if (y < RULER) this.drag = { kind: "scrub" };
    else if (x < this.left) this.drag = { kind: "key", pitch: (this.key = this.pitch(y)) };
    else this.drag = this.beginDrag(x, y, event.pointerType === "touch" ? 2 * this.row : 0);
    if (this.drag.kind === "key") this.player.audition(this.key);
    if (this.drag.kind === "scrub") this.actions.seek(this.time(x));
  }
  beginDrag(x, y, slack) {
    const note = this.noteAt(x, y, slack);
    if (!note) return { kind: "pan", x, start: this.start };
    this.select(note);
    if (!this.player.playing) this.player.audition(note.pitch, note.velocity);
    const isEnd = this.x(note.offset) - this.x(note.onset) > 12 && Math.abs(x - this.x(note.offset)) < NEAR;
    return { kind: "note", note, now: null, isEnd, x, row: this.pitch(y) };
  }
  spreadOf() {
    const [a, b] = [...this.pointers.values()];
    return { distance: Math.max(Math.hypot(a.x - b.x, a.y - b.y), 10), time: this.time((a.x + b.x) / 2) };
  }
  pointermove(event) {
    const { offsetX: x, offsetY: y } = event;
    const under = this.noteAt(x, y, 0);
    const atEnd = this.drag ? this.drag.isEnd : under && Math.abs(x - this.x(under.offset)) < NEAR;
    this.canvas.style.cursor = x < this.left || y < RULER ? "pointer" : under || this.drag?.note ? (atEnd ? "ew-resize" : "grab") : "default";
    if (!this.pointers.has(event.pointerId)) return;
    this.pointers.set(event.pointerId, { x, y });
    if (this.pointers.size === 2) {
      const [before, after] = [this.spread, this.spreadOf()];
      this.zoom(after.distance / before.distance, after.time);
      this.look(this.start + before.time - this.spreadOf().time);
      this.spread = this.spreadOf();
    } else if (this.drag?.kind === "scrub") this.actions.seek(this.time(x));
    else if (this.drag?.kind === "pan") this.look(this.drag.start - ((x - this.drag.x) / this.width) * this.seconds);
    else if (this.drag?.kind === "note") {
      const shift = Math.abs(x - this.drag.x) < 3 ? 0 : this.time(x) - this.time(this.drag.x);
      const rows = this.pitch(y) - this.drag.row;
      this.drag.now = shift || rows ? this.moved(this.drag.note, shift, rows, this.drag.isEnd) : null;
      this.draw();
    }
  }
  pointerup(event) {
    const { drag } = this;
    this.pointercancel(event);
    if (drag?.now) this.edit(drag.note, drag.now);
    if (drag?.kind === "pan" && Math.abs(event.offsetX - drag.x) < 3) {
      this.select(null);
      this.actions.seek(this.time(event.offsetX));
    }
  }
  pointercancel(event) {
    this.pointers.delete(event.pointerId);
    this.drag = null;
    this.draw();
  }
  wheel(event) {
    event.preventDefault();
    const size = event.deltaMode ? 20 : 1;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      this.look(this.start + (((event.deltaX || event.deltaY) * size) / this.width) * this.seconds);
    } else this.zoom(Math.exp(-event.deltaY * size * (event.ctrlKey ? 0.01 : 0.002)), this.time(Math.max(event.offsetX, this.left)));
  }
  step(direction) {
    const now = this.selected ? this.notes.findIndex((note) => isSame(note, this.selected)) : this.notes.findIndex((note) => note.onset >= this.player.time) - (direction > 0);
    this.select(this.notes[clamp(now + direction, 0, this.notes.length - 1)]);
    if (this.selected) this.player.audition(this.selected.pitch, this.selected.velocity);
  }
  nudge(event) {
    const [seconds, semitones] = { ArrowLeft: [-0.01, 0], ArrowRight: [0.01, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const note = this.selected;
    if (!note) return this.look(this.start + seconds * 10 * this.seconds);
    if (!semitones || !(event.ctrlKey || event.metaKey)) return this.edit(note, this.moved(note, seconds, semitones, event.shiftKey && !semitones));
    this.edit(note, { ...note, velocity: clamp(note.velocity + 5 * semitones, 1, 127) });
  }
  keydown(event) {
    if (event.key.startsWith("Arrow")) this.nudge(event);
    else if ((event.ctrlKey || event.metaKey) && event.key !== "0") return;
    else if (["Delete", "Backspace"].includes(event.key)) this.actions.delete();
    else if (event.key === "Escape") this.select(null);
    else if ("nN".includes(event.key)) this.step(1);
    else if ("pP".includes(event.key)) this.step(-1);
    else if ("aA".includes(event.key)) this.actions.add();
    else if ("+=".includes(event.key)) this.zoom(1.5);
    else if ("-_".includes(event.key)) this.zoom(1 / 1.5);
    else if (event.key === "Home") this.actions.seek(0);
    else if (event.key === "End") this.actions.seek(this.length);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// The engraved pages, whose bars light up while the sound plays.
class Sheet {
  constructor(root, seek) {
    Object.assign(this, { root, bars: [], measures: [], areas: [] });
    root.querySelector(".pages").addEventListener("click", ({ target }) => {
      const bar = this.measures.indexOf(target.closest(".measure"));
      if (bar >= 0) seek(this.bars[bar]);
    });
  }
  get isOpen() {
    return !this.root.querySelector("#pianoamt-sheet").hidden;
  }
  options() {
    const chosen = ["meter", "level", "key"].map((name) => [name, this.root.querySelector(`[name=${name}]`).value]);
    return Object.fromEntries(chosen.filter(([, value]) => value).map(([name, value]) => [name, name === "key" ? +value : value]));
  }
  show(message, pages) {
    this.root.querySelector(".reading").textContent = message.text;
    const drawings = pages.map((page) => new DOMParser().parseFromString(new TextDecoder().decode(page), "image/svg+xml").documentElement);
    for (const drawing of drawings) drawing.setAttribute("viewBox", `0 0 ${parseInt(drawing.getAttribute("width"))} ${parseInt(drawing.getAttribute("height"))}`);
    this.root.querySelector(".pages").replaceChildren(...drawings);
    this.bars = message.bars;
    this.measures = [...this.root.querySelectorAll(".pages .measure")];
    this.areas = this.measures.map((measure) => {
      const { x, y, width, height } = measure.getBBox();
      const area = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      for (const [name, value] of Object.entries({ x, y, width, height, class: "area" })) area.setAttribute(name, value);
      measure.prepend(area);
      return area;
    });
  }
  follow(time) {
    const area = this.areas[this.bars.findLastIndex((start) => start <= time + 0.02)];
    if (!this.isOpen || area?.classList.contains("now")) return;
    this.root.querySelector(".pages .now")?.classList.remove("now");
    area?.classList.add("now");
    area?.scrollIntoView({ block: "nearest" });
  }
}

function isDarkPage() {
  const { voila, jpThemeLight, vscodeThemeKind } = document.body.dataset;
  if (!voila && jpThemeLight) return jpThemeLight === "false";
  if (vscodeThemeKind) return vscodeThemeKind.includes("dark");
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function save(name, type, content) {
  const link = document.createElement("a");
  const address = URL.createObjectURL(new Blob([content], { type }));
  Object.assign(link, { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

function render({ model, el }) {
  const root = document.createElement("div");
  const find = (selector) => root.querySelector(selector);
  root.className = "pianoamt";
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves our keys to us
  root.innerHTML = PAGE;
  find(".thresholds").innerHTML = THRESHOLDS.map(
    (name) => `<label>${name[0].toUpperCase() + name.slice(1)} threshold <input type="range" name="${name}" min="0.05" max="0.95" step="0.01"><output></output></label>`).join("");
  el.append(root);

  const state = () => model.get("state");
  let begun = 0; // when the work began that is under way, ms
  const showBusy = (label, share) => {
    if (find(".busy").hidden || !share) begun = performance.now();
    const left = ((performance.now() - begun) / 1000) * (1 / Math.max(share, 1e-9) - 1);
    find(".busy").hidden = share < 0;
    find("progress").value = Math.max(share, 0);
    find(".busy span").textContent = `${label}: ${Math.round(100 * share)} %${share > 0.05 ? `, ${timeLeft(left)}` : ""}`;
  };
  const showMessage = () => {
    const { name, notes, edits, warnings } = state();
    const count = `${name}: ${notes} notes${edits ? `, corrections: ${edits}` : ""}`;
    const line = name ? [count, ...warnings].join("; ") : "";
    find(".message").textContent = model.get("error") || line;
    find(".message").classList.toggle("error", !!model.get("error"));
    if (model.get("error")) find(".reading").textContent = "";
  };
  const uploader = new Uploader(model, showBusy);
  const player = new Player(
    (index) => model.send({ kind: "sound", index }),
    () => {
      find("[data-do=play]").textContent = player.playing ? "Pause" : "Play";
      roll.draw();
    },
  );
  const actions = {
    play: () => (player.playing ? player.stop() : player.play(player.time)),
    seek: (time) => {
      const wasPlaying = player.playing;
      player.stop();
      player.position = clamp(time, 0, player.length);
      if (wasPlaying) player.play(player.position);
      else roll.follow();
      roll.draw();
    },
    edit: (removed, added) => model.send({ kind: "edit", removed, added }),
    delete: () => roll.selected && roll.edit(roll.selected, null),
    add: () => roll.add(player.time, roll.key),
    undo: () => model.send({ kind: "undo" }),
    redo: () => model.send({ kind: "redo" }),
    reset: () => model.send({ kind: "reset" }),
    closer: () => roll.zoom(1.5),
    wider: () => roll.zoom(1 / 1.5),
    all: () => roll.look(0, roll.length),
    midi: () => model.send({ kind: "file", format: "mid" }),
    csv: () => model.send({ kind: "file", format: "csv" }),
    png: () => roll.canvas.toBlob((image) => save(`${state().name.replace(/\.[^.]*$/, "")}.png`, "image/png", image)),
    roll: () => openTab("roll"),
    sheet: () => openTab("sheet"),
    musicxml: () => model.send({ kind: "file", format: "musicxml", options: sheet.options() }),
    pdf: () => model.send({ kind: "file", format: "pdf", options: sheet.options() }),
    drawn: () => {
      sheet.follow(player.time);
      const note = roll.selected;
      find(".clock").textContent = `${clock(player.time, 1)} / ${clock(roll.length)}`;
      const line = note ? `${pitchName(note.pitch)}, ${clock(note.onset, 2)} to ${clock(note.offset, 2)}, velocity ${note.velocity}` : "";
      if (find(".selection").textContent !== line) find(".selection").textContent = line;
      find("[data-do=delete]").disabled = !note;
      Object.assign(roll.canvas.dataset, { left: roll.left, top: RULER, row: roll.row, start: roll.start, seconds: roll.seconds });
    },
  };
  const roll = new Roll(root, player, actions);
  const sheet = new Sheet(root, actions.seek);
  const engrave = () => {
    if (!sheet.isOpen) return;
    find(".reading").textContent = "Writing the score …";
    model.send({ kind: "sheet", options: sheet.options() });
  };
  const openTab = (name) => {
    for (const tab of ["roll", "sheet"]) {
      find(`#pianoamt-${tab}`).hidden = tab !== name;
      find(`[data-do=${tab}]`).setAttribute("aria-selected", tab === name);
    }
    engrave();
    roll.draw();
  };

  const showState = () => {
    const now = state();
    find(".drop span").textContent = now.name
      ? "Open another recording"
      : `Drop a recording here, or click to choose one (up to ${now.megabytes} MB)`;
    find(".drop").classList.toggle("small", !!now.name);
    find(".work").hidden = !now.name;
    if (!now.name) return;
    find("[data-do=undo]").disabled = !now.undo;
    find("[data-do=redo]").disabled = !now.redo;
    find("[name=durations]").value = now.durations;
    for (const [name, value] of Object.entries({ ...now.thresholds, sensitivity: now.sensitivity })) {
      const input = find(`[name=${name}]`);
      if (name === "pedal") [input.min, input.max] = now.pedal_range;
      if (input !== moving) input.value = value;
      input.nextElementSibling.textContent = name === "sensitivity" ? `${value > 0 ? "+" : ""}${value.toFixed(1)}` : value.toFixed(2);
    }
    roll.canvas.setAttribute("aria-label", `Piano roll of ${now.name}: ${now.notes} notes`);
  };
  const showPicture = () => {
    roll.setPicture(model.get("picture")); // there is another recording, or the first
    if (!state().name) return;
    player.reset(state().seconds, state().loudness);
    Object.assign(roll, { length: state().seconds, selected: null });
    roll.look(0, 10);
  };
  const showNotes = () => {
    const notes = readRows(model.get("notes"), 6).map(([onset, offset, damped, pitch, velocity, byHand]) => ({ onset, offset, damped, pitch, velocity, byHand: !!byHand }));
    player.notes = notes;
    roll.setNotes(notes, readRows(model.get("pedal"), 2));
    engrave();
  };

  // A slider that moves sends its newest value when the answer to the one before is there.
  let moving = null;
  let isWaiting = false;
  let queued = null;
  const decide = (message) => {
    if (isWaiting) queued = message;
    else model.send(message);
    isWaiting = true;
  };
  const answered = ({ to, is_uploading }) => {
    if (is_uploading) return ["begin", "piece"].includes(to) && uploader.next().catch(() => uploader.end());
    if (uploader.file) uploader.end();
    isWaiting = false;
    const next = queued;
    queued = null;
    if (next) decide(next);
    else moving = null;
  };
  root.addEventListener("input", ({ target }) => {
    if (target.type !== "range") return;
    moving = target;
    decide({ kind: target.name, value: target.valueAsNumber });
  });
  root.addEventListener("change", ({ target }) => {
    if (target.name === "voices") player.setVoices(target.value);
    if (["meter", "level", "key"].includes(target.name)) engrave();
    if (target.name === "durations") model.send({ kind: "durations", value: target.value });
    if (target.type === "file") uploader.begin(target.files[0]);
    if (target.type === "file") target.value = "";
  });
  root.addEventListener("click", ({ target }) => actions[target.closest("button")?.dataset.do]?.());
  root.addEventListener("keydown", (event) => {
    const isTab = event.target.role === "tab" && ["ArrowLeft", "ArrowRight"].includes(event.key);
    if (isTab) (event.target.nextElementSibling || event.target.previousElementSibling).focus();
    const isControl = event.target.matches("button, select, summary, [type=file]");
    if (event.key === " " && !isControl && roll.length) actions.play();
    else if ((event.ctrlKey || event.metaKey) && "zZyY".includes(event.key)) actions[event.shiftKey || "yY".includes(event.key) ? "redo" : "undo"]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  for (const [name, isOver] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
    root.addEventListener(name, (event) => {
      event.preventDefault();
      root.classList.toggle("over", isOver);
      if (name === "drop") uploader.begin(event.dataTransfer.files[0]);
    });
  }
  model.on("msg:custom", (message, buffers) => {
    if (message.kind === "done") answered(message);
    if (message.kind === "sound") player.receive(message.index, buffers[0]);
    if (message.kind === "sheet") sheet.show(message, buffers);
    if (message.kind === "sheet") roll.draw();
    if (message.kind === "file") save(message.name, message.type, buffers[0]);
  });
  model.on("change:error change:state", showMessage);
  model.on("change:state", showState);
  model.on("change:notes change:pedal", showNotes);
  model.on("change:picture", showPicture);
  model.on("change:progress", () => showBusy("Transcribing", model.get("progress")));

  const follow = () => {
    root.classList.toggle("dark", isDarkPage());
    document.body.classList.toggle("pianoamt-dark", isDarkPage());
    roll.setTheme(isDarkPage());
  };
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const theme = new MutationObserver(follow);
  const size = new ResizeObserver(() => roll.draw());
  scheme.addEventListener("change", follow);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind"] });
  size.observe(roll.canvas);
  follow();
  showMessage();
  showPicture();
  showState();
  showNotes();
  return () => {
    player.stop();
    scheme.removeEventListener("change", follow);
    theme.disconnect();
    size.disconnect();
  };
}

export default { render };
