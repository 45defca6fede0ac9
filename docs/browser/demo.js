// The page: draws digits, trains two networks in slices between which the browser draws, and compares their weights with
// those of a native training run. All arithmetic is in the WebAssembly module, which demo.c exports.
"use strict";

const SLICE_MS = 30; // of training between two frames
const TEST_EVERY = 20; // steps
const { seed: SEED, testing: TESTING, batch: BATCH, steps: STEPS, l2: L2 } = BUILT.settings;

const $ = (id) => document.getElementById(id);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const percent = (share) => `${(100 * share).toFixed(1)} %`;

let library, memory;
let step, running, losses, scores; // losses[arm] is a list of numbers, scores[arm] of [step, share right]

// ---- The module ----

async function load() {
  const bytes = Uint8Array.from(atob(BUILT.wasm), (c) => c.charCodeAt(0));
  const nothing = () => 0; // what WASI asks of a system: nothing here uses files, arguments or clocks
  const wasi = new Proxy({}, { get: () => nothing });
  const { instance } = await WebAssembly.instantiate(bytes, { wasi_snapshot_preview1: wasi });
  library = instance.exports;
  memory = library.memory;
  library._initialize();
}

const bytesAt = (address, n) => new Uint8Array(memory.buffer, address, n);
const floatsAt = (address, n) => new Float32Array(memory.buffer, address, n);
const textAt = (address, n) => String.fromCharCode(...bytesAt(address, n));

// ---- Training ----

const chosen = () => ({
  training: Number($("training").value),
  hidden: Number($("hidden").value),
  dropout: Number($("dropout").value),
});

function prepare() {
  const { training, hidden, dropout } = chosen();
  const good =
    library.make_data(training, TESTING, BATCH, SEED, L2) &&
    library.make_network(0, hidden, 0, SEED) &&
    library.make_network(1, hidden, dropout, SEED);
  step = 0;
  running = false;
  losses = [[], []];
  scores = [[], []];
  drawDigits();
  for (const arm of [0, 1]) {
    scores[arm].push([0, library.test(arm)]);
    for (const id of ["right", "hash", "same"]) $(id + arm).textContent = "";
  }
  $("python").textContent = python(training, hidden, dropout);
  show(good ? "Ready." : "This browser has not enough memory for the page.");
}

function trainSlice() {
  if (!running) return;
  const end = performance.now() + SLICE_MS;
  do {
    step++;
    for (const arm of [0, 1]) losses[arm].push(library.train(arm));
    if (step % TEST_EVERY === 0) for (const arm of [0, 1]) scores[arm].push([step, library.test(arm)]);
  } while (performance.now() < end && step < STEPS);
  if (step === STEPS) finish();
  else {
    show(`Step ${step} of ${STEPS}`);
    setTimeout(trainSlice, 0); // not requestAnimationFrame: a hidden tab would stop
  }
}

function finish() {
  const { training, hidden, dropout } = chosen();
  running = false;
  for (const arm of [0, 1]) {
    const hash = textAt(library.digest(arm), 64);
    const native = BUILT.native[`${training}-${hidden}-${arm ? dropout : 0}`];
    $("right" + arm).textContent = percent(scores[arm].at(-1)[1]);
    $("hash" + arm).textContent = hash;
    $("same" + arm).textContent = hash === native.sha256 ? "the same weights" : `other weights: ${native.sha256}`;
  }
  const [plain, dropped] = scores.map((s) => s.at(-1)[1]);
  const points = (100 * Math.abs(dropped - plain)).toFixed(1);
  const verdict = dropped > plain ? "more" : "fewer";
  const found = points === "0.0" ? "Both read as many test digits" : `With dropout ${points} points ${verdict} of the test digits are right`;
  show(`${found}, after ${STEPS} steps. One run of each is no verdict: other seeds differ.`);
}

function python(training, hidden, dropout) {
  return `import hashlib, cdrop
images, labels = cdrop.datasets.make_digits(${training}, seed=${SEED})
X = images.reshape(-1, 784).astype("float32") / 255
for dropout in (0, ${dropout}):
    net = cdrop.Network([784, ${hidden}, ${hidden}, 10], dropout=dropout, seed=${SEED})
    net.fit(X, labels, batch_size=${BATCH}, iterations=${STEPS}, l2=${L2})
    print(hashlib.sha256(b"".join(a.tobytes() for a in net.coefs_ + net.intercepts_)).hexdigest())`;
}

// ---- Drawing ----

/** A canvas's context in units of CSS pixels, cleared, with its width and height. */
function context(id) {
  const canvas = $(id);
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  c.font = "12px system-ui, sans-serif";
  return [c, width, height];
}

/** Axes and one line for each network; `lines` are lists of [step, value]. */
function chart(id, lines, top, label) {
  const [c, width, height] = context(id);
  const [left, bottom, right, above] = [44, height - 24, width - 8, 10];
  const x = (at) => left + ((right - left) * at) / STEPS;
  const y = (value) => bottom - ((bottom - above) * Math.min(value, top)) / top;
  c.fillStyle = color("--soft");
  c.strokeStyle = color("--line");
  c.textBaseline = "middle";
  for (let i = 0; i <= 4; i++) {
    const value = (top * i) / 4;
    c.textAlign = "right";
    c.fillText(label(value), left - 6, y(value));
    c.beginPath();
    c.moveTo(left, y(value));
    c.lineTo(right, y(value));
    c.stroke();
    c.textAlign = i === 4 ? "right" : "center";
    c.fillText(String((STEPS * i) / 4), x((STEPS * i) / 4), height - 10);
  }
  lines.forEach((line, arm) => {
    c.strokeStyle = color(arm ? "--dropped" : "--plain");
    c.lineWidth = 2;
    c.beginPath();
    for (const [at, value] of line) c.lineTo(x(at), y(value));
    c.stroke();
  });
}

