// The forms that change the budget, the gate and the pace of the running run.

import { believed, element } from "./format.js";
import { request } from "./request.js";

const TRUST_LINES = 6;
const WITHOUT_THRESHOLD = ["always", "never"]; // gate policies

export class Control {
  #state = null;

  constructor() {
    element("budget").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#change("budget", { uplink: element("uplink").value.trim() });
    });
    for (const button of element("budget").querySelectorAll("[data-times]")) {
      button.addEventListener("click", () => {
        const rate = this.#state?.rate_bps;
        if (rate) this.#change("budget", { uplink: `${rate * Number(button.dataset.times)}bit/s` });
        else element("budget-error").textContent = "the budget is unlimited: set a rate first";
      });
    }
    element("pace").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#change("pace", { pace: element("pace-name").value });
    });
    element("trust").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#change("trust", { forget: null });
    });
    element("policy").addEventListener("change", () => this.#choose());
    element("gate").addEventListener("submit", (event) => {
      event.preventDefault();
      const threshold = element("threshold").disabled ? "" : element("threshold").value.trim();
      this.#change("gate", { policy: element("policy").value, threshold: threshold === "" ? null : threshold });
    });
  }

  offer(policies) {
    element("policy").replaceChildren(...policies.map((name) => new Option(name.replace("_", " "), name)));
  }

  show(state) {
    if (this.#state?.gate !== state.gate) element("policy").value = state.gate;
    if (this.#state?.pace !== state.pace) element("pace-name").value = state.pace;
    this.#state = state;
    element("budget-now").textContent = state.rate_bps === null ? state.uplink : `${state.uplink} over ${state.window_s} s`;
    const at = state.changed_wall_s ? new Date(state.changed_wall_s * 1000).toLocaleTimeString() : "";
    element("budget-by").textContent = state.changed_by ? `changed at ${at} by ${state.changed_by}` : "";
    element("gate-now").textContent = state.gate.replace("_", " ") + (WITHOUT_THRESHOLD.includes(state.gate) ? "" : `, ${state.threshold}`);
    element("pace-now").textContent = state.pace;
    this.#choose();
  }

  // One line per camera, the least believed first.
  showTrust(trust) {
    const cameras = Object.entries(trust).filter(([, learned]) => learned.plausible !== null);
    cameras.sort(([, one], [, other]) => one.weight - other.weight);
    element("trust").hidden = !cameras.length;
    const lines = cameras.slice(0, TRUST_LINES).map(([camera, learned]) => {
      const line = document.createElement("p");
      line.textContent = (Object.keys(trust).length > 1 ? `${camera}: ` : "") + believed(learned);
      return line;
    });
    element("trust-lines").replaceChildren(...lines);
  }

  #choose() {
    element("threshold").disabled = WITHOUT_THRESHOLD.includes(element("policy").value);
  }

  async #change(what, values) {
    const problem = element(`${what}-error`);
    problem.textContent = "";
    const answer = await request(`/api/${what}`, values);
    if (answer.problem) problem.textContent = answer.problem;
    else this.show(answer.result);
  }
}
