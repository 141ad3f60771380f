// The labels of frames: their state, kept up to date, and the changes of them. Both pages use it.

import { request, why } from "./request.js";

const EVERY_MS = 1000;
const LONGEST_MS = 8000; // between two attempts without a connection

export class Labels {
  state = null; // null before the first answer
  head; // name of the head that the labels are for; empty: the first one
  problem = ""; // of the last change
  heard_ms = performance.now(); // when the run last answered
  #listeners = [];
  #labels = new Map();
  #stored = new Set();
  #heard = "";
  #changes = 0; // that the run has answered

  constructor(head = "") {
    this.head = head;
    this.#poll();
    document.addEventListener("visibilitychange", () => this.refresh());
  }

  // Labels are for another head from now on.
  choose(head) {
    this.head = head;
    this.refresh();
  }

  // The address of something about the labels of the chosen head.
  address(path) {
    return `/api/${path}${this.head ? `?head=${encodeURIComponent(this.head)}` : ""}`;
  }

  listen(changed) {
    this.#listeners.push(changed);
  }

  // Why nothing can be labelled; null if it can.
  get closed() {
    return this.state ? this.state.closed : "loading";
  }

  get classes() {
    return this.closed === null ? this.state.classes : [];
  }

  labelOf(frame) {
    return this.#labels.get(place(frame));
  }

  isStored(frame) {
    return this.#stored.has(place(frame));
  }

  label(frame, name) {
    return this.change("labels", { camera: frame.camera, seq: frame.seq, label: name });
  }

  // Returns whether it was accepted; if not, `problem` holds the reason.
  async change(path, values = {}) {
    const head = this.head;
    const { status, result, problem } = await request(this.address(path), values);
    if (!problem && head === this.head) this.#take(result);
    if (status === 403) this.#take({ ...this.state, closed: problem });
    this.#changes += 1;
    this.problem = problem;
    this.#tell();
    return !problem;
  }

  // Returns whether the run answered, as far as is known.
  async refresh() {
    if (document.hidden) return true;
    const { head } = this;
    const changes = this.#changes;
    try {
      const answer = await fetch(this.address("labels"));
      this.heard_ms = performance.now();
      const state = answer.ok ? await answer.json() : null;
      if (head !== this.head || changes !== this.#changes) return true; // it is older than what the page shows
      if (state) this.#take(state);
      else if (answer.status === 400 && head) this.choose(""); // this run has no such head
      else if (answer.status === 404) this.#take({ closed: "this run has no labels" });
      else this.#take({ ...this.state, closed: why(answer.status) });
      return true;
    } catch {
      return false; // the page says itself that there is no connection
    }
  }

  async #poll(wait_ms = EVERY_MS) {
    const next_ms = (await this.refresh()) ? EVERY_MS : Math.min(LONGEST_MS, 2 * wait_ms);
    setTimeout(() => this.#poll(next_ms), next_ms);
  }

  #take(state) {
    const text = JSON.stringify(state);
    if (text === this.#heard) return;
    this.#heard = text;
    this.state = state;
    this.#labels = new Map((state.labels ?? []).map(([camera, seq, name]) => [`${camera}/${seq}`, name]));
    this.#stored = new Set(Object.entries(state.stored ?? {}).flatMap(([camera, seqs]) => seqs.map((seq) => `${camera}/${seq}`)));
    this.#tell();
  }

  #tell() {
    this.#listeners.forEach((changed) => changed());
  }
}

const place = (frame) => `${frame.camera}/${frame.seq}`;

// Whether a key press is a command for the page, not text for a field.
export function isCommand(event) {
  return !event.ctrlKey && !event.metaKey && !event.altKey && !event.target.closest("input, select, textarea");
}
