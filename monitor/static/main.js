// The page: receives the WebSocket stream and hands it to the parts that draw it.

import { bars, latencyBars, pill } from "./bars.js";
import { Chart } from "./chart.js";
import { Control } from "./control.js";
import { Events } from "./events.js";
import { Evidence } from "./evidence.js";
import { isWithoutPicture, linkPill, pagePill } from "./fresh.js";
import { bitRate, bytes, count, element, ms, percent } from "./format.js";
import { HeadChoice } from "./heads.js";
import { isCommand, Labels } from "./labels.js";
import { LivePictures } from "./live.js";
import { Rows } from "./rows.js";
import { Stream } from "./stream.js";
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
const events = new Events(frames);
new TeachPanel(element("teach"), labels);
new HeadChoice(element("heads"), labels);
labels.listen(() => {
  const { closed, state } = labels;
  element("classes").hidden = closed !== null;
  element("to-label").href = `/label${labels.head ? `?head=${encodeURIComponent(labels.head)}` : ""}`;
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
    events.clear();
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
    if (quota.price !== null) parts.push(`price ${quota.price} answers/MB`);
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
  element("pace").hidden = !state.quotas.length;
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
  control.showTrust(state.trust ?? {});
  events.show(state.events);
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
  latencyBars("stages", state.latency_ms, "");
}

// ---- the stream ----

let shown = null; // the last state

const stream = new Stream({
  text: take,
  binary: (data) => live.take(data),
  opened: () => (shown = null),
  changed: () => showAges(),
});

// Pictures and data grow old also while nothing arrives.
function showAges() {
  if (document.hidden) return;
  const { connected, ended, quiet_s } = stream;
  if (shown) live.states(shown.cameras, quiet_s);
  const [text, kind, stale] = connected ? pagePill(shown, quiet_s) : ended ? ["run ended", "", true] : ["no connection", "bad", true];
  pill("connection", text, kind);
  document.body.classList.toggle("stale", stale);
}

setInterval(showAges, 1000);
