// One peer connection: its sections, its offers, and noticing when nothing arrives any more.

import { MotetError } from "./errors.js";
import { Slots } from "./slots.js";
import { arrange } from "./track.js";

/** @import { Mid, Source } from "./protocol.d.ts" */
/** @import { Sending } from "./track.js" */

/**
 * @typedef {object} ConnectionHandlers
 * @property {(sdp: string) => number} offer an offer is to be sent; the answer comes to `answered`. Returns the message's number
 * @property {() => boolean} ready whether an offer can be sent now: one made while the machine is offline knows no
 *   addresses
 * @property {(source: Source) => Sending} sending what a section is to send
 * @property {() => void} changed packets stopped arriving, or arrive again
 * @property {(frames: ReadonlyMap<Mid, number>) => void} sampled once a second, the frames that each slot has decoded
 * @property {(error: MotetError) => void} failed no restart helps: make a new connection
 */

/** Voices that an ear can tell apart. */
const VOICES = 8;
/**
 * Slots for pictures: nine fill a screen. They grow by steps, so that a filling room costs three more offers and not forty; beyond
 * the last one pages.
 */
export const STEPS = [9, 16, 25, 49];
/** ms between samples of the candidate pair. Higher notices a dead path later, lower costs CPU in big calls. */
const SAMPLE_EVERY = 1000;
/** Samples without a packet: the server sends at least every 500 ms. */
const SILENT_SAMPLES = 2;
/** ms after the browser reports a change of network within which something must arrive. */
const CHANGE_CHECK = 600;
/** ms for a restart to bring packets before the connection is given up. */
const RESTART_WITHIN = 5000;

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
  /** The transport's number in the session. @readonly @type {number} */ number;
  /** The receiving sections, known after the first offer. @readonly */ slots = new Slots();
  /** The number of the message with the last offer. */ offered = 0;

  /** @type {RTCPeerConnection} */ #peer;
  /** @type {ConnectionHandlers} */ #handlers;
  /** @type {Map<Source, RTCRtpTransceiver>} */ #sending = new Map();
  /** @type {RTCRtpTransceiver[]} */ #receiving = [];

  /** Pictures that there should be slots for, and may be. */ #pictures = 0;
  #most = STEPS.at(-1) ?? 0;
  /** An offer was made and not yet answered. */ #offering = false;
  /** It restarts ICE. */ #restarting = false;
  /** The next offer is wanted as soon as this one is answered. */ #restartWanted = false;
  /** Sections that were never answered. @type {RTCRtpTransceiver[]} */ #added = [];
  #closed = false;

  /** @type {ReturnType<typeof setInterval> | undefined} */ #sampler;
  #packets = -1;
  #silent = 0;
  #broken = false;
  #proved = false;
  /** A restart was tried since packets last arrived, and whether that was the end of our wisdom. */ #tried = false;
  #failed = false;
  /** When the path was last made anew, which needs its time; long ago once something has arrived on it. */ #restartedAt = -Infinity;

  /**
   * @param {(configuration: RTCConfiguration) => RTCPeerConnection} createPeer
   * @param {ConnectionHandlers} handlers
   * @param {number} number
   * @param {number} pictures for how many there should be slots
   */
  constructor(createPeer, handlers, number, pictures) {
    this.number = number;
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
    this.#receive("audio", VOICES);
    this.#pictures = this.#step(pictures);
    this.#receive("video", this.#pictures);
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

  /** More receiving sections, offered with the next offer. @param {"audio" | "video"} kind @param {number} count */
  #receive(kind, count) {
    for (let i = 0; i < count; i += 1) this.#added.push(this.#section(kind, { direction: "recvonly" }));
    this.#receiving.push(...this.#added.slice(this.#added.length - count));
  }

  /** @param {number} pictures */
  #step(pictures) {
    return Math.min(this.#most, STEPS.find((step) => step >= pictures) ?? this.#most);
  }

  /** Sections that are never taken back: an empty slot costs nothing. */
  get #videos() {
    return this.#receiving.filter(({ receiver }) => receiver.track.kind === "video").length;
  }

  /** @param {Source} source @returns {RTCRtpSender | null} */
  sender(source) {
    return this.#closed ? null : (this.#sending.get(source)?.sender ?? null);
  }

  /** Known after the first offer. @param {Source} source @returns {Mid | null} */
  mid(source) {
    return this.#sending.get(source)?.mid ?? null;
  }

  /** Whether it ever reached the server. */
  get proved() {
    return this.#proved;
  }

  /** Whether packets stopped arriving. */
  get broken() {
    return this.#broken || this.#closed;
  }

  // Offers: one in flight at a time

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
    for (const { mid, receiver } of this.#receiving) if (mid !== null) this.slots.add(mid, receiver);
    return offer.sdp ?? "";
  }

  /** @param {string} sdp @returns {Promise<void>} rejects when the browser does not take the answer */
  async answered(sdp) {
    if (this.#closed || !this.#offering) return;
    try {
      await this.#peer.setRemoteDescription({ type: "answer", sdp });
    } catch (cause) {
      throw new MotetError("protocol", { hint: "The browser did not accept the server's answer.", cause });
    }
    this.#added = [];
    // Chromium makes all encodings active again when simulcast is first answered.
    for (const [source, { sender }] of this.#sending) await arrange(sender, () => this.#handlers.sending(source));
    if (this.#closed) return;
    this.#offering = false;
    if (!this.#sampler) this.#restartedAt = performance.now();
    this.#sampler ??= setInterval(() => void this.#sample(), SAMPLE_EVERY);
    await this.#renegotiate();
  }

  /**
   * The server refused our offer: the connection is as it was before.
   * @param {number} [retryMs] when to offer again
   */
  async refused(retryMs) {
    if (!this.#offering || this.#closed) return;
    if (!this.#sampler) throw new MotetError("connection_failed");
    await this.#peer.setLocalDescription({ type: "rollback" });
    if (retryMs === undefined) {
      // So many sections are too many, now and later.
      for (const transceiver of this.#added) transceiver.stop();
      this.#receiving = this.#receiving.filter((transceiver) => !this.#added.includes(transceiver));
      if (this.#added.length > 0) this.#most = this.#pictures = this.#videos;
      this.#added = [];
    }
    const again = this.#restarting;
    this.#offering = this.#restarting = false;
    if (retryMs === undefined) {
      await this.#renegotiate();
    } else {
      setTimeout(() => {
        this.#restartWanted ||= again;
        void this.#renegotiate();
      }, retryMs);
    }
  }

  /** New addresses on both sides, the same keys. Media flows on until the new path is chosen. */
  restart() {
    if (this.#closed || !this.#sampler) return; // the first connection is still being made
    this.#restartWanted = true;
    void this.#renegotiate();
  }

  /** Slots for so many pictures, if there are fewer. @param {number} pictures */
  grow(pictures) {
    const step = this.#step(pictures);
    if (step <= this.#pictures) return;
    this.#pictures = step;
    void this.#renegotiate();
  }

  /** One offer for all that waits for one. */
  async #renegotiate() {
    if (this.#closed || !this.#sampler || this.#offering) return;
    const missing = this.#pictures - this.#videos;
    if (!this.#restartWanted && missing <= 0 && this.#added.length === 0) return;
    this.#offering = true;
    this.#restarting = this.#restartWanted;
    this.#restartWanted = false;
    try {
      if (this.#restarting) {
        this.#restartedAt = performance.now();
        this.#peer.restartIce();
      }
      this.#receive("video", Math.max(0, missing));
      const sdp = await this.#describe();
      if (!this.#closed) this.offered = this.#handlers.offer(sdp);
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
    const before = (await this.#statistics()).packets;
    await new Promise((resolve) => setTimeout(resolve, CHANGE_CHECK));
    return this.#closed || (await this.#statistics()).packets !== before;
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
    if (this.#peer.connectionState === "connected") {
      this.#proved = true;
      this.#setBroken(false);
      this.#handlers.changed();
    }
    // `failed` never mends itself; `disconnected` is noticed earlier, by the samples.
    if (this.#peer.connectionState === "failed") this.#stopped();
  }

  async #sample() {
    const { packets, frames } = await this.#statistics();
    if (this.#closed) return;
    // Another pair counts from its own beginning, so any change is a sign of life.
    if (packets >= 0 && packets !== this.#packets) {
      this.#silent = 0;
      this.#tried = this.#failed = false;
      this.#restartedAt = -Infinity; // it did what it was for
      this.#setBroken(false);
      this.#handlers.sampled(frames);
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
    if (this.#tried) {
      this.#fail(new MotetError("connection_failed"));
    } else if (this.#sampler) {
      this.#tried = true;
      this.restart();
    }
  }

  /** @param {MotetError} error */
  #fail(error) {
    if (this.#closed || this.#failed) return;
    this.#failed = true;
    this.#handlers.failed(error);
  }

  /** @param {boolean} broken */
  #setBroken(broken) {
    if (this.#closed || this.#broken === broken) return;
    this.#broken = broken;
    this.#handlers.changed();
  }

  /**
   * What the chosen candidate pair has received so far, -1 when there is none; and the frames of each slot. One report for both:
   * reports are dear.
   */
  async #statistics() {
    /** @type {Map<Mid, number>} */
    const frames = new Map();
    if (this.#closed) return { packets: -1, frames };
    const report = await this.#peer.getStats();
    /** @type {any} */ let chosen;
    /** @type {string | undefined} */ let id;
    /** @type {Map<string, number>} */ const decoded = new Map();
    for (const stats of report.values()) {
      if (stats.type === "transport" && stats.selectedCandidatePairId) id = stats.selectedCandidatePairId;
      if (stats.type === "candidate-pair" && stats.selected) chosen = stats; // Firefox
      if (stats.type === "inbound-rtp" && stats.kind === "video") decoded.set(stats.trackIdentifier, stats.framesDecoded ?? 0);
    }
    for (const { mid, track } of this.slots.all()) frames.set(mid, decoded.get(track.id) ?? 0);
    if (id !== undefined) chosen = report.get(id);
    return { packets: chosen ? (chosen.packetsReceived ?? chosen.bytesReceived ?? -1) : -1, frames };
  }
}
