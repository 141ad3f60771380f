// Lists of bars, and pills: small parts that several pages show.

import { element } from "./format.js";

// `items`: `name`, `width` and `p95` (shares of the track), `kind` (class of the colour), `value`, `title`.
export function bars(id, items, nothing) {
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

// Median and 95th percentile of each part that has them.
export function latencyBars(id, latency_ms, nothing) {
  const parts = Object.entries(latency_ms).filter(([, p]) => p);
  const longest = Math.max(1, ...parts.map(([, p]) => p.p95));
  bars(id, parts.map(([part, p]) => ({
    name: part, width: p.p50 / longest, p95: p.p95 / longest, kind: "side-server",
    value: [p.p50, p.p95].map((value) => Number(value.toPrecision(3))).join(" / "),
  })), nothing);
}

export function pill(id, text, kind) {
  Object.assign(element(id), { textContent: text, title: text, className: `pill ${kind}` });
}
