// Formats numbers for people.

export const element = (id) => document.getElementById(id);

export const count = (n) => n.toLocaleString("en");
export const was = (frame) => (frame.revised_from ? `was ${frame.revised_from.label}` : ""); // the provisional answer
// The server contradicts the edge on this camera.
export const disbelieved = (frame) => ((frame.edge_weight ?? 1) < 1 ? `edge counts ${percent(frame.edge_weight)}` : "");
// How far the edge's answers are believed on a camera, from the server's replies.
export const believed = ({ weight, plausible, replies, newest_only }) => {
  const how = weight >= 1 ? "The edge is believed" : weight > 0 ? `The edge counts ${percent(weight)}` : "Where the server answers, only it is believed";
  return `${how}: in ${percent(plausible)} of ${Math.ceil(replies)} replies the server found its answer plausible.${newest_only && weight < 1 ? " Its answers change too fast to be averaged: the newest one is held." : ""}`;
};
// The answers by further heads, each with the name of its head.
export const byHeads = (frame) => Object.entries(frame.heads).map(([name, answer]) => `${name}: ${answer.label} ${percent(answer.prob)}`);
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
export const ms = (value) => (value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${Number(value.toPrecision(3))} ms`);

export function age(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function scaled(value, units) {
  let place = 0;
  while (value >= 999.5 && place < units.length - 1) {
    value /= 1000;
    place += 1;
  }
  return `${Number(value.toFixed(place && value < 100 ? 1 : 0))} ${units[place]}`;
}

export const bytes = (value) => scaled(value, ["B", "kB", "MB", "GB"]);
export const bits = (value) => scaled(value, ["bit", "kbit", "Mbit", "Gbit"]);
export const bitRate = (value) => scaled(value, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]);

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((n) => String(n).padStart(2, "0"));
  const tenth = Math.floor((seconds - whole) * 10);
  return `${whole >= 3600 ? `${Math.floor(whole / 3600)}:` : ""}${parts.join(":")}.${tenth}`;
}
