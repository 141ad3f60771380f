// Bits of each frame as bars, the rolling window as an area, the budget as a line.

import { bits, clock } from "./format.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200]; // between two labels

export class Chart {
  #holder;
  #span;
  #plot = null;
  #data = [[], [], [], []];
  #due = false;

  constructor(holder, span) {
    this.#holder = holder;
    this.#span = span;
    span.addEventListener("change", () => this.#show());
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(holder);
  }

  // Takes the current frames; draws at most once per screen refresh.
  draw(frames) {
    const shared = (frame, value) => (frame.asked ? value : undefined); // undefined: the line continues
    this.#data = [
      frames.map((frame) => frame.t),
      frames.map((frame) => shared(frame, frame.window_bits)),
      frames.map((frame) => frame.wire_bits || null),
      frames.map((frame) => shared(frame, frame.budget_bits)),
    ];
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.#show();
    });
  }

  // A canvas does not follow the style sheet: draw it again with the new colours.
  restyle() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#show();
  }

  #size() {
    return { width: Math.max(200, this.#holder.clientWidth), height: this.#holder.clientHeight };
  }

  #show() {
    const times = this.#data[0];
    if (!times.length || !window.uPlot) return;
    this.#plot ??= new uPlot(this.#options(), [[], [], [], []], this.#holder);
    const seconds = Number(this.#span.value);
    const end = times.at(-1);
    const begin = seconds ? Math.max(times[0], end - seconds) : times[0];
    this.#plot.batch(() => {
      this.#plot.setData(this.#data, false);
      this.#plot.setScale("x", { min: begin, max: Math.max(end, begin + 1) });
      this.#plot.setScale("y", { min: 0, max: this.#top(begin) });
    });
  }

  #top(begin) {
    const from = this.#data[0].findIndex((t) => t >= begin);
    const values = this.#data.slice(1).flatMap((series) => series.slice(from));
    return 1.08 * Math.max(1, values.reduce((max, value) => Math.max(max, value ?? 0), 0));
  }

  #options() {
    const axis = { stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const narrow = this.#holder.clientWidth < 500;
    return {
      ...this.#size(),
      padding: [8, 4, 0, 0],
      cursor: { y: false, drag: { setScale: false } },
      scales: { x: { time: false, auto: false }, y: { auto: false } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((t) => clock(t).slice(0, -2)), incrs: SECONDS, size: 28, space: narrow ? 70 : 60 },
        { ...axis, values: (_, ticks) => ticks.map(bits), size: narrow ? 58 : 70, space: 36 },
      ],
      series: [
        {},
        { stroke: colour("fused"), width: 1, fill: `${colour("fused")}3a`, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } },
        { stroke: colour("bits"), fill: colour("bits"), width: 0, paths: uPlot.paths.bars({ size: [0.7, 7, 2] }), points: { show: false } },
        { stroke: colour("limit"), width: 1.5, dash: [6, 4], paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } },
      ],
    };
  }
}
