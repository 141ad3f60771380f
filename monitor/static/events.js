// The timeline of events: a lane for each camera and rule, and a list with pictures, the newest event first.

import { age, clock, element, percent } from "./format.js";

const LANES = 8;
const LISTED = 24;
const COLOURS = ["fused", "server", "bits", "warn", "limit", "edge"];

export class Events {
  #card = element("events");
  #lanes = element("event-lanes");
  #list = element("event-list");
  #frames;
  #actions = -1; // of the state that was drawn
  #asking = false;

  constructor(frames) {
    this.#frames = frames;
  }

  clear() {
    this.#actions = -1;
  }

  async show({ open, actions }) {
    element("events-open").textContent = open ? `${open} now` : "";
    if (this.#asking || (actions === this.#actions && !open)) return;
    this.#asking = true;
    try {
      if (actions !== this.#actions) {
        const answer = await fetch("/api/events");
        if (!answer.ok) return;
        this.#draw((await answer.json()).events);
        this.#actions = actions;
      } else {
        this.#place();
      }
    } catch {
      // the page says by itself that there is no connection
    } finally {
      this.#asking = false;
    }
  }

  #draw(events) {
    this.#card.hidden = !events.length;
    const shown = events.filter((event) => event.action !== "withdraw");
    const lanes = new Map();
    for (const event of shown) {
      const name = `${event.camera} · ${event.rule}`;
      if (!lanes.has(name) && lanes.size === LANES) continue;
      lanes.set(name, [...(lanes.get(name) ?? []), event]);
    }
    const labels = [...new Set(shown.map((event) => event.label))].sort();
    this.#lanes.replaceChildren(...[...lanes].sort().map(([name, own]) => {
      const title = Object.assign(document.createElement("span"), { textContent: name, title: name });
      const track = Object.assign(document.createElement("div"), { className: "lane" });
      track.append(...own.reverse().map((event) => bar(event, labels.indexOf(event.label))));
      const lane = document.createElement("li");
      lane.append(title, track);
      return lane;
    }));
    this.#list.replaceChildren(...events.slice(0, LISTED).map(card));
    this.#place();
  }

  // Bars by stream time; an open event lasts until now.
  #place() {
    const bars = [...this.#lanes.querySelectorAll("i")];
    if (!bars.length) return;
    const value = (each, name, otherwise) => (each.dataset[name] === "" ? otherwise : Number(each.dataset[name]));
    const starts = bars.map((each) => Number(each.dataset.start));
    const ends = bars.map((each) => value(each, "end", 0));
    const now = Math.max(...starts, ...ends, ...this.#frames.slice(-50).map((frame) => frame.stream_s));
    const first = Math.min(...starts);
    const span = Math.max(now - first, 1);
    bars.forEach((each, n) => {
      const end = value(each, "end", now);
      each.style.left = `${(100 * (starts[n] - first)) / span}%`;
      each.style.width = `max(3px, ${(100 * (end - starts[n])) / span}%)`;
    });
    element("events-begin").textContent = clock(first);
    element("events-end").textContent = clock(now);
  }
}

const duration = (seconds) => (seconds < 10 ? `${seconds.toFixed(1)} s` : age(seconds));

function bar(event, number) {
  const made = document.createElement("i");
  Object.assign(made.dataset, { start: event.start_s, end: event.end_s ?? "" });
  made.className = event.end_s === null ? "open" : "";
  made.style.background = `var(--${COLOURS[Math.max(0, number) % COLOURS.length]})`;
  made.title = `${event.label} ${percent(event.prob)}, ${clock(event.start_s)}`;
  return made;
}

function card(event) {
  const made = document.createElement("li");
  const link = Object.assign(document.createElement("a"), { target: "_blank", rel: "noopener" });
  const none = Object.assign(document.createElement("span"), { className: "no-picture", textContent: "no picture" });
  link.append(none);
  if (event.has_picture) {
    link.href = `/api/events/${encodeURIComponent(event.id)}/picture`;
    const picture = Object.assign(new Image(), { loading: "lazy", alt: "", src: link.href });
    picture.addEventListener("error", () => {
      picture.replaceWith(none);
      link.removeAttribute("href");
    });
    none.replaceWith(picture);
  }
  const line = (kind, text) => Object.assign(document.createElement("span"), { className: kind, textContent: text, title: text });
  const state = { close: `for ${duration(event.end_s - event.start_s)}`, withdraw: "withdrawn" }[event.action] ?? "now";
  made.className = event.action;
  made.append(
    link,
    line("label", `${event.label} ${percent(event.prob)}`),
    line("dim", `${event.camera} · ${event.rule}`),
    line("dim", `${new Date(event.opened_s * 1000).toLocaleTimeString()} · ${state}`),
  );
  return made;
}