function smoothed(list) {
  const line = [];
  let sum = 0;
  list.forEach((loss, i) => {
    sum += loss - (i >= 20 ? list[i - 20] : 0);
    line.push([i + 1, sum / Math.min(i + 1, 20)]);
  });
  return line;
}

function show(status) {
  $("status").textContent = status;
  $("done").style.width = `${(100 * step) / STEPS}%`;
  $("done").parentElement.setAttribute("aria-valuenow", step);
  $("run").textContent = running ? "Pause" : step === STEPS ? "Done" : step ? "Continue" : "Train";
  $("run").disabled = step === STEPS;
  for (const id of ["training", "hidden", "dropout"]) $(id).disabled = running;
  const wrong = scores.map((line) => line.map(([at, right]) => [at, 1 - right]));
  chart("score", wrong, 0.4, (v) => `${Math.round(100 * v)} %`);
  chart("loss", losses.map(smoothed), 2.4, (v) => v.toFixed(1));
  drawAnswers();
}

function drawDigits() {
  const canvas = $("digits");
  const [columns, rows] = [window.innerWidth < 640 ? 12 : 25, 4];
  canvas.width = columns * 28;
  canvas.height = rows * 28;
  const c = canvas.getContext("2d");
  for (let i = 0; i < columns * rows; i++) {
    const picture = c.createImageData(28, 28);
    bytesAt(library.image(i), 784).forEach((gray, p) => picture.data.set([gray, gray, gray, 255], 4 * p));
    c.putImageData(picture, (i % columns) * 28, Math.floor(i / columns) * 28);
  }
}

// ---- Your own digit ----

const pad = $("pad");
const ink = pad.getContext("2d", { willReadFrequently: true });
let last = null;

function clearPad() {
  ink.fillStyle = "#000";
  ink.fillRect(0, 0, pad.width, pad.height);
  if (library) drawAnswers();
}

function draw(event) {
  if (event.type === "pointerdown") {
    last = null;
    pad.setPointerCapture(event.pointerId);
  } else if (!event.buttons) return;
  const scale = pad.width / pad.clientWidth;
  const point = [event.offsetX * scale, event.offsetY * scale];
  ink.strokeStyle = "#fff";
  ink.lineWidth = 22;
  ink.lineCap = "round";
  ink.beginPath();
  ink.moveTo(...(last || point));
  ink.lineTo(...point);
  ink.stroke();
  last = point;
  drawAnswers();
}

/** The drawing as the networks see digits: 28 x 28 numbers from 0 to 1, with its ink in the middle. */
function seen() {
  const side = pad.width;
  const { data } = ink.getImageData(0, 0, side, side);
  let [sum, sumX, sumY] = [0, 0, 0];
  for (let i = 0; i < side * side; i++) {
    sum += data[4 * i];
    sumX += data[4 * i] * (i % side);
    sumY += data[4 * i] * Math.floor(i / side);
  }
  if (!sum) return null;
  const [dx, dy] = [Math.round(sumX / sum - side / 2), Math.round(sumY / sum - side / 2)];
  const cell = side / 28;
  const pixels = new Float32Array(784);
  for (let i = 0; i < side * side; i++) {
    const [x, y] = [(i % side) - dx, Math.floor(i / side) - dy];
    if (x >= 0 && x < side && y >= 0 && y < side)
      pixels[Math.floor(y / cell) * 28 + Math.floor(x / cell)] += data[4 * i] / (255 * cell * cell);
  }
  return pixels;
}

function drawAnswers() {
  const [c, width, height] = context("answers");
  const pixels = seen();
  const column = width / 10;
  c.textAlign = "center";
  for (const arm of [0, 1]) {
    if (pixels) floatsAt(library.canvas(), 784).set(pixels);
    const share = pixels ? floatsAt(library.classify(arm), 10).slice() : new Float32Array(10);
    c.fillStyle = color(arm ? "--dropped" : "--plain");
    share.forEach((p, digit) => {
      const tall = (height - 24) * p;
      c.fillRect(column * digit + column * (arm ? 0.5 : 0.15), height - 24 - tall, column * 0.35, tall);
    });
  }
  c.fillStyle = color("--soft");
  for (let digit = 0; digit < 10; digit++) c.fillText(String(digit), column * (digit + 0.5), height - 8);
}

// ---- The page ----

$("run").onclick = () => {
  running = !running;
  show(running ? `Step ${step} of ${STEPS}` : `Paused at step ${step} of ${STEPS}`);
  if (running) setTimeout(trainSlice, 0);
};
$("again").onclick = prepare;
$("clear").onclick = clearPad;
for (const id of ["training", "hidden", "dropout"]) $(id).onchange = prepare;
for (const type of ["pointerdown", "pointermove"]) pad.addEventListener(type, draw);
window.onresize = () => library && show($("status").textContent);

/** Settings in the address: index.html?training=500&run begins at once. */
function readAddress() {
  const given = new URLSearchParams(location.search);
  for (const [name, value] of given) if ($(name)?.tagName === "SELECT") $(name).value = value;
  return given.has("run");
}

clearPad();
load()
  .then(() => new Promise((drawn) => setTimeout(drawn, 0))) // the page is there before the digits are
  .then(() => {
    const run = readAddress();
    prepare();
    if (run) $("run").click();
  })
  .catch((error) => {
    $("status").textContent = `This browser cannot run the page: ${error.message}`;
  });
