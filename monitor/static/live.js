// One tile per camera: its picture, the sent units, its answer and state.

import { ClassBar } from "./classbar.js";
import { isOld } from "./fresh.js";
import { age, byHeads, bytes, disbelieved, element, percent, was } from "./format.js";
import { drawHeat, drawUnits } from "./overlay.js";

export class LivePictures {
  #holder;
  #frames;
  #tiles = new Map();
  #labels;
  #toast;

  constructor(holder, frames, labels, toast) {
    this.#labels = labels;
    this.#toast = toast;
    this.#holder = holder;
    this.#frames = frames;
    for (const id of ["show-units", "show-heat"]) {
      element(id).addEventListener("change", () => this.#tiles.forEach((tile) => this.#draw(tile)));
    }
  }

  clear() {
    this.#tiles.forEach((tile) => tile.figure.remove());
    this.#tiles.clear();
  }

  // `buffer`: length of the header (32 bits), header (JSON), JPEG.
  async take(buffer) {
    const length = new DataView(buffer).getUint32(0);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    const picture = await createImageBitmap(new Blob([new Uint8Array(buffer, 4 + length)], { type: "image/jpeg" }));
    const tile = this.#tile(header.camera);
    if (tile.frozen || (tile.header && tile.header.n > header.n)) return picture.close();
    tile.picture?.close();
    Object.assign(tile, { header, picture });
    this.#draw(tile);
  }

  // `later_s`: time since these states were received.
  states(cameras, later_s) {
    Object.entries(cameras).forEach(([name, camera], order) => {
      const tile = this.#tile(name);
      tile.figure.style.order = order;
      const { state = "running", fault } = camera.health ?? {};
      const silent = age(camera.silent_s + later_s);
      const old = isOld(camera, later_s);
      const current = old ? `no picture for ${silent}` : `${camera.fps.toFixed(1)} fps`;
      tile.state.textContent = state === "running" ? current : `${state}${fault ? `: ${fault}` : ""}`;
      tile.state.title = tile.state.textContent;
      tile.state.classList.toggle("bad", Boolean(camera.health) && (old || state !== "running") && state !== "ended");
      tile.figure.classList.toggle("old", old);
      tile.age.textContent = old ? `${silent} old` : "";
    });
  }

  #tile(camera) {
    let tile = this.#tiles.get(camera);
    if (!tile) {
      this.#holder.querySelector(".empty")?.remove();
      const figure = document.createElement("figure");
      figure.className = "camera-tile";
      figure.innerHTML = '<div class="view"><canvas role="img"></canvas><span class="age"></span></div><figcaption>'
        + '<span class="name"></span><span class="state"></span><span class="label"></span><span class="how"></span></figcaption>';
      const [canvas, age, name, state, label, how] = figure.querySelectorAll("canvas, span");
      name.textContent = name.title = camera;
      tile = { figure, canvas, age, label, how, state, frozen: false };
      tile.bar = new ClassBar(this.#labels, () => tile.header, (frame, name) => this.#toast.labelled(frame, name));
      const bar = tile.bar.element;
      bar.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && this.#freeze(tile, true));
      bar.addEventListener("pointerleave", () => this.#freeze(tile, bar.contains(document.activeElement) && document.activeElement.matches("input")));
      bar.addEventListener("focusin", (event) => event.target.matches("input") && this.#freeze(tile, true));
      bar.addEventListener("focusout", () => this.#freeze(tile, bar.matches(":hover") && matchMedia("(hover: hover)").matches));
      figure.append(bar);
      this.#tiles.set(camera, tile);
      this.#holder.append(figure);
    }
    return tile;
  }

  // A digit labels the picture under the pointer or the focus, or the only one.
  press(key) {
    const tiles = [...this.#tiles.values()];
    const tile = tiles.find(({ figure }) => figure.matches(":hover, :focus-within")) ?? (tiles.length === 1 ? tiles[0] : null);
    return Boolean(tile?.bar.pressDigit(key));
  }

  // The picture stands still while somebody chooses its class.
  #freeze(tile, frozen) {
    if (tile.frozen === frozen || (frozen && (!tile.header || this.#labels.closed !== null))) return;
    tile.frozen = frozen;
    tile.figure.classList.toggle("frozen", frozen);
    if (frozen) this.#labels.change("labels/hold", tile.header);
    tile.bar.draw();
  }

  #draw({ canvas, picture, header, label, how }) {
    if (!picture) return;
    [canvas.width, canvas.height] = [picture.width, picture.height];
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    if (element("show-heat").checked) drawHeat(context, { ...header, box: header.edge_box });
    if (element("show-units").checked) drawUnits(context, header);
    canvas.dataset.n = header.n;
    const frame = this.#frames.findLast((other) => other.n === header.n);
    if (!frame) return;
    label.textContent = frame.label ? [`${frame.label} ${percent(frame.prob)}`, ...byHeads(frame)].join(" · ") : "no answer";
    const sent = frame.units ? `${frame.units} units, ${bytes(frame.wire_bits / 8)}` : "";
    label.title = frame.scene === null ? "probability of the answer to this frame" : "calibrated probability of the scene's answer";
    how.textContent = [frame.origin, sent, frame.drop, was(frame), disbelieved(frame)].filter(Boolean).join(" · ");
    how.className = `how dot ${frame.origin}`;
    canvas.ariaLabel = `${frame.camera}: ${label.textContent}, ${how.textContent}`;
  }
}
