// The forms that change one camera, and who changed it before. The camera answers with what holds then.

import { element } from "./format.js";
import { request } from "./request.js";

const WITHOUT_THRESHOLD = ["always", "never"]; // gate policies

export class Changes {
  #camera = null;
  #settings = null;
  #busy = false;
  #views = false;
  #drawn = "";

  constructor() {
    element("budget").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#change({ uplink: element("uplink").value.trim() });
    });
    element("gate").addEventListener("submit", (event) => {
      event.preventDefault();
      const threshold = element("threshold").disabled ? "" : element("threshold").value.trim();
      this.#change({ gate: element("policy").value, threshold: threshold === "" ? null : Number(threshold.replace(",", ".")) });
    });
    element("pace").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#change({ pace: element("pace-name").value });
    });
    element("policy").addEventListener("change", () => this.#choose());
    element("pause").addEventListener("click", () => this.#change({ paused: !this.#settings?.paused }));
    element("request").addEventListener("click", () => this.#change({ request: true }));
  }

  // `role` of this page, `policies`: of the gate.
  offer({ role, policies }) {
    element("policy").replaceChildren(...policies.map((name) => new Option(name.replace("_", " "), name)));
    this.#views = role === "view";
    this.#choose();
  }

  // `refusal`: why nobody can change this camera here.
  #permit(refusal) {
    const reason = this.#views ? "You may only view: log in with the control token to change this camera." : refusal;
    element("forms").hidden = Boolean(reason);
    element("why-not").hidden = !reason;
    element("why-not").textContent = reason ?? "";
  }

  open(camera) {
    [this.#camera, this.#settings, this.#drawn] = [camera, null, ""];
    element("change-said").textContent = "";
    for (const id of ["uplink", "threshold"]) element(id).value = "";
  }

  show({ settings, changes, state, refusal }) {
    this.#permit(refusal);
    const { gate, pace } = settings ?? {};
    if (gate && this.#settings?.gate !== gate) element("policy").value = gate;
    if (pace && this.#settings?.pace !== pace) element("pace-name").value = pace;
    this.#settings = settings;
    element("budget-now").textContent = settings?.uplink ? `${settings.uplink} over ${settings.window_s} s` : "not known yet";
    element("gate-now").textContent = gate ? gate.replace("_", " ") + (WITHOUT_THRESHOLD.includes(gate) ? "" : `, ${settings.threshold}`) : "not known yet";
    element("pace-now").textContent = pace ?? "not known yet";
    element("pause").textContent = settings?.paused ? "Resume" : "Pause";
    element("pause").title = settings?.paused ? "The camera sends evidence again" : "The camera sends no evidence until it is resumed";
    for (const button of element("forms").querySelectorAll("button")) button.disabled = this.#busy || state === "offline";
    this.#choose();
    this.#history(changes);
  }

  #choose() {
    element("threshold").disabled = WITHOUT_THRESHOLD.includes(element("policy").value);
  }

  #history(changes) {
    const drawn = JSON.stringify(changes);
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    element("history").hidden = !changes.length;
    element("history-list").replaceChildren(...changes.map((change) => {
      const line = document.createElement("li");
      const when = new Date(change.wall_s * 1000);
      const words = Object.entries(JSON.parse(change.change)).map(([key, value]) => (key === "request" ? "picture" : `${key} ${value ?? "default"}`));
      line.textContent = `${when.toLocaleTimeString()} · ${change.who || "here"} · ${words.join(", ")}${change.outcome === "done" ? "" : `: ${change.outcome}`}`;
      line.title = when.toLocaleString();
      line.className = change.outcome === "done" ? "" : "bad";
      return line;
    }));
  }

  async #change(values) {
    const said = element("change-said");
    const camera = this.#camera;
    [said.className, said.textContent, this.#busy] = ["dim", "asking the camera", true];
    for (const button of element("forms").querySelectorAll("button")) button.disabled = true;
    const path = camera.split("/").map(encodeURIComponent).join("/");
    const { problem } = await request(`/api/cameras/${path}/change`, values);
    const done = values.request ? "the camera sends its next picture as soon as the budget pays for it" : "done: it holds at the camera";
    this.#busy = false;
    for (const button of element("forms").querySelectorAll("button")) button.disabled = false;
    if (camera !== this.#camera) return;
    [said.className, said.textContent] = [problem ? "error" : "dim", problem || done];
  }
}
