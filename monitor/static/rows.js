// The table of frames, the newest on top; it can be paused.

import { byHeads, bytes, clock, element, percent, was } from "./format.js";

const SHOWN = 60;
const IN_ROW = 3; // classes with a button in each row; the frame itself has them all

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

  #labels;
  #toast;

  constructor(frames, open, labels, toast) {
    this.#labels = labels;
    this.#toast = toast;
    labels.listen(() => [...this.#body.rows].forEach((line) => this.#drawLabel(line)));
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
      this.#body.prepend(...chosen.reverse().map((frame) => this.#row(frame)));
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
    this.#body.replaceChildren(...chosen.reverse().map((frame) => this.#row(frame)));
  }

  #row(frame) {
    const line = row(frame);
    this.#drawLabel(line);
    return line;
  }

  // The label, or a button a class while the full picture of the frame is stored.
  #drawLabel(line) {
    const cell = line.lastChild;
    const frame = { camera: line.dataset.camera, seq: Number(line.dataset.seq) };
    const label = this.#labels.labelOf(frame);
    const classes = this.#labels.isStored(frame) ? this.#labels.classes.slice(0, IN_ROW) : [];
    const drawn = JSON.stringify([label, classes.map(({ name }) => name)]);
    if (cell.dataset.drawn === drawn) return;
    cell.dataset.drawn = drawn;
    const chip = label && Object.assign(document.createElement("span"), { className: "chip", textContent: label, title: label });
    cell.replaceChildren(...(chip ? [chip] : classes.map(({ name }) => {
      const button = Object.assign(document.createElement("button"), { className: "chip", textContent: name, title: `label ${name}` });
      button.dataset.name = name;
      return button;
    })));
  }

  async #chosen(event) {
    const line = event.target.closest("tr");
    const button = event.target.closest("button[data-name]");
    if (button) {
      const frame = { camera: line.dataset.camera, seq: Number(line.dataset.seq) };
      if (await this.#labels.label(frame, button.dataset.name)) this.#toast.labelled(frame, button.dataset.name);
      else this.#toast.problem(this.#labels.problem);
      return;
    }
    if (line) this.#open(Number(line.dataset.n));
  }
}

function row(frame) {
  const line = document.createElement("tr");
  Object.assign(line.dataset, { n: frame.n, camera: frame.camera, seq: frame.seq });
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
  for (const text of byHeads(frame)) line.lastChild.append(Object.assign(document.createElement("span"), { className: "dim", textContent: ` · ${text}` }));
  answer(cell("–", "wide"), frame.edge);
  answer(cell("–", "wide"), frame.server);
  cell(frame.drop ? `${frame.origin} · ${frame.drop}` : frame.origin, `dot ${frame.origin}`);
  cell(frame.units || "–", "number wide");
  cell(frame.wire_bits ? bytes(frame.wire_bits / 8) : "–", "number");
  cell(frame.latency_ms.total.toFixed(0), "number wide");
  cell("", "labels");
  return line;
}
