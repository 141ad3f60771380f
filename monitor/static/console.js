// The console's page: all cameras, or one of them, as the address after `#` says.

import { pill } from "./bars.js";
import { CameraPage } from "./fleet-camera.js";
import { FleetPage } from "./fleet.js";
import { element } from "./format.js";
import { SearchPage } from "./search.js";
import { Stream } from "./stream.js";

const stream = new Stream({
  text: take,
  binary: (data) => camera.picture(data),
  opened: () => ask(),
  changed: () => showConnection(),
});
let shift_s = 0; // the console's clock less that of this machine
let trouble = null;
const now_s = () => Date.now() / 1000 + shift_s;
const fleet = new FleetPage((values) => stream.send(values), now_s);
const camera = new CameraPage(now_s);
const search = new SearchPage();
const searches = () => location.hash === "#/search";

function chosen() {
  if (searches() || !location.hash.startsWith("#/")) return null;
  try {
    return location.hash.slice(2).split("/").map(decodeURIComponent).join("/");
  } catch { // not an address that this page has made
    return null;
  }
}

function ask() {
  const name = chosen();
  element("search").hidden = !searches();
  element("fleet").hidden = Boolean(name) || searches();
  element("one").hidden = !name;
  if (name) {
    camera.open(name);
    stream.send({ camera: name });
  } else if (searches()) search.run();
  else fleet.ask(true);
  if (!name) document.title = "Sagelink console";
}

function take(message) {
  if (message.now) shift_s = message.now - Date.now() / 1000;
  if (message.type === "console") {
    element("about").textContent = message.title;
    element("to-search").hidden = !message.store;
    element("month-since").textContent = message.store ? "as observed here" : "since the console began";
    element("role").hidden = message.role !== "view";
    element("role").textContent = "view only";
    camera.changes.offer(message);
  } else {
    trouble = message.trouble;
    element("notice").hidden = !trouble;
    element("notice").textContent = trouble ?? "";
    if (message.type === "fleet") fleet.show(message);
    else camera.show(message);
  }
  showConnection();
}

function showConnection() {
  const { connected, ended } = stream;
  if (connected) pill("connection", ...(trouble ? ["trouble", "bad"] : ["live", "good"]));
  else pill("connection", ended ? "console ended" : "no connection", ended ? "" : "bad");
  document.body.classList.toggle("stale", !connected || Boolean(trouble));
}

addEventListener("hashchange", () => {
  scrollTo(0, 0);
  ask();
});
setInterval(() => {
  if (!document.hidden && !searches()) (chosen() ? camera : fleet).showAges();
}, 1000);
document.addEventListener("theme", () => camera.restyle());
