// The labelling page: one frame after the other, the most uncertain first.

import { ClassBar } from "./classbar.js";
import { element, percent } from "./format.js";
import { HeadChoice } from "./heads.js";
import { isCommand, Labels } from "./labels.js";
import { TeachPanel } from "./teach.js";

const STALE_MS = 4000;
const labels = new Labels(new URLSearchParams(location.search).get("head") ?? "");
let shown = null; // the frame on the stage, as it stood in the queue

const bar = new ClassBar(labels, () => shown, (frame, name) => {
  element("said").textContent = `labelled ${name}`;
  next();
});
element("bar").append(bar.element);
new HeadChoice(element("heads"), labels);
new TeachPanel(element("teach"), labels);
let head = labels.head;
labels.listen(() => {
  if (labels.state?.head !== undefined && labels.state.head !== head) {
    head = labels.state.head;
    shown = null; // the list of another head begins with another frame
  }
  draw();
});

const address = (frame, small = "") => `/api/labels/picture/${encodeURIComponent(frame.camera)}/${frame.seq}${small}`;
const same = (one, other) => one && other && one.camera === other.camera && one.seq === other.seq;

function show(frame) {
  shown = frame;
  const picture = element("picture");
  picture.hidden = !frame;
  element("nothing").hidden = Boolean(frame);
  element("bar").hidden = !frame;
  if (frame) {
    picture.src = address(frame);
    picture.alt = `frame ${frame.seq} of ${frame.camera}`;
    if (labels.state.live) labels.change("labels/hold", { camera: frame.camera, seq: frame.seq });
  } else {
    picture.removeAttribute("src");
  }
  element("answer").textContent = frame?.label ? `${frame.label} ${percent(frame.prob)}` : "";
  element("why").textContent = frame ? frame.reasons.join(" · ") : "";
  element("where").textContent = frame ? [frame.camera, frame.caption || `frame ${frame.seq}`].join(" · ") : "";
  bar.draw();
}

function next() {
  const queue = labels.state.queue ?? [];
  show(queue.find((frame) => !same(frame, shown)) ?? null);
  draw();
}

function draw() {
  const { state, closed } = labels;
  if (!state) return;
  element("back").hidden = !state.live;
  element("notice").hidden = !(closed || state.fault);
  element("notice").textContent = closed ? `Labels are off: ${closed}.` : state.fault ?? "";
  element("about").textContent = state.reading
    ? `reading the source: ${state.reading.done}${state.reading.total ? ` of ${state.reading.total}` : " frames"}`
    : "uncertain first";
  element("skip").disabled = !shown;
  element("undo").disabled = !state.undo;
  if (closed) {
    if (shown) show(null);
    element("nothing").textContent = "Nothing can be labelled here.";
    return;
  }
  const queue = state.queue;
  if (!shown && queue.length) show(queue[0]);
  element("nothing").textContent = state.reading || state.live ? "No frame yet." : "No frame is left: all have a label, or were skipped.";
  element("queue-note").textContent = queue.length ? "" : "empty";
  const strip = element("queue");
  const wanted = queue.map((frame) => `${frame.camera}/${frame.seq}`);
  if (strip.dataset.frames !== wanted.join(" ")) {
    strip.dataset.frames = wanted.join(" ");
    const present = new Map([...strip.children].map((item) => [item.dataset.frame, item]));
    strip.replaceChildren(...queue.map((frame, place) => present.get(wanted[place]) ?? thumbnail(frame, wanted[place])));
  }
  for (const item of strip.children) item.firstChild.setAttribute("aria-current", item.dataset.frame === `${shown?.camera}/${shown?.seq}`);
}

function thumbnail(frame, key) {
  const item = document.createElement("li");
  item.dataset.frame = key;
  const button = document.createElement("button");
  const picture = Object.assign(document.createElement("img"), { src: address(frame, "?small"), alt: "", loading: "lazy" });
  const text = Object.assign(document.createElement("span"), { textContent: frame.label ?? frame.caption ?? "" });
  button.title = [frame.label, ...frame.reasons].filter(Boolean).join(" · ");
  button.ariaLabel = `frame ${frame.seq} of ${frame.camera}: ${button.title}`;
  button.append(picture, text);
  button.addEventListener("click", () => {
    show(frame);
    draw();
  });
  item.append(button);
  return item;
}

async function skip() {
  const frame = shown;
  if (frame && (await labels.change("labels/skip", { camera: frame.camera, seq: frame.seq }))) {
    element("said").textContent = "skipped";
    next();
  }
}

async function undo() {
  const last = labels.state?.undo;
  if (!last) return;
  const accepted = await labels.change("labels/undo");
  element("said").textContent = accepted ? `took ${last.label} back` : labels.problem;
  if (!accepted) return;
  show(labels.state.queue.find((frame) => same(frame, last)) ?? { ...last, label: null, prob: 0, reasons: [], caption: "" });
  draw();
}

element("skip").addEventListener("click", skip);
element("undo").addEventListener("click", undo);
element("picture").addEventListener("error", () => {
  if (!shown) return;
  element("said").textContent = "the picture is no longer stored";
  next();
});
document.addEventListener("keydown", (event) => {
  if (!isCommand(event) || labels.closed !== null) return;
  if (event.key === "s") skip();
  else if (event.key === "u") undo();
  else if (event.key === "n") {
    event.preventDefault();
    element("bar").querySelector("input").focus();
  } else bar.pressDigit(event.key);
});

setInterval(() => {
  if (document.hidden) return;
  const lost = performance.now() - labels.heard_ms > STALE_MS;
  Object.assign(element("connection"), { textContent: lost ? "no connection" : "connected", className: `pill ${lost ? "bad" : "good"}` });
  document.body.classList.toggle("stale", lost);
}, 1000);
