// Search in what the console has stored, with exports.

import { age, bytes, element, percent } from "./format.js";

const SHOWN = 60; // results at a time

export class SearchPage {
  #found = [];
  #shown = 0;

  constructor() {
    element("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    element("more").addEventListener("click", () => this.#show());
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
    const query = this.#query();
    for (const [id, path] of [["export-csv", "frames.csv"], ["export-zip", "pictures.zip"]]) element(id).href = `/api/export/${path}?${query}`;
    const said = element("search-said");
    said.className = "dim";
    try {
      const answer = await fetch(`/api/search/frames?${query}`);
      const result = await answer.json();
      if (!answer.ok) {
        [said.className, said.textContent] = ["error", result.error];
        return;
      }
      this.#found = result.found;
      said.textContent = `${result.found.length}${result.more ? " newest" : ""} found`;
    } catch {
      [said.className, said.textContent] = ["error", "no connection"];
      return;
    }
    this.#shown = 0;
    element("found").replaceChildren();
    this.#show();
  }

  #show() {
    const next = this.#found.slice(this.#shown, this.#shown + SHOWN);
    this.#shown += next.length;
    element("found").append(...next.map(card));
    element("more").hidden = this.#shown >= this.#found.length;
    element("none").hidden = this.#found.length > 0;
  }
}

function card(frame) {
  const made = document.createElement("figure");
  const image = Object.assign(document.createElement("img"), { src: `/api/search/frames/${frame.id}/picture`, loading: "lazy", alt: "" });
  image.addEventListener("error", () => image.replaceWith(Object.assign(document.createElement("span"), { className: "no-picture", textContent: "no picture" })));
  const text = document.createElement("figcaption");
  const add = (tag, content, className = "") => text.append(Object.assign(document.createElement(tag), { className, textContent: content }));
  add("b", frame.label || (frame.refusal ? "refused" : "no answer"));
  add("span", frame.label ? percent(frame.prob) : "", "dim");
  add("a", frame.camera);
  text.lastChild.href = `#/${frame.camera.split("/").map(encodeURIComponent).join("/")}`;
  add("span", `${age(Math.max(0, Date.now() / 1000 - frame.wall_s))} ago · ${bytes(frame.bits / 8)}`, "dim");
  made.title = `${new Date(frame.wall_s * 1000).toLocaleString()}, frame ${frame.seq}${frame.edge ? `, edge: ${frame.edge}` : ""}${frame.refusal ? `, refused: ${frame.refusal}` : ""}`;
  made.append(image, text);
  return made;
}
