// The panel of the user's classes: counts, undo, teaching with progress, the outcome, and the way back.

import { age } from "./format.js";

const PARTS = `
  <ul class="counts"></ul>
  <p class="dim counts-note"></p>
  <div class="row actions">
    <button data-do="teach">Teach</button>
    <button data-do="stop">Stop</button>
    <button data-do="without">Teach without them</button>
    <button data-do="use">Use it anyway</button>
    <button data-do="back">Take the earlier head back</button>
    <a class="button" data-do="pack" href="/api/labels/pictures.zip" download>Pack the pictures</a>
    <button data-do="undo" title="Undo (u)">Undo</button>
  </div>
  <div class="progress" hidden><span class="track"><i></i></span><span class="dim"></span></div>
  <p class="outcome" role="status"></p>
  <ul class="dim notes"></ul>
  <p class="error" role="alert"></p>`;
const MIN_PICTURES = 3; // of a class, for teaching

export class TeachPanel {
  #labels;
  #holder;

  constructor(holder, labels) {
    this.#holder = holder;
    this.#labels = labels;
    holder.innerHTML = PARTS;
    const actions = {
      teach: () => labels.change("teach/begin"),
      without: () => labels.change("teach/begin", { without_missing: true }),
      stop: () => labels.change("teach/stop"),
      use: () => labels.change("teach/use"),
      back: () => labels.change("teach/back"),
      undo: () => labels.change("labels/undo"),
    };
    holder.addEventListener("click", async (event) => {
      const action = actions[event.target.closest("button")?.dataset.do];
      if (!action) return;
      await action();
      this.#part(".error").textContent = labels.problem;
    });
    labels.listen(() => this.#draw());
    this.#draw();
  }

  #part(selector) {
    return this.#holder.querySelector(selector);
  }

  #draw() {
    const { state, classes, closed } = this.#labels;
    this.#holder.hidden = closed !== null;
    if (closed !== null) return;
    const teach = state.teach;
    const busy = Boolean(teach?.progress);
    this.#part(".counts").replaceChildren(...classes.map(({ name, pictures }) => {
      const item = document.createElement("li");
      item.append(
        Object.assign(document.createElement("span"), { textContent: name, title: name }),
        Object.assign(document.createElement("b"), { textContent: pictures, className: pictures < MIN_PICTURES ? "few" : "" }),
      );
      return item;
    }));
    this.#part(".counts-note").textContent = note(classes, state);
    const ready = classes.filter(({ pictures }) => pictures >= MIN_PICTURES).length >= 2;
    const missing = teach?.missing ?? [];
    const show = {
      teach: teach && !teach.reason && !busy && !missing.length,
      without: teach && !teach.reason && !busy && missing.length && ready,
      stop: busy,
      use: teach?.can_use && !busy,
      back: teach?.can_take_back && !busy,
      pack: (!teach || teach.reason) && classes.some(({ pictures }) => pictures),
      undo: true,
    };
    this.#part("[data-do=pack]").href = this.#labels.address("labels/pictures.zip");
    for (const part of this.#holder.querySelectorAll("[data-do]")) part.hidden = !show[part.dataset.do];
    this.#part("[data-do=teach]").disabled = !ready;
    this.#part("[data-do=undo]").disabled = !state.undo;
    const progress = this.#part(".progress");
    progress.hidden = !busy;
    if (busy) {
      const { work, done, total, left_s } = teach.progress;
      progress.querySelector("i").style.width = `${(100 * done) / Math.max(total, 1)}%`;
      const left = left_s === null ? "" : `, about ${age(left_s)} left`;
      progress.lastElementChild.textContent = `${work}${total > 1 ? `: ${done} of ${total}` : ""}${left}`;
    }
    const outcome = this.#part(".outcome");
    outcome.textContent = this.#outcome(teach, missing, busy);
    outcome.className = `outcome ${busy ? "" : teach?.outcome?.kind ?? ""}`;
    this.#part(".notes").replaceChildren(...(busy ? [] : teach?.outcome?.notes ?? []).map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  }

  #outcome(teach, missing, busy) {
    if (busy) return "";
    if (teach?.outcome) return teach.outcome.text;
    if (!teach || teach.reason) return `Teaching is not possible here: ${teach?.reason ?? "no models"}. Pack the pictures, and teach on another machine.`;
    if (missing.length) return `The head in use also knows ${missing.slice(0, 5).join(", ")}: there is no picture of ${missing.length > 1 ? "them" : "it"} here.`;
    return "";
  }
}

function note(classes, { folder }) {
  if (!classes.length) return "No class yet. Label frames: each new name is a class.";
  const few = classes.filter(({ pictures }) => pictures < MIN_PICTURES).length;
  const hint = classes.length < 2 ? "Teaching needs at least two classes. " : few ? `Teaching needs ${MIN_PICTURES} pictures of each class; 20 are better. ` : "";
  return `${hint}Folder: ${folder}`;
}
