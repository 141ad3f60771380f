// All cameras: only the rows on the screen exist, and only they are asked for.

import { age, bitRate, bytes, element, percent } from "./format.js";

const ROW = { wide: 44, narrow: 68 }; // pixels, as in the style sheet
const AROUND = 8; // rows beyond both ends of the screen

export class FleetPage {
  #ask;
  #now_s;
  #query = { sort: "trouble", state: "", text: "" };
  #range = [0, 30]; // first row and number of rows that were asked for
  #rows = new Map(); // by place
  #total = 0;
  #lines = []; // elements, reused
  #narrow = matchMedia("(max-width: 900px)");

  // `ask` sends a query; `now_s` returns the console's time.
  constructor(ask, now_s) {
    this.#ask = ask;
    this.#now_s = now_s;
    const draw = () => requestAnimationFrame(() => this.ask(false));
    addEventListener("scroll", draw, { passive: true });
    addEventListener("resize", draw);
    this.#narrow.addEventListener("change", draw);
    element("sort").addEventListener("change", () => this.#change({ sort: element("sort").value }));
    element("text").addEventListener("input", () => this.#change({ text: element("text").value }));
    element("states").addEventListener("click", ({ target }) => {
      if (target.dataset.state === undefined) return;
      for (const button of element("states").children) button.setAttribute("aria-pressed", button === target);
      this.#change({ state: target.dataset.state });
    });
  }

  #change(values) {
    Object.assign(this.#query, values);
    this.#rows.clear();
    this.ask(true);
  }

  get #height() {
    return this.#narrow.matches ? ROW.narrow : ROW.wide;
  }

  // Asks for the rows on the screen, if they differ from those that were asked for, or `always`.
  ask(always) {
    if (element("fleet").hidden) return;
    const top = element("list").getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / this.#height) - AROUND);
    const count = Math.min(100, Math.ceil(innerHeight / this.#height) + 2 * AROUND);
    const moved = Math.abs(first - this.#range[0]) >= AROUND / 2 || count !== this.#range[1];
    if (always || moved) {
      this.#range = [first, count];
      this.#ask({ camera: null, first, count, ...this.#query });
    }
    this.#draw();
  }

  show({ totals, matching, first, rows }) {
    this.#total = matching;
    this.#rows = new Map(rows.map((row, place) => [first + place, row]));
    this.#showTotals(totals);
    const empty = totals.cameras ? "No camera fits the filter." : "No camera has announced itself at this broker yet.";
    element("nothing").hidden = matching > 0;
    element("nothing").textContent = empty;
    this.#draw();
  }

  #showTotals(totals) {
    element("cameras-all").textContent = totals.cameras.toLocaleString("en");
    const down = ["stalled", "offline"].filter((state) => totals[state]).map((state) => `${totals[state]} ${state}`);
    element("cameras-down").textContent = down.join(", ") || (totals.cameras ? "all running" : "");
    element("cameras-down").className = totals.stalled + totals.offline ? "bad" : "";
    element("events-open").textContent = totals.events.toLocaleString("en");
    element("uplink").textContent = bitRate(totals.rate_bps);
    element("month").textContent = bytes(totals.month_bits / 8);
    for (const button of element("states").children) {
      const { state } = button.dataset;
      button.textContent = state ? `${state} ${totals[state]}` : `all ${totals.cameras}`;
    }
  }

  #draw() {
    const list = element("list");
    const height = this.#height;
    list.style.height = `${this.#total * height}px`;
    const [first, count] = this.#range;
    const last = Math.min(this.#total, first + count);
    let used = 0;
    for (let place = Math.min(first, last); place < last; place += 1) {
      const line = (this.#lines[used] ??= list.appendChild(newLine()));
      line.style.transform = `translateY(${place * height}px)`;
      line.hidden = false;
      line.dataset.place = place;
      fill(line, this.#rows.get(place), this.#now_s());
      used += 1;
    }
    for (const line of this.#lines.slice(used)) line.hidden = true;
  }

  showAges() {
    this.#draw();
  }
}

const CELLS = ["name", "label", "events", "uplink number", "month number", "answered number", "drops", "trip number", "seen number"];

function newLine() {
  const line = document.createElement("a");
  line.className = "fleet-row";
  line.setAttribute("role", "listitem");
  line.append(...CELLS.map((className) => Object.assign(document.createElement("span"), { className })));
  return line;
}

function fill(line, row, now_s) {
  const [name, label, events, uplink, month, answered, drops, trip, seen] = line.children;
  if (!row) {
    line.removeAttribute("href");
    line.dataset.state = "";
    for (const cell of line.children) set(cell, "");
    return;
  }
  const href = `#/${row.camera.split("/").map(encodeURIComponent).join("/")}`;
  if (line.getAttribute("href") !== href) line.href = href;
  line.dataset.state = row.state;
  set(name, row.camera, row.camera);
  set(label, row.label ? `${row.label} ${percent(row.prob)}` : "–", row.label);
  set(events, row.open ? row.events.map((event) => event.label || event.rule).join(", ") + (row.open > 3 ? ` +${row.open - 3}` : "") : "", row.events.map((event) => `${event.rule}: ${event.label}`).join("\n"));
  set(uplink, row.budget_bps ? `${bitRate(row.rate_bps)} of ${bitRate(row.budget_bps)}` : bitRate(row.rate_bps));
  set(month, quotaWords(row.quota) ?? bytes(row.month_bits / 8), row.quota ? `quota ${row.quota.name}, counted at the camera; ${bytes(row.month_bits / 8)} observed here this month` : "observed here");
  month.classList.toggle("bad", nearlyUsed(row.quota));
  set(answered, row.answered_share === null ? "–" : percent(row.answered_share), `${row.answered.toLocaleString("en")} answers`);
  answered.classList.toggle("bad", row.answered_share !== null && row.answered_share < 0.8);
  const reasons = Object.entries(row.drops);
  const reason = reasons.find(([, drop]) => drop.slow) ?? reasons[0]; // a slow side is news, a gate is not
  set(drops, reason ? `${reason[0]} ${reason[1].frames.toLocaleString("en")}${reason[1].slow && reason[1].slow !== reason[0] ? ` · ${reason[1].slow}` : ""}` : "",
    reasons.map(([text, drop]) => `${text}: ${drop.frames}${drop.slow ? `, slow side: ${drop.slow}` : ""}`).join("\n"));
  const trip_ms = row.round_trip_ms ?? row.answer_ms;
  set(trip, trip_ms === null ? "–" : `${Math.round(trip_ms)} ms`, row.round_trip_ms === null ? "from the broker to the server and back" : "over the uplink");
  set(seen, stateWords(row, now_s), row.reason);
  seen.classList.toggle("bad", row.state !== "running");
}

// Used bytes of a quota; null where the camera has told none.
export function quotaWords(quota) {
  return quota && `${bytes(quota.used_bits / 8)} of ${bytes(quota.limit_bits / 8)}`;
}

export function nearlyUsed(quota) {
  return Boolean(quota) && quota.used_bits >= 0.8 * quota.limit_bits;
}

// How current a camera is, in words.
export function stateWords(row, now_s) {
  if (row.state === "offline") return row.since ? `offline ${age(Math.max(0, now_s - row.since))}` : "offline";
  if (row.state === "stalled") return "stalled";
  if (row.paused) return "paused";
  return row.seen === null ? "nothing yet" : `${age(Math.max(0, now_s - row.seen))} ago`;
}

function set(cell, text, title = "") {
  if (cell.textContent !== text) cell.textContent = text;
  if (cell.title !== title) cell.title = title;
}
