// The dialog of one frame: the input of the edge model, what the server received, and the facts.

import { ClassBar } from "./classbar.js";
import { bytes, clock, count, element, ms, percent } from "./format.js";
import { drawHeat, drawUnits, WHOLE } from "./overlay.js";

export class Evidence {
  #frames;
  #dialog = element("evidence");
  #shown = null;
  #frame = null; // camera and seq of the shown frame
  #labels;
  #bar;

  constructor(frames, labels, toast) {
    this.#labels = labels;
    this.#bar = new ClassBar(labels, () => this.#frame, (frame, name) => toast.labelled(frame, name));
    element("evidence-bar").append(this.#bar.element);
    labels.listen(() => this.#showBar());
    this.#frames = frames;
    element("close").addEventListener("click", () => this.#dialog.close());
    element("older").addEventListener("click", () => this.#step(-1));
    element("newer").addEventListener("click", () => this.#step(1));
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
    this.#dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#step(-1);
      if (event.key === "ArrowRight") this.#step(1);
    });
  }

  async open(n) {
    this.#shown = n;
    const answer = await get(`/api/frames/${n}/info`);
    if (this.#shown !== n) return;
    if (!this.#dialog.open) this.#dialog.showModal();
    if (!answer?.ok) {
      element("evidence-title").textContent = answer ? "This frame is no longer stored" : "No connection";
      element("received-caption").textContent = "";
      element("facts").replaceChildren();
      this.#frame = null;
      this.#showBar();
      for (const id of ["edge-input", "received"]) clear(element(id));
      return;
    }
    const { event, ...grid } = await answer.json();
    this.#frame = { camera: event.camera, seq: event.seq };
    if (this.#labels.isStored(this.#frame)) this.#labels.change("labels/hold", this.#frame);
    this.#showBar();
    this.#facts(event);
    const sent = event.units > 0;
    element("received-caption").textContent = sent
      ? `received by the server: ${event.units} of ${grid.side ** 2} units`
      : `nothing was sent (${event.drop})`;
    await Promise.all([
      paint(element("edge-input"), event.edge && `/api/frames/${n}/picture`, (context) => {
        if (element("show-heat").checked) drawHeat(context, { ...grid, box: WHOLE });
        if (element("show-units").checked) drawUnits(context, grid);
      }),
      paint(element("received"), sent && `/api/frames/${n}/evidence`),
    ]);
    this.#dialog.dataset.n = n;
  }

  // A digit labels the shown frame.
  press(key) {
    return this.#dialog.open && (element("evidence-bar").hidden || this.#bar.pressDigit(key) || true);
  }

  // Only frames whose full picture is stored can be labelled, and those that have a label.
  #showBar() {
    const frame = this.#frame;
    const possible = frame && (this.#labels.isStored(frame) || this.#labels.labelOf(frame));
    element("evidence-bar").hidden = !possible;
    element("evidence-gone").hidden = Boolean(!frame || possible || this.#labels.closed !== null);
    this.#bar.draw();
  }

  #step(by) {
    const place = this.#frames.findIndex((frame) => frame.n === this.#shown) + by;
    if (this.#frames[place]) this.open(this.#frames[place].n);
  }

  #facts(event) {
    const text = (answer) => (answer?.label ? `${answer.label} ${percent(answer.prob, 1)}` : "none");
    element("evidence-title").textContent = `${text(event)} · ${event.origin}`;
    const facts = {
      Frame: `${count(event.seq)} of ${event.camera}, ${clock(event.stream_s)}`,
      Edge: text(event.edge),
      Server: text(event.server),
      ...Object.fromEntries(Object.entries(event.heads).map(([name, answer]) => [`Head ${name}`, headFact(answer, text)])),
      Truth: event.truth,
      Coded: event.codec && [event.codec, `${event.side} px`, `quality ${event.quality}`].join(", "),
      Sent: event.units ? `${event.units} units, ${bytes(event.wire_bits / 8)} (${count(event.wire_bits)} bits)` : "nothing",
      "Not answered": event.drop,
      Allowance: event.allowance_bits === null ? null : `${count(event.allowance_bits)} bits`,
      Window: event.window_bits === null ? null : `${count(event.window_bits)} of ${event.budget_bits === null ? "unlimited" : count(event.budget_bits)} bits`,
      Latency: Object.entries(event.latency_ms).filter(([, value]) => value !== null).map(([stage, value]) => `${stage} ${ms(value)}`).join(", "),
    };
    element("facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).map(([name, value]) => {
      const pair = document.createElement("div");
      pair.append(
        Object.assign(document.createElement("dt"), { textContent: name }),
        Object.assign(document.createElement("dd"), { textContent: value }),
      );
      return pair;
    }));
  }
}

// The answer by a further head, and the two answers that it was fused from.
function headFact(answer, text) {
  const sides = answer.server ? ` (edge ${text(answer.edge)}, server ${text(answer.server)})` : "";
  return `${text(answer)} · ${answer.origin}${sides}`;
}

async function get(address) {
  try {
    return await fetch(address);
  } catch {
    return null; // no connection
  }
}

function clear(canvas) {
  [canvas.width, canvas.height] = [224, 224];
}

async function paint(canvas, address, over = () => {}) {
  clear(canvas);
  const answer = address && (await get(address));
  if (!answer?.ok) return;
  const picture = await createImageBitmap(await answer.blob());
  [canvas.width, canvas.height] = [2 * picture.width, 2 * picture.height];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  over(context);
}
