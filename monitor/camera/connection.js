// One connection to the server: sends the camera's video, receives answers on a pre-negotiated data channel.

const MAX_BITS_PER_S = 800_000;
const GATHER_MS = 2000; // longest wait for the addresses of this side
const ANSWER_MS = 10_000;

// Why there is no connection, with the server's HTTP status (0: no response).
export class Refused extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export class Connection {
  #peer = new RTCPeerConnection();

  // `onAnswer` receives each answer; `onEnd` is called once, when an established connection ends.
  constructor(onAnswer, onEnd) {
    const end = () => {
      if (!this.#peer) return;
      this.close();
      onEnd();
    };
    const answers = this.#peer.createDataChannel("answers", { ordered: false, maxRetransmits: 0, negotiated: true, id: 0 });
    answers.addEventListener("message", ({ data }) => this.#peer && onAnswer(JSON.parse(data)));
    answers.addEventListener("close", end);
    this.#peer.addEventListener("connectionstatechange", () => {
      if (["disconnected", "failed", "closed"].includes(this.#peer?.connectionState)) end();
    });
  }

  // Throws Refused.
  async open(track, token) {
    const peer = this.#peer;
    peer.addTransceiver(track, { direction: "sendonly", sendEncodings: [{ maxBitrate: MAX_BITS_PER_S }] });
    await peer.setLocalDescription();
    await this.#gathered(peer);
    const headers = { "Content-Type": "application/sdp", ...(token && { Authorization: `Bearer ${token}` }) };
    let answer, text;
    try {
      const body = peer.localDescription.sdp;
      answer = await fetch("/video", { method: "POST", headers, body, signal: AbortSignal.timeout(ANSWER_MS) });
      text = await answer.text();
    } catch {
      throw new Refused("no connection");
    }
    if (answer.status !== 201) throw new Refused(text.trim(), answer.status);
    if (this.#peer) await peer.setRemoteDescription({ type: "answer", sdp: text });
  }

  // Round trip time of the network in ms; null while it is unknown.
  async roundTrip() {
    for (const report of (await this.#peer?.getStats())?.values() ?? []) {
      if (report.type === "candidate-pair" && report.nominated && report.currentRoundTripTime !== undefined) {
        return 1000 * report.currentRoundTripTime;
      }
    }
    return null;
  }

  close() {
    const peer = this.#peer;
    this.#peer = null;
    peer?.close();
  }

  #gathered(peer) {
    return new Promise((resolve) => {
      const check = () => peer.iceGatheringState === "complete" && resolve();
      peer.addEventListener("icegatheringstatechange", check);
      setTimeout(resolve, GATHER_MS);
      check();
    });
  }
}
