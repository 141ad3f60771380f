// The page: receives the WebSocket stream and hands it to the parts that draw it.

import { Chart } from "./chart.js";
import { Control } from "./control.js";
import { Evidence } from "./evidence.js";
import { isWithoutPicture, linkPill, pagePill } from "./fresh.js";
import { bitRate, bytes, count, element, ms, percent } from "./format.js";
import { isCommand, Labels } from "./labels.js";
import { LivePictures } from "./live.js";
import { Rows } from "./rows.js";
import { TeachPanel } from "./teach.js";
import { Toast } from "./toast.js";

const MAX_FRAMES = 3000; // frames that the page stores
const frames = []; // ascending by n

const chart = new Chart(element("chart"), element("span"));
const labels = new Labels();
const toast = new Toast(element("toast"), labels);
const evidence = new Evidence(frames, labels, toast);
const rows = new Rows(frames, (n) => evidence.open(n), labels, toast);
const live = new LivePictures(element("cameras"), frames, labels, toast);
new TeachPanel(element("teach"), labels);
labels.listen(() => {
  const { closed, state } = labels;
  element("classes").hidden = closed !== null;
  element("labels-closed").hidden = !state || closed === null;
  element("labels-closed").textContent = closed ? `Frames cannot be labelled: ${closed}.` : "";
  document.body.classList.toggle("closed", closed !== null);
});
document.addEventListener("keydown", (event) => {
  if (!isCommand(event) || labels.closed !== null) return;
  if (event.key === "u") toast.undo();
  else if (!evidence.press(event.key)) live.press(event.key);
});
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

// One tile for each quota, before the tile of the accuracy.
function showQuotas(quotas) {
  const before = element("accuracy-tile");
  for (const quota of quotas) {
    const id = `quota-${quota.camera}-${quota.name}`;
    let tile = element(id);
    if (!tile) {
      tile = document.createElement("div");
      tile.id = id;
      for (const tag of ["p", "b", "small"]) tile.append(document.createElement(tag));
      before.before(tile);
    }
    const [title, used, rest] = tile.children;
    title.textContent = `Quota ${quota.name}${quota.camera ? ` of ${quota.camera}` : ""}`;
    used.textContent = bytes(quota.used_bits / 8);
    const parts = [`${percent(quota.used_bits / quota.limit_bits)} of ${bytes(quota.limit_bits / 8)}`];
    if (quota.today_bits !== null) parts.push(`today ${bytes(quota.today_bits / 8)}`);
    if (quota.others_today_bits) parts.push(`of it other programs ${bytes(quota.others_today_bits / 8)}`);
    if (quota.forecast_bits !== null) parts.push(`forecast ${bytes(quota.forecast_bits / 8)}`);
    if (quota.period_end) parts.push(`until ${new Date(quota.period_end).toLocaleDateString()}`);
    rest.textContent = parts.join(", ");
  }
}

function showState(state) {
  const window_s = state.control.window_s;
  element("rate").textContent = bitRate(state.window_bits / window_s);
  const share = state.budget_bits ? ` (${percent(state.window_bits / state.budget_bits)})` : "";
  const { rate_bps: cost, charged } = state.dashboard;
  element("page-cost").textContent = cost ? `this page, on other machines: ${(cost / 1000).toFixed(1)} kbit/s, ${charged ? "charged to the budget" : "not charged to the budget"}` : "";
  element("of-budget").textContent = state.control.rate_bps === null ? "no limit" : `of ${state.control.uplink}${share}`;
  showQuotas(state.quotas);
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
  element("link").hidden = false;
  pill("link", ...linkPill(state));
  const cameras = Object.entries(state.cameras);
  const down = cameras.filter(([, camera]) => isWithoutPicture(camera, 0));
  document.body.classList.toggle("single", cameras.length < 2);
  document.body.classList.toggle("many", cameras.length > 3);
  shown = state;
  showAges();
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
let shown = null; // the last state
let heard_ms = 0; // when the last data arrived
let connected = false;
let ended = false;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws`);
  socket.binaryType = "arraybuffer";
  const sendVisibility = () => {
    heard_ms = performance.now(); // a hidden page receives nothing
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ visible: !document.hidden }));
  };
  socket.onopen = () => {
    wait_ms = 250;
    [connected, ended, shown] = [true, false, null];
    sendVisibility();
    showAges();
  };
  socket.onmessage = ({ data }) => {
    heard_ms = performance.now();
    if (typeof data === "string") take(JSON.parse(data));
    else live.take(data);
  };
  socket.onclose = ({ code }) => {
    document.removeEventListener("visibilitychange", sendVisibility);
    connected = false;
    ended ||= code === SERVER_ENDS;
    showAges();
    setTimeout(connect, wait_ms);
    wait_ms = Math.min(5000, wait_ms * 1.6);
  };
  document.addEventListener("visibilitychange", sendVisibility);
}

// Pictures and data grow old also while nothing arrives.
function showAges() {
  if (document.hidden) return;
  const quiet_s = heard_ms ? (performance.now() - heard_ms) / 1000 : 0;
  if (shown) live.states(shown.cameras, quiet_s);
  const [text, kind, stale] = connected ? pagePill(shown, quiet_s) : ended ? ["run ended", "", true] : ["no connection", "bad", true];
  pill("connection", text, kind);
  document.body.classList.toggle("stale", stale);
}

function pill(id, text, kind) {
  Object.assign(element(id), { textContent: text, title: text, className: `pill ${kind}` });
}

setInterval(showAges, 1000);
connect();
