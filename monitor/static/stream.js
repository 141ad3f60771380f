// The WebSocket of a page: connects again when it is lost, and says whether the page is visible.

const SERVER_ENDS = 1012; // close code of a WebSocket whose server ends
const FIRST_WAIT_MS = 250;
const MAX_WAIT_MS = 5000;

export class Stream {
  connected = false;
  ended = false;
  #heard_ms = 0; // when the last data arrived
  #wait_ms = FIRST_WAIT_MS;
  #socket = null;
  #take;

  // `text` and `binary` receive messages; `opened` is called after each connection, `changed` after each change of it.
  constructor(take) {
    this.#take = take;
    document.addEventListener("visibilitychange", () => this.#sendVisibility());
    this.#connect();
  }

  // Seconds since the last data.
  get quiet_s() {
    return this.#heard_ms ? (performance.now() - this.#heard_ms) / 1000 : 0;
  }

  send(values) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(values));
  }

  #connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      this.#wait_ms = FIRST_WAIT_MS;
      [this.connected, this.ended] = [true, false];
      this.#sendVisibility();
      this.#take.opened();
      this.#take.changed();
    };
    socket.onmessage = ({ data }) => {
      this.#heard_ms = performance.now();
      if (typeof data === "string") this.#take.text(JSON.parse(data));
      else this.#take.binary(data);
    };
    socket.onclose = ({ code }) => {
      this.connected = false;
      this.ended ||= code === SERVER_ENDS;
      this.#take.changed();
      setTimeout(() => this.#connect(), this.#wait_ms);
      this.#wait_ms = Math.min(MAX_WAIT_MS, this.#wait_ms * 1.6);
    };
  }

  #sendVisibility() {
    this.#heard_ms = performance.now(); // a hidden page receives nothing
    this.send({ visible: !document.hidden });
  }
}
