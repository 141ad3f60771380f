// Bits in each minute as bars, with the budget as a line.

import { bits } from "./format.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const SHOWN = 60; // minutes

export class Minutes {
  #holder;
  #plot = null;
  #data = [[], [], []];
  #drawn = "";

  constructor(holder) {
    this.#holder = holder;
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(holder);
  }

  // `minutes`: pairs of the minute's first second and its bits; `budget_bps`: null if it is unknown.
  draw(minutes, budget_bps, now_s) {
    const last = Math.floor(now_s / 60);
    const known = new Map(minutes.map(([second, value]) => [second / 60, value]));
    const places = Array.from({ length: SHOWN }, (_, place) => last - SHOWN + 1 + place);
    const data = [
      places.map((minute) => minute * 60),
      places.map((minute) => known.get(minute) ?? null),
      places.map(() => (budget_bps === null ? null : budget_bps * 60)),
    ];
    const drawn = JSON.stringify(data);
    if (drawn === this.#drawn || !window.uPlot) return;
    [this.#drawn, this.#data] = [drawn, data];
    this.#show();
  }

  // A canvas does not follow the style sheet: draw it again with the new colours.
  restyle() {
    this.#plot?.destroy();
    this.#plot = null;
    if (this.#data[0].length) this.#show();
  }

  #size() {
    return { width: Math.max(200, this.#holder.clientWidth), height: this.#holder.clientHeight };
  }

  #show() {
    this.#plot ??= new uPlot(this.#options(), [[], [], []], this.#holder);
    const times = this.#data[0];
    const top = Math.max(1, ...this.#data.slice(1).flat().map((value) => value ?? 0));
    this.#plot.batch(() => {
      this.#plot.setData(this.#data, false);
      this.#plot.setScale("x", { min: times[0] - 30, max: times.at(-1) + 30 });
      this.#plot.setScale("y", { min: 0, max: 1.08 * top });
    });
  }

  #options() {
    const axis = { stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    return {
      ...this.#size(),
      padding: [8, 18, 0, 0],
      cursor: { y: false, drag: { setScale: false } },
      scales: { x: { time: true, auto: false }, y: { auto: false } },
      axes: [
        { ...axis, size: 28, space: 70, values: (_, ticks) => ticks.map((t) => new Date(t * 1000).toTimeString().slice(0, 5)) },
        { ...axis, values: (_, ticks) => ticks.map(bits), size: this.#holder.clientWidth < 500 ? 58 : 70, space: 36 },
      ],
      series: [
        {},
        { stroke: colour("bits"), fill: colour("bits"), width: 0, paths: uPlot.paths.bars({ size: [0.7, 14, 2] }), points: { show: false } },
        { stroke: colour("limit"), width: 1.5, dash: [6, 4], points: { show: false } },
      ],
    };
  }
}
