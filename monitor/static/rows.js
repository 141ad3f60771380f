// The table of frames, the newest on top; it can be paused.

import { bytes, clock, element, percent, was } from "./format.js";

const SHOWN = 60;

const FILTERS = {
  all: () => true,
  sent: (frame) => frame.units > 0,
  unsent: (frame) => frame.units === 0,
  differ: (frame) => frame.server && frame.server.label !== frame.edge?.label,
  revised: (frame) => frame.revised_from,
};

export class Rows {
  #frames;
  #open;
  #body = element("rows");
  #paused = false;
  #missed = 0;
  #waiting = [];
  #due = false;

  constructor(frames, open) {
    this.#frames = frames;
    this.#open = open;
    element("pause").addEventListener("click", () => this.#pause(!this.#paused));
    element("filter").addEventListener("change", () => this.#again());
    this.#body.addEventListener("click", (event) => this.#chosen(event));
  }

  clear() {
    this.#missed = 0;
    this.#waiting = [];
    this.#body.replaceChildren();
  }

  add(frames, missed) {
    this.#missed += missed;
    element("missed").textContent = this.#missed ? `${this.#missed} not shown: this page was hidden or too slow` : "";
    if (this.#paused) return;
    this.#waiting = this.#waiting.concat(frames).slice(-SHOWN);
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      const chosen = this.#waiting.filter(FILTERS[element("filter").value]);
      this.#waiting = [];
      this.#body.prepend(...chosen.reverse().map(row));
      while (this.#body.rows.length > SHOWN) this.#body.lastChild.remove();
    });
  }

  #pause(paused) {
    this.#paused = paused;
    element("pause").textContent = paused ? "Continue" : "Pause";
    element("pause").setAttribute("aria-pressed", paused);
    if (!paused) this.#again();
  }

  #again() {
    this.#waiting = [];
    const chosen = this.#frames.filter(FILTERS[element("filter").value]).slice(-SHOWN);
    this.#body.replaceChildren(...chosen.reverse().map(row));
  }

  #chosen(event) {
    const line = event.target.closest("tr");
    if (line) this.#open(Number(line.dataset.n));
  }
}

function row(frame) {
  const line = document.createElement("tr");
  line.dataset.n = frame.n;
  const cell = (text, kind = "") => {
    const made = document.createElement("td");
    made.textContent = text;
    made.className = kind;
    line.append(made);
    return made;
  };
  const answer = (made, given) => {
    if (!given?.label) return made.classList.add("dim");
    made.textContent = "";
    made.append(
      Object.assign(document.createElement("b"), { textContent: given.label }),
      Object.assign(document.createElement("span"), { className: "dim", textContent: ` ${percent(given.prob)}` }),
    );
  };
  const open = Object.assign(document.createElement("button"), { textContent: clock(frame.t), ariaHasPopup: "dialog" });
  cell("").append(open);
  cell(frame.camera, "camera").title = frame.camera;
  answer(cell("–"), frame);
  if (frame.revised_from) line.lastChild.append(Object.assign(document.createElement("span"), { className: "dim", textContent: ` ${was(frame)}` }));
  answer(cell("–", "wide"), frame.edge);
  answer(cell("–", "wide"), frame.server);
  cell(frame.drop ? `${frame.origin} · ${frame.drop}` : frame.origin, `dot ${frame.origin}`);
  cell(frame.units || "–", "number wide");
  cell(frame.wire_bits ? bytes(frame.wire_bits / 8) : "–", "number");
  cell(frame.latency_ms.total.toFixed(0), "number wide");
  return line;
}
