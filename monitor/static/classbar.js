// A row of buttons, one a class, and a field for a new class. A press labels the frame that `target` returns.

const SHOWN = 12; // classes with a button of their own; the field finds the others
let bars = 0;

export class ClassBar {
  element = document.createElement("div");
  #labels;
  #target;
  #done;
  #buttons = document.createElement("div");
  #form = document.createElement("form");
  #problem = document.createElement("p");

  // `done(frame, name)` is called after a label was accepted.
  constructor(labels, target, done = () => {}) {
    this.#labels = labels;
    this.#target = target;
    this.#done = done;
    const list = `classes-${(bars += 1)}`;
    this.element.className = "class-bar";
    this.#buttons.className = "classes";
    Object.assign(this.#buttons, { role: "group", ariaLabel: "Label this frame" });
    this.#form.innerHTML = `<input aria-label="New class" placeholder="new class" maxlength="100" autocomplete="off" spellcheck="false" list="${list}"><datalist id="${list}"></datalist><button>Label</button>`;
    Object.assign(this.#problem, { className: "error", role: "alert" });
    this.#buttons.append(this.#form);
    this.element.append(this.#buttons, this.#problem);
    this.#buttons.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-name]");
      if (button) this.press(button.dataset.name);
    });
    this.#form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const field = this.#form.elements[0];
      if (!field.value.trim() || !(await this.press(field.value.trim()))) return;
      field.value = "";
      field.blur(); // so that digits are commands again, and a live picture goes on
    });
    labels.listen(() => this.draw());
    this.draw();
  }

  // Labels the frame; returns whether it was accepted.
  async press(name) {
    const frame = this.#target();
    if (!frame) return false;
    const accepted = await this.#labels.label(frame, name);
    this.#problem.textContent = accepted ? "" : this.#labels.problem;
    if (accepted) this.#done(frame, name);
    return accepted;
  }

  // The class of a digit key; undefined if there is none.
  pressDigit(key) {
    const found = /^[1-9]$/.test(key) && this.#labels.classes[Number(key) - 1];
    if (found) this.press(found.name);
    return Boolean(found);
  }

  draw() {
    const { classes, closed } = this.#labels;
    this.element.hidden = closed !== null;
    if (closed !== null) return;
    const frame = this.#target();
    const chosen = frame && this.#labels.labelOf(frame);
    const shown = classes.slice(0, SHOWN);
    const buttons = [...this.#buttons.querySelectorAll("button[data-name]")];
    while (buttons.length > shown.length) buttons.pop().remove();
    shown.forEach(({ name, pictures }, place) => {
      let button = buttons[place];
      if (!button) {
        button = document.createElement("button");
        button.innerHTML = "<kbd></kbd><span></span><small></small>";
        this.#form.before(button);
      }
      const [digit, text, number] = button.children;
      digit.textContent = place < 9 ? place + 1 : "";
      digit.hidden = place > 8;
      text.textContent = name;
      number.textContent = pictures;
      button.dataset.name = button.title = name;
      button.setAttribute("aria-pressed", name === chosen);
      button.ariaLabel = `${name}, ${pictures} pictures`;
    });
    const options = this.#form.querySelector("datalist");
    if (options.children.length !== classes.length) {
      options.replaceChildren(...classes.map(({ name }) => new Option(name, name)));
    }
    this.#form.elements[0].placeholder = classes.length ? "new class" : "first class, such as gate-open";
  }
}
