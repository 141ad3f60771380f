// A line at the bottom of the page that names the last label, with a button to take it back.

const SHOWN_MS = 6000;

export class Toast {
  #element;
  #labels;
  #timer = 0;

  constructor(element, labels) {
    this.#element = element;
    this.#labels = labels;
    element.querySelector("button").addEventListener("click", () => this.undo());
  }

  labelled(frame, name) {
    this.#show(`Frame ${frame.seq} of ${frame.camera}: ${name}`, true);
  }

  problem(text) {
    this.#show(text, false);
  }

  async undo() {
    const last = this.#labels.state?.undo;
    if (!last) return;
    const accepted = await this.#labels.change("labels/undo");
    this.#show(accepted ? `Took ${last.label ?? "the label"} back` : this.#labels.problem, false);
  }

  #show(text, canUndo) {
    this.#element.firstChild.textContent = text;
    this.#element.querySelector("button").hidden = !canUndo;
    this.#element.hidden = false;
    // The open dialog covers everything that is not inside it.
    (document.querySelector("dialog[open]") ?? document.body).append(this.#element);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#element.hidden = true), SHOWN_MS);
  }
}
