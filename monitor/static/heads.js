// The choice of the head that labels are for, where a camera has several.

export class HeadChoice {
  #labels;
  #holder;
  #select = document.createElement("select");

  constructor(holder, labels) {
    this.#labels = labels;
    this.#holder = holder;
    const text = Object.assign(document.createElement("span"), { textContent: "Labels are for" });
    this.#select.ariaLabel = "Head that the labels are for";
    holder.append(text, this.#select);
    holder.className = "head-choice";
    this.#select.addEventListener("change", () => labels.choose(this.#select.value));
    labels.listen(() => this.#draw());
    this.#draw();
  }

  #draw() {
    const heads = this.#labels.state?.heads ?? [];
    this.#holder.hidden = heads.length < 2;
    const wanted = JSON.stringify(heads);
    if (this.#select.dataset.heads !== wanted) {
      this.#select.dataset.heads = wanted;
      this.#select.replaceChildren(...heads.map(({ name, classes }) => new Option(described(name, classes), name)));
    }
    this.#select.value = this.#labels.head;
  }
}

function described(name, classes) {
  const listed = classes.slice(0, 4).join(", ") + (classes.length > 4 ? ", ..." : "");
  return `${name || "first head"}${listed ? `: ${listed}` : ""}`;
}
