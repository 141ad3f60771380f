// What the page may still believe: ages of pictures, replies and data. `freshness.py` words the same for the terminal.

import { age } from "./format.js";

const NO_DATA_S = 3; // the run sends its state twice per second

// Text and kind of the pill for the link to the server.
export function linkPill(state) {
  switch (state.link_state) {
    case "up": return ["link up", "good"];
    case "silent": return [`no reply for ${age(state.unanswered_s)}`, "bad"];
    case "down": return [`link: ${state.link} for ${age(state.link_s)}`, "bad"];
    default: return [state.reply_age_s === null ? (state.offloaded ? "no reply yet" : "nothing sent yet") : `link quiet for ${age(state.reply_age_s)}`, ""];
  }
}

// Whether the picture of a camera is no longer current; `later_s`: time since its state was received.
export function isOld(camera, later_s) {
  return camera.silent_s + later_s > camera.stale_after_s;
}

export function isWithoutPicture(camera, later_s) {
  return isOld(camera, later_s) || (camera.health?.state ?? "running") !== "running";
}

// Text, kind and staleness of the pill for the page itself, while it is connected. `quiet_s`: time since the last data.
export function pagePill(state, quiet_s) {
  if (quiet_s > NO_DATA_S) return [`no data for ${age(quiet_s)}`, "bad", true];
  const cameras = Object.values(state?.cameras ?? {});
  if (cameras.length && cameras.every((camera) => isWithoutPicture(camera, quiet_s))) {
    const silent_s = quiet_s + Math.min(...cameras.map((camera) => camera.silent_s));
    return [`no picture for ${age(silent_s)}`, cameras.some((camera) => camera.health) ? "bad" : "", false];
  }
  return ["live", "good", false];
}
