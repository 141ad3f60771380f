// One connection to the server: the camera's video goes there, answers come back on a channel agreed in advance.

const MOST_BITS = 800_000;
const GATHER_MS = 2000; // longest for this side's addresses
const ANSWER_MS = 10_000;

// Why there is no connection, and the HTTP status where the server said so (0: it said nothing).
export class Refused extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export class Connection {
  #peer = new RTCPeerConnection();

  // `onAnswer` gets each answer; `onEnd` is called once when the connection that came about has ended.
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
    peer.addTransceiver(track, { direction: "sendonly", sendEncodings: [{ maxBitrate: MOST_BITS }] });
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

  // Milliseconds that the network takes there and back; null while it is not known.
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
      const look = () => peer.iceGatheringState === "complete" && resolve();
      peer.addEventListener("icegatheringstatechange", look);
      setTimeout(resolve, GATHER_MS);
      look();
    });
  }
}
