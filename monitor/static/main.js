// The page: receives the WebSocket stream and hands it to the parts that draw it.

import { Chart } from "./chart.js";
import { Control } from "./control.js";
import { Evidence } from "./evidence.js";
import { bitRate, bytes, count, element, ms, percent } from "./format.js";
import { LivePictures } from "./live.js";
import { Rows } from "./rows.js";

const MAX_FRAMES = 3000; // frames that the page stores
const frames = []; // ascending by n

const chart = new Chart(element("chart"), element("span"));
const evidence = new Evidence(frames);
const rows = new Rows(frames, (n) => evidence.open(n));
const live = new LivePictures(element("cameras"), frames);
const control = new Control();
document.addEventListener("theme", () => chart.restyle());

// ---- messages ----

function take(message) {
  if (message.type === "run") {
    frames.length = 0;
    rows.clear();
    live.clear();
    element("about").textContent = `${message.title} · ${message.models}`;
    control.offer(message.policies);
  } else if (message.type === "frames") {
    frames.push(...message.frames);
    if (frames.length > MAX_FRAMES) frames.splice(0, frames.length - MAX_FRAMES);
    rows.add(message.frames, message.missed);
    chart.draw(frames);
  } else if (message.type === "state") {
    showState(message);
  }
}

function showState(state) {
  const window_s = state.control.window_s;
  element("rate").textContent = bitRate(state.window_bits / window_s);
  const share = state.budget_bits ? ` (${percent(state.window_bits / state.budget_bits)})` : "";
  element("of-budget").textContent = state.control.rate_bps === null ? "no limit" : `of ${state.control.uplink}${share}`;
  element("frames").textContent = count(state.frames);
  element("fps").textContent = `${state.fps.toFixed(1)} per second`;
  element("offloaded").textContent = percent(state.offloaded / Math.max(state.frames, 1));
  element("origins").textContent = Object.entries(state.origins).map(([origin, n]) => `${origin} ${count(n)}`).join(", ");
  element("bytes").textContent = bytes(state.wire_bits / 8 / Math.max(state.frames, 1));
  element("total").textContent = `${bytes(state.wire_bits / 8)} in total`;
  const total = state.latency_ms.total;
  element("latency").textContent = total ? ms(total.p50) : "–";
  element("latency-95").textContent = total ? `p95 ${ms(total.p95)}` : "";
  element("accuracy-tile").hidden = !state.accuracy;
  if (state.accuracy) {
    element("accuracy").textContent = percent(state.accuracy.verdict, 1);
    element("edge-accuracy").textContent = `edge alone ${percent(state.accuracy.edge, 1)}`;
  }
  element("notice").hidden = !state.notice;
  element("notice").textContent = state.notice ?? "";
  const link = element("link");
  link.hidden = false;
  link.textContent = state.link ? `link: ${state.link}` : "link up";
  link.className = `pill ${state.link ? "bad" : "good"}`;
  const cameras = Object.entries(state.cameras);
  const down = cameras.filter(([, { health }]) => health && health.state !== "running");
  document.body.classList.toggle("single", cameras.length < 2);
  document.body.classList.toggle("many", cameras.length > 3);
  live.states(state.cameras);
  control.show(state.control);
  const drops = Object.entries(state.drops).map(([reason, drop]) => ({
    name: reason, width: drop.frames / state.frames, kind: `side-${drop.slow}`,
    value: drop.slow ? `${count(drop.frames)} · ${drop.slow}` : count(drop.frames),
    title: drop.slow ? `the limit is the ${drop.slow}` : "",
  }));
  const withoutPicture = {
    name: "no picture", width: down.length / cameras.length, kind: "side-camera",
    value: `${down.length} of ${cameras.length} · camera`, title: down.map(([name]) => name).join(", "),
  };
  bars("drops", down.length ? [withoutPicture, ...drops] : drops, "None so far.");
  const stages = Object.entries(state.latency_ms).filter(([, p]) => p);
  const longest = Math.max(1, ...stages.map(([, p]) => p.p95));
  bars("stages", stages.map(([stage, p]) => ({
    name: stage, width: p.p50 / longest, p95: p.p95 / longest, kind: "side-server",
    value: [p.p50, p.p95].map((value) => Number(value.toPrecision(3))).join(" / "),
  })), "");
}

function bars(id, items, nothing) {
  const list = element(id);
  if (!items.length) {
    list.replaceChildren(Object.assign(document.createElement("li"), { className: "empty", textContent: nothing }));
    return;
  }
  while (list.children.length > items.length) list.lastChild.remove();
  items.forEach((item, place) => {
    let row = list.children[place];
    if (!row || row.className === "empty") {
      row?.remove();
      row = document.createElement("li");
      row.innerHTML = '<span></span><span class="track"><i class="most"></i><i></i></span><span class="value"></span>';
      list.append(row);
    }
    const [name, track, value] = row.children;
    name.textContent = item.name;
    row.title = item.title ?? "";
    value.textContent = item.value;
    [item.p95 ?? 0, item.width].forEach((share, n) => {
      track.children[n].style.width = `${Math.min(100, 100 * share)}%`;
      track.children[n].className = n ? item.kind : `most ${item.kind}`;
    });
  });
}

// ---- the stream ----

const SERVER_ENDS = 1012; // close code of a WebSocket whose server ends
let wait_ms = 250;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws`);
  socket.binaryType = "arraybuffer";
  const sendVisibility = () => {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ visible: !document.hidden }));
  };
  socket.onopen = () => {
    wait_ms = 250;
    status("live", "good");
    sendVisibility();
  };
  socket.onmessage = ({ data }) => (typeof data === "string" ? take(JSON.parse(data)) : live.take(data));
  socket.onclose = ({ code }) => {
    document.removeEventListener("visibilitychange", sendVisibility);
    if (code === SERVER_ENDS) status("run ended", "");
    else if (!ended()) status("no connection", "bad");
    setTimeout(connect, wait_ms);
    wait_ms = Math.min(5000, wait_ms * 1.6);
  };
  document.addEventListener("visibilitychange", sendVisibility);
}

const ended = () => element("connection").textContent === "run ended";

function status(text, kind) {
  element("connection").textContent = text;
  element("connection").className = `pill ${kind}`;
  document.body.classList.toggle("stale", kind !== "good");
}

connect();
