// Sends the camera's picture to the server, shows the answers, and reconnects after a failure.

import { Connection } from "./connection.js";
import { element, ms, percent } from "/static/format.js";

const FIRST_MS = 500; // until the next attempt; doubled each time
const MAX_MS = 5000;
const RATE_MS = 3000;
const VIDEO = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 15 }, facingMode: "environment" };
const CAMERA_FAULTS = {
  NotAllowedError: "The browser does not allow the camera. Allow it for this page, then try again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera cannot be read. Another program may use it.",
};

let track = null;
let connection = null;
let token = "";
let waitMs = FIRST_MS;
let timer = 0;
let network = null; // round trip in ms
let arrivals = []; // times of answers, newest last
let live = false;
let newest = -1;

function state(text, kind = "") {
  element("connection").textContent = text;
  element("connection").className = `pill ${kind}`;
  document.body.classList.toggle("stale", kind !== "good");
}

function problem(text) {
  element("problem").hidden = !text;
  element("problem-text").textContent = text;
}

function login(text) {
  element("login").hidden = !text;
  element("login-text").textContent = text;
  if (text) element("token").focus();
}

async function openCamera() {
  disconnect();
  track?.stop();
  track = null;
  problem("");
  state("starting");
  if (!navigator.mediaDevices) {
    state("no camera", "bad");
    return problem("A browser allows the camera only for pages over https, or from this machine (localhost).");
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: VIDEO, audio: false });
    [track] = stream.getVideoTracks();
    element("picture").srcObject = stream;
  } catch (error) {
    state("no camera", "bad");
    return problem(CAMERA_FAULTS[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
  track.addEventListener("ended", () => {
    disconnect();
    track = null;
    state("no camera", "bad");
    problem("The camera was disconnected.");
  });
  connect();
}

async function connect() {
  disconnect();
  if (!track || document.hidden) return;
  state("connecting");
  const own = (connection = new Connection(show, () => later("no connection")));
  newest = -1;
  try {
    await own.open(track, token);
    if (own === connection) state("connected");
  } catch (error) {
    if (own !== connection) return;
    if (error.status === 401) {
      disconnect();
      state("token needed", "bad");
      login(token ? "This is not the token of this server." : "This server needs a token.");
    } else {
      if (error.status && error.status !== 503) problem(`The server refused the connection (${error.status}): ${error.message}`);
      later(error.status === 503 ? "server full" : error.status ? "refused" : "no connection");
    }
  }
}

function disconnect() {
  clearTimeout(timer);
  connection?.close();
  connection = null;
  arrivals = [];
  live = false;
}

// Connects again, after a wait that doubles each time and has a random part, so that browsers do not connect together.
function later(reason) {
  disconnect();
  const delay = waitMs * (0.5 + Math.random() / 2);
  waitMs = Math.min(MAX_MS, 2 * waitMs);
  state(`${reason}, trying again`, "bad");
  timer = setTimeout(connect, delay);
}

function show(answer) {
  if (answer.seq <= newest) return; // a newer answer came first
  newest = answer.seq;
  waitMs = FIRST_MS;
  arrivals.push(performance.now());
  live = true;
  problem("");
  state("live", "good");
  element("refusal").textContent = answer.refusal ?? "";
  if (answer.refusal !== undefined) return;
  const [[label, prob]] = answer.top;
  element("label").textContent = element("label").title = label;
  element("prob").textContent = percent(prob);
  element("delay").textContent = ms(answer.ms + (network ?? 0));
  element("delay-of").textContent = `server ${ms(answer.ms)}${network === null ? "" : `, network ${ms(network)}`}`;
  element("top").replaceChildren(...answer.top.map(bar));
  document.body.dataset.answers = Number(document.body.dataset.answers ?? 0) + 1;
}

function bar([label, prob]) {
  const row = document.createElement("li");
  row.innerHTML = '<span></span><span class="track"><i class="side-server"></i></span><span class="value"></span>';
  const [name, , value] = row.children;
  name.textContent = name.title = label;
  row.querySelector("i").style.width = percent(prob).replace(" ", "");
  value.textContent = percent(prob, 1);
  return row;
}

async function everySecond() {
  const now = performance.now();
  arrivals = arrivals.filter((time) => now - time < RATE_MS);
  if (live && !arrivals.length) {
    live = false;
    state("no answers", "bad");
  }
  const span = now - arrivals[0];
  element("rate").textContent = arrivals.length > 1 ? ((arrivals.length - 1) / (span / 1000)).toFixed(1) : "–";
  const { videoWidth, videoHeight } = element("picture");
  element("size").textContent = videoWidth ? `${videoWidth} × ${videoHeight}` : "";
  network = (await connection?.roundTrip()) ?? null;
}

element("again").addEventListener("click", openCamera);
element("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value.trim();
  login("");
  connect();
});
// A hidden page disconnects, so that another browser can have its place at the server.
document.addEventListener("visibilitychange", () => {
  if (!track || !element("login").hidden) return;
  if (document.hidden) {
    disconnect();
    state("paused");
  } else connect();
});
setInterval(everySecond, 1000);
openCamera();
