// The one peer connection: its sections, its offers, and noticing when nothing arrives any more.

import { MotetError } from "./errors.js";
import { setActive } from "./track.js";

/** @import { Mid, Source } from "./protocol.d.ts" */

/**
 * @typedef {object} ConnectionHandlers
 * @property {(sdp: string) => void} offer an offer is to be sent; the answer comes to `answered`
 * @property {() => boolean} ready whether an offer can be sent now: one made while the machine is offline knows no
 *   addresses
 * @property {(broken: boolean) => void} broken packets stopped arriving, or arrive again
 * @property {(error: MotetError) => void} failed no restart helps: make a new connection
 */

/** Receiving sections of the first offer: nine pictures and eight voices fill a screen and an ear. */
export const SLOTS = { audio: 8, video: 9 };
/** ms between samples of the candidate pair. Higher notices a dead path later, lower costs CPU in big calls. */
const SAMPLE_EVERY = 1000;
/** Samples without a packet: the server sends at least every 500 ms. */
const SILENT_SAMPLES = 2;
/** ms after the browser reports a change of network within which something must arrive. */
const CHANGE_CHECK = 600;
/** ms for a restart to bring packets before the next is tried. */
const RESTART_WITHIN = 5000;
/** Restarts without effect after which the connection is given up. */
const RESTARTS = 3;

/**
 * Largest first: with the smallest first Chromium drops the large ones of a small camera.
 * @type {RTCRtpEncodingParameters[]}
 */
const CAMERA_ENCODINGS = [
  { rid: "f", maxBitrate: 1_500_000 },
  { rid: "h", maxBitrate: 500_000, scaleResolutionDownBy: 2 },
  { rid: "q", maxBitrate: 150_000, scaleResolutionDownBy: 4 },
];
/** @type {RTCRtpEncodingParameters[]} */
const SCREEN_ENCODINGS = [
  { rid: "f", maxBitrate: 2_500_000, maxFramerate: 15 },
  { rid: "h", maxBitrate: 500_000, maxFramerate: 15, scaleResolutionDownBy: 2 },
];

/** In the order of their sections. @type {{ source: Source, kind: "audio" | "video", encodings: RTCRtpEncodingParameters[] }[]} */
const SENDING = [
  { source: "microphone", kind: "audio", encodings: [{}] },
  { source: "camera", kind: "video", encodings: CAMERA_ENCODINGS },
  { source: "screen", kind: "video", encodings: SCREEN_ENCODINGS },
  { source: "screen-audio", kind: "audio", encodings: [{}] },
];

/** What the server forwards. The rest of Chromium's offer is two thirds of its size. */
const CODECS = { audio: ["audio/opus"], video: ["video/vp8", "video/rtx"] };

export class Connection {
  /** @type {RTCPeerConnection} */ #peer;
  /** @type {ConnectionHandlers} */ #handlers;
  /** @type {Map<Source, RTCRtpTransceiver>} */ #sending = new Map();
  /** @type {RTCRtpTransceiver[]} */ #receiving = [];

  /** An offer was made and not yet answered. */ #offering = false;
  /** The next offer is wanted as soon as this one is answered. */ #restartWanted = false;
  #closed = false;

  /** @type {ReturnType<typeof setInterval> | undefined} */ #sampler;
  #packets = -1;
  #silent = 0;
  #broken = false;
  #restarts = 0;
  /** When the path was last made anew, which needs its time; long ago once something has arrived on it. */ #restartedAt = -Infinity;

  /** @param {(configuration: RTCConfiguration) => RTCPeerConnection} createPeer @param {ConnectionHandlers} handlers */
  constructor(createPeer, handlers) {
    this.#handlers = handlers;
    try {
      this.#peer = createPeer({ bundlePolicy: "max-bundle", rtcpMuxPolicy: "require" });
    } catch (cause) {
      throw new MotetError("unsupported_browser", { cause });
    }
    this.#peer.onconnectionstatechange = () => this.#stateChanged();
    for (const { source, kind, encodings } of SENDING) {
      // Inactive until used: an empty active section sends probes of padding.
      const sendEncodings = encodings.map((encoding) => ({ ...encoding, active: false }));
      this.#sending.set(source, this.#section(kind, { direction: "sendonly", sendEncodings }));
    }
    for (const kind of /** @type {const} */ (["audio", "video"])) {
      for (let i = 0; i < SLOTS[kind]; i += 1) {
        this.#receiving.push(this.#section(kind, { direction: "recvonly" }));
      }
    }
  }

