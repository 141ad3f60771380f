// Search in what the console has stored, evidence or events, with exports.

import { age, bytes, element, percent } from "./format.js";
import { request } from "./request.js";

const SHOWN = 60; // results at a time

export class SearchPage {
  #kind = "frames";
  #found = [];
  #shown = 0;

  constructor() {
    element("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    element("more").addEventListener("click", () => this.#show());
    for (const button of element("kinds").querySelectorAll("button")) {
      button.addEventListener("click", () => {
        this.#kind = button.dataset.kind;
        for (const other of element("kinds").querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
        element("found").replaceChildren();
        this.run();
      });
    }
  }

  #query() {
    const query = new URLSearchParams();
    for (const field of element("search-form").elements) {
      if (!field.name || !field.value.trim()) continue;
      const value = field.type === "datetime-local" ? String(new Date(field.value).getTime() / 1000) : field.value.trim();
      query.set(field.name, field.name === "min_prob" ? String(Number(value) / 100) : value);
    }
    return query;
  }

  async run() {
    const [kind, query] = [this.#kind, this.#query()];
    element("export-csv").href = `/api/export/${kind}.csv?${query}`;
    element("export-zip").href = `/api/export/pictures.zip?${query}`;
    element("export-zip").hidden = kind !== "frames";
    const said = element("search-said");
    [said.className, said.textContent] = ["dim", "searching"];
    const { result, problem } = await request(`/api/search/${kind}?${query}`);
    if (kind !== this.#kind) return;
    if (problem) {
      [said.className, said.textContent] = ["error", problem];
      return;
    }
    this.#found = result.found;
    said.textContent = `${result.found.length}${result.more ? " newest" : ""} found`;
    this.#shown = 0;
    element("found").replaceChildren();
    element("found").classList.toggle("events", kind === "events");
    this.#show();
  }

  #show() {
    const next = this.#found.slice(this.#shown, this.#shown + SHOWN);
    this.#shown += next.length;
    element("found").append(...next.map(this.#kind === "frames" ? frameCard : eventCard));
    element("more").hidden = this.#shown >= this.#found.length;
    element("none").hidden = this.#found.length > 0;
  }
}

const ago = (wall_s) => `${age(Math.max(0, Date.now() / 1000 - wall_s))} ago`;
const path = (address) => address.split("/").map(encodeURIComponent).join("/");

function frameCard(frame) {
  const label = frame.label || (frame.refusal ? "refused" : "no answer");
  const made = card(`/api/search/frames/${frame.id}/picture`, label, frame.label ? percent(frame.prob) : "", frame.camera, `${ago(frame.wall_s)} · ${bytes(frame.bits / 8)}`);
  made.title = `${new Date(frame.wall_s * 1000).toLocaleString()}, frame ${frame.seq}${frame.edge ? `, edge: ${frame.edge}` : ""}${frame.refusal ? `, refused: ${frame.refusal}` : ""}`;
  return made;
}

function eventCard(event) {
  const lasted = event.end_s === null ? "" : `, ${age(Math.max(0, event.end_s - event.start_s))}`;
  const source = event.has_picture ? `/api/cameras/${path(event.camera)}/events/${encodeURIComponent(event.id)}/picture` : null;
  const made = card(source, event.label || event.rule, percent(event.prob), event.camera, `${ago(event.began_wall_s)} · ${event.state}${lasted} · ${event.rule}`);
  made.className = event.state;
  made.title = `${new Date(event.began_wall_s * 1000).toLocaleString()}, ${event.cause}`;
  return made;
}

// `source`: of the picture; null: there is none.
function card(source, label, prob, camera, details) {
  const made = document.createElement("figure");
  const none = Object.assign(document.createElement("span"), { className: "no-picture", textContent: "no picture" });
  const image = Object.assign(new Image(), { loading: "lazy", alt: "" });
  image.addEventListener("error", () => image.replaceWith(none));
  if (source) image.src = source;
  const text = document.createElement("figcaption");
  const add = (tag, content, className = "") => text.appendChild(Object.assign(document.createElement(tag), { className, textContent: content }));
  add("b", label);
  add("span", prob, "dim");
  add("a", camera).href = `#/${path(camera)}`;
  add("span", details, "dim");
  made.append(source ? image : none, text);
  return made;
}
