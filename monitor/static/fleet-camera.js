// One camera: its last evidence, its numbers, its events and the server's answers.

import { bars, latencyBars, pill } from "./bars.js";
import { Changes } from "./changes.js";
import { age, bitRate, bits, bytes, count, element, percent } from "./format.js";
import { nearlyUsed, stateWords } from "./fleet.js";
import { Minutes } from "./minutes.js";
import { outlineUnits } from "./overlay.js";

const STATE_KINDS = { running: "good", stalled: "bad", offline: "bad" };

export class CameraPage {
  changes = new Changes();
  #now_s;
  #name = null;
  #shown = null; // the last message about this camera
  #picture = null; // header and bitmap of the last evidence
  #minutes = new Minutes(element("minutes"));

  constructor(now_s) {
    this.#now_s = now_s;
    element("outline").addEventListener("change", () => this.#paint());
  }

  open(name) {
    if (this.#name === name) return;
    [this.#name, this.#shown, this.#picture] = [name, null, null];
    element("camera-name").textContent = name;
    this.changes.open(name);
    document.title = `${name} · Sagelink console`;
    this.#paint();
  }

  show(view) {
    element("one").classList.toggle("nothing", view.camera === null);
    if (view.camera === null) {
      pill("camera-state", "unknown", "bad");
      element("camera-why").textContent = "This broker knows no such camera.";
      return;
    }
    if (view.camera !== this.#name) return;
    this.#shown = view;
    element("one-label").textContent = view.label || "–";
    element("one-label").title = view.label;
    element("one-prob").textContent = view.label ? `${percent(view.prob)}, by the server` : "no answer yet";
    element("one-rate").textContent = bitRate(view.rate_bps);
    element("one-budget").textContent = view.budget_bps ? `of ${bitRate(view.budget_bps)}` : "estimated";
    const { quota } = view;
    element("one-month-title").textContent = quota && quota.name !== "month" ? `Quota ${quota.name}` : "This month";
    element("one-month").textContent = bytes((quota ? quota.used_bits : view.month_bits) / 8);
    element("one-month-of").textContent = quota ? `of ${bytes(quota.limit_bits / 8)}, ${percent(quota.used_bits / quota.limit_bits)} used` : "observed here";
    element("one-month-of").className = nearlyUsed(quota) ? "bad" : "";
    element("one-answered").textContent = view.answered_share === null ? "–" : percent(view.answered_share);
    element("one-answers").textContent = `${count(view.answered)} answers`;
    const trip_ms = view.round_trip_ms ?? view.answer_ms;
    element("one-trip").textContent = trip_ms === null ? "–" : `${Math.round(trip_ms)} ms`;
    element("one-trip-what").textContent = view.round_trip_ms === null ? "from message to answer, seen here" : "over the uplink";
    const frames = view.frames ?? Object.values(view.drops).reduce((sum, drop) => sum + drop.frames, view.answered);
    element("drops-of").textContent = view.frames === null ? "of the messages seen here" : `of ${count(view.frames)} frames`;
    bars("one-drops", Object.entries(view.drops).map(([reason, drop]) => ({
      name: reason, width: drop.frames / Math.max(1, frames), kind: `side-${drop.slow}`,
      value: drop.slow ? `${count(drop.frames)} · ${drop.slow}` : count(drop.frames),
      title: drop.slow ? `the limit is the ${drop.slow}` : "",
    })), "None so far.");
    latencyBars("one-latency", view.latency_ms, "No answer yet.");
    element("limit-key").hidden = view.budget_bps === null;
    this.#minutes.draw(view.minutes, view.budget_bps, this.#now_s());
    this.changes.show(view);
    this.#timeline(view.timeline);
    this.#answers(view.answers);
    this.showAges();
  }

  // Binary message: length of the header, header (JSON), PNG.
  async picture(data) {
    const length = new DataView(data).getUint32(0);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    if (header.camera !== this.#name) return;
    const bitmap = header.problem ? null : await createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], { type: "image/png" }));
    if (header.camera !== this.#name) return;
    this.#picture = { header, bitmap };
    this.#paint();
  }

  showAges() {
    if (!this.#shown) return;
    const words = stateWords(this.#shown, this.#now_s());
    pill("camera-state", this.#shown.state === "running" ? "running" : words, STATE_KINDS[this.#shown.state]);
    element("camera-why").textContent = this.#shown.reason || (this.#shown.state === "running" ? `last message ${words}` : "");
    this.#caption();
  }

  restyle() {
    this.#minutes.restyle();
  }

  #paint() {
    const canvas = element("picture");
    const { header, bitmap } = this.#picture ?? {};
    canvas.hidden = !bitmap;
    if (bitmap) {
      [canvas.width, canvas.height] = [2 * bitmap.width, 2 * bitmap.height];
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      if (element("outline").checked) outlineUnits(context, header);
      canvas.dataset.seq = header.seq;
    }
    this.#caption();
  }

  #caption() {
    const { header } = this.#picture ?? {};
    if (!header) {
      element("picture-caption").textContent = this.#shown?.picture ? "Decoding the last evidence." : "No evidence since the console began.";
      return;
    }
    const at = `${new Date(header.at * 1000).toLocaleTimeString()}, ${age(Math.max(0, this.#now_s() - header.at))} ago`;
    const answer = this.#shown?.answers.find(({ seq }) => seq === header.seq);
    const said = answer ? (answer.refusal ? `refused: ${answer.refusal}` : `${answer.label} ${percent(answer.prob)}`) : "no answer yet";
    element("picture-caption").textContent = header.problem
      ? `${at}. ${header.problem}`
      : `${said} · frame ${count(header.seq)}, ${header.units.length} of ${header.side ** 2} units · ${at}`;
  }

  #timeline(events) {
    const drawn = JSON.stringify(events);
    const list = element("timeline");
    if (list.dataset.drawn === drawn) return;
    list.dataset.drawn = drawn;
    if (!events.length) {
      list.replaceChildren(part("li", "empty", "No event since the console began."));
      return;
    }
    list.replaceChildren(...events.map((event) => {
      const line = part("li", event.state);
      const began = new Date(event.began_wall_s * 1000);
      const lasted = event.end_s === null ? "" : `, ${age(Math.max(0, event.end_s - event.start_s))}`;
      line.append(
        part("time", "", began.toLocaleTimeString()),
        part("b", "", event.label || event.rule),
        part("span", "dim", `${event.state}${lasted} · ${percent(event.prob)} · ${event.rule}`),
      );
      line.title = `${began.toLocaleString()}, ${event.cause}, ${bits(event.wire_bits)}`;
      if (event.has_picture) line.append(eventPicture(this.#name, event));
      return line;
    }));
  }

  #answers(answers) {
    const body = element("answers");
    const newest = answers.length ? `${answers[0].seq} ${answers.length}` : "";
    if (body.dataset.newest === newest) return;
    body.dataset.newest = newest;
    body.replaceChildren(...answers.map((answer) => {
      const line = document.createElement("tr");
      const cell = (text, kind = "") => line.appendChild(part("td", kind, text));
      cell(new Date(answer.wall_s * 1000).toLocaleTimeString());
      if (answer.refusal) cell(`refused: ${answer.refusal}`, "bad");
      else cell("").append(part("b", "", answer.label), part("span", "dim", ` ${percent(answer.prob)}`));
      cell(answer.edge || "–", "wide");
      cell(count(answer.seq), "number");
      cell(answer.units, "number wide");
      cell(bytes(answer.bits / 8), "number");
      cell(answer.answer_ms.toFixed(0), "number wide");
      return line;
    }));
  }
}

function eventPicture(camera, event) {
  const path = [...camera.split("/"), "events", event.id].map(encodeURIComponent).join("/");
  const link = Object.assign(part("a", "picture"), { href: `/api/cameras/${path}/picture`, target: "_blank", rel: "noopener" });
  const picture = Object.assign(new Image(), { loading: "lazy", alt: `Best frame of ${event.label || event.rule}`, src: link.href });
  picture.addEventListener("error", () => link.remove());
  link.append(picture);
  return link;
}

function part(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}