  /** @param {"audio" | "video"} kind @param {RTCRtpTransceiverInit} init */
  #section(kind, init) {
    const transceiver = this.#peer.addTransceiver(kind, init);
    const side = init.direction === "sendonly" ? globalThis.RTCRtpSender : globalThis.RTCRtpReceiver;
    const codecs = side?.getCapabilities(kind)?.codecs ?? [];
    const kept = codecs.filter((codec) => CODECS[kind].includes(codec.mimeType.toLowerCase()));
    if (kept.length > 0) transceiver.setCodecPreferences(kept);
    return transceiver;
  }

  /** @param {Source} source @returns {RTCRtpSender | null} */
  sender(source) {
    return this.#closed ? null : (this.#sending.get(source)?.sender ?? null);
  }

  /** Known after the first offer. @param {Source} source @returns {Mid | null} */
  mid(source) {
    return this.#sending.get(source)?.mid ?? null;
  }

  /** @returns {{ mid: Mid, track: MediaStreamTrack }[]} the receiving sections, known after the first offer */
  slots() {
    return this.#receiving.flatMap(({ mid, receiver }) => (mid === null ? [] : [{ mid, track: receiver.track }]));
  }

  /** Why it stopped, for tests and reports. */
  get state() {
    return this.#peer.connectionState;
  }

  /**
   * The first offer, sent with `hello`. It waits for no candidates: the server has no use for them.
   * @returns {Promise<string>}
   */
  async firstOffer() {
    this.#offering = true;
    return this.#describe();
  }

  async #describe() {
    const offer = await this.#peer.createOffer();
    await this.#peer.setLocalDescription(offer);
    return offer.sdp ?? "";
  }

  /** @param {string} sdp @returns {Promise<void>} rejects when the browser does not take the answer */
  async answered(sdp) {
    if (this.#closed || !this.#offering) return;
    try {
      await this.#peer.setRemoteDescription({ type: "answer", sdp });
    } catch (cause) {
      throw new MotetError("protocol", { hint: "The browser did not accept the server's answer.", cause });
    } finally {
      this.#offering = false;
    }
    // Chromium makes all encodings active again when simulcast is first answered.
    for (const { sender } of this.#sending.values()) {
      if (!sender.track) await setActive(sender, false);
    }
    this.#restartedAt = performance.now();
    this.#sampler ??= setInterval(() => void this.#sample(), SAMPLE_EVERY);
    if (this.#restartWanted) await this.#restart();
  }

  /**
   * The server refused our offer: the connection is as it was before.
   * @param {number} [retryMs] when to offer again
   */
  async refused(retryMs) {
    if (!this.#offering || this.#closed) return;
    this.#offering = false;
    if (!this.#sampler) throw new MotetError("connection_failed");
    await this.#peer.setLocalDescription({ type: "rollback" });
    if (retryMs !== undefined) setTimeout(() => this.restart(), retryMs);
  }

  /** New addresses on both sides, the same keys. Media flows on until the new path is chosen. */
  restart() {
    if (this.#closed || !this.#sampler) return; // the first connection is still being made
    this.#restartWanted = true;
    if (!this.#offering) void this.#restart();
  }

  async #restart() {
    this.#restartWanted = false;
    this.#offering = true;
    this.#restartedAt = performance.now();
    try {
      this.#peer.restartIce();
      const sdp = await this.#describe();
      if (!this.#closed) this.#handlers.offer(sdp);
    } catch (cause) {
      this.#offering = false;
      this.#fail(new MotetError("connection_failed", { cause }));
    }
  }

  /**
   * The browser says that the network changed, which is no proof.
   * @returns {Promise<boolean>} whether packets still arrive
   */
  async check() {
    const before = await this.#received();
    await new Promise((resolve) => setTimeout(resolve, CHANGE_CHECK));
    return this.#closed || (await this.#received()) !== before;
  }

  /** Whether packets stopped arriving. */
  get broken() {
    return this.#broken;
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#sampler);
    this.#peer.onconnectionstatechange = null;
    this.#peer.close();
  }

  // Liveness

  #stateChanged() {
    if (this.#peer.connectionState === "connected") this.#setBroken(false);
    // `failed` never mends itself; `disconnected` is noticed earlier, by the samples.
    if (this.#peer.connectionState === "failed") this.#stopped();
  }

  async #sample() {
    const packets = await this.#received();
    if (this.#closed) return;
    // Another pair counts from its own beginning, so any change is a sign of life.
    if (packets >= 0 && packets !== this.#packets) {
      this.#silent = 0;
      this.#restarts = 0;
      this.#restartedAt = -Infinity; // it did what it was for
      this.#setBroken(false);
    } else {
      this.#silent += 1;
      if (this.#silent >= SILENT_SAMPLES) this.#stopped();
    }
    this.#packets = packets;
  }

  /** Nothing arrives. */
  #stopped() {
    this.#setBroken(true);
    if (performance.now() - this.#restartedAt < RESTART_WITHIN || !this.#handlers.ready()) return;
    if (this.#restarts >= RESTARTS) {
      this.#fail(new MotetError("connection_failed"));
      return;
    }
    this.#restarts += 1;
    this.restart();
  }

  /** @param {MotetError} error */
  #fail(error) {
    if (this.#closed) return;
    this.close();
    this.#handlers.failed(error);
  }

  /** @param {boolean} broken */
  #setBroken(broken) {
    if (this.#closed || this.#broken === broken) return;
    this.#broken = broken;
    this.#handlers.broken(broken);
  }

  /** @returns {Promise<number>} what the chosen candidate pair has received so far; -1 when there is none */
  async #received() {
    if (this.#closed) return -1;
    const report = await this.#peer.getStats();
    /** @type {any} */ let chosen;
    /** @type {string | undefined} */ let id;
    for (const stats of report.values()) {
      if (stats.type === "transport" && stats.selectedCandidatePairId) id = stats.selectedCandidatePairId;
      if (stats.type === "candidate-pair" && stats.selected) chosen = stats; // Firefox
    }
    if (id !== undefined) chosen = report.get(id);
    return chosen ? (chosen.packetsReceived ?? chosen.bytesReceived ?? -1) : -1;
  }
}
