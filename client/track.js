// A track of ours: opened, sent on its section, muted, closed. Off means off: no packet leaves, no lamp burns.

import { MotetError, deviceError } from "./errors.js";

/** @import { DeviceChoice } from "./types.d.ts" */
/** @import { Kind, PublicationId, Source } from "./protocol.d.ts" */

/**
 * What a LocalTrack needs from the room around it.
 * @typedef {object} TrackHost
 * @property {(source: Source, choice: DeviceChoice) => Promise<MediaStreamTrack>} open
 * @property {(track: LocalTrack) => RTCRtpSender[]} senders of all connections: two while one takes over from another
 * @property {(track: LocalTrack) => void} announce tell the server what it does not know yet of `muted`
 * @property {(track: LocalTrack) => void} changed
 */

/** @typedef {"off" | "starting" | "on"} TrackState */

/**
 * What a section is to send.
 * @typedef {object} Sending
 * @property {MediaStreamTrack | null} track
 * @property {readonly number[] | null} layers the encodings that somebody watches; `null`: all of them
 */

export class LocalTrack {
  /** @readonly @type {Source} */ source;
  /** @readonly @type {Kind} */ kind;
  /** The open device; `null` while it is closed. @type {MediaStreamTrack | null} */ track = null;
  /** @type {TrackState} */ state = "off";
  /** Why it is off, when nobody turned it off. @type {MotetError | null} */ error = null;
  /** Once the server has named it. @type {PublicationId | null} */ publication = null;
  /** What the server was last told about `muted`; `null`: not published in this session. @type {boolean | null} */
  told = null;
  /** @type {readonly number[] | null} */ #layers = null;

  /** @type {TrackHost} */ #host;
  /** What is wished for; the work follows it. @type {DeviceChoice} */ #wished = false;
  /** @type {Promise<void> | null} */ #working = null;
  /** To open the same device again. @type {string | undefined} */ #deviceId;

  /** @param {Source} source @param {TrackHost} host */
  constructor(source, host) {
    this.source = source;
    this.kind = source === "camera" || source === "screen" ? "video" : "audio";
    this.#host = host;
  }

  get on() {
    return this.state === "on";
  }

  get muted() {
    return this.state !== "on";
  }

  /**
   * Turns it on or off. Whoever calls again before it is done changes the wish; both calls end when the last
   * wish is fulfilled.
   * @param {DeviceChoice} choice a track given here belongs to the room from now on: it is stopped when turned off
   * @returns {Promise<void>} rejects with a MotetError when the device does not open
   */
  set(choice) {
    this.#wished = choice;
    // Privacy does not wait for its turn.
    if (!choice && this.track) this.track.enabled = false;
    this.#working ??= this.#work().finally(() => {
      this.#working = null;
    });
    return this.#working;
  }

  /** What its sections are to send now. @returns {Sending} */
  get sending() {
    return { track: this.on ? this.track : null, layers: this.#layers };
  }

  /**
   * Puts what is open on the section of a new connection.
   * @returns {Promise<void>}
   */
  rebind() {
    return this.#send();
  }

  /**
   * Which encodings somebody watches, 0 the largest; `null`: nothing is known, so all. The device stays open whatever it is.
   * @param {readonly number[] | null} layers
   */
  watched(layers) {
    if (String(layers) === String(this.#layers)) return;
    this.#layers = layers;
    this.#send().catch(() => {}); // a connection that is being closed: the next begins with what holds then
  }

  /** The room is left: close the device. */
  close() {
    this.#wished = false;
    this.#release();
    this.state = "off";
  }

  async #work() {
    /** @type {DeviceChoice | undefined} */
    let done;
    while (done !== this.#wished) {
      const wish = this.#wished;
      try {
        if (wish) await this.#turnOn(wish);
        else await this.#turnOff();
      } catch (thrown) {
        if (wish !== this.#wished) continue; // nobody waits for this any more
        this.#wished = false;
        this.error = deviceError(thrown);
        await this.#turnOff();
        throw this.error;
      }
      done = wish;
    }
  }

  /** @param {Exclude<DeviceChoice, false>} wish */
  async #turnOn(wish) {
    this.error = null;
    const reuse = wish === true && this.track?.readyState === "live";
    if (!reuse) {
      this.#become("starting");
      const choice = wish === true && this.#deviceId ? { deviceId: { ideal: this.#deviceId } } : wish;
      const track = await this.#host.open(this.source, choice);
      if (wish !== this.#wished) {
        track.stop();
        return;
      }
      this.#adopt(track);
    }
    if (!this.track) return;
    this.track.enabled = true;
    this.#become("on");
    // The server first: it drops what a muted publication sends, and the first frame is a keyframe.
    this.#host.announce(this);
    await this.#send();
    this.#host.changed(this);
  }

  async #turnOff() {
    // Said at once: the browser may take its time to do its part.
    this.#become("off");
    // The microphone stays open, so that unmuting is instant; cameras have a lamp.
    if (this.source !== "microphone") this.#release();
    this.#host.announce(this);
    try {
      await this.#send();
    } finally {
      this.#host.changed(this);
    }
  }

  /** @param {TrackState} state */
  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.#host.changed(this);
  }

  /** @param {MediaStreamTrack} track */
  #adopt(track) {
    this.#release();
    this.track = track;
    this.#deviceId = track.getSettings?.().deviceId ?? this.#deviceId;
    if (this.source === "screen") track.contentHint = "detail";
    track.onended = () => this.#ended(track);
  }

  #release() {
    const track = this.track;
    this.track = null;
    if (!track) return;
    track.onended = null;
    track.stop();
  }

  /**
   * The device went away. A microphone is replaced by whatever the system offers now, so that the call goes on;
   * another camera might show another room, so that is left to the person.
   * @param {MediaStreamTrack} track
   */
  #ended(track) {
    if (track !== this.track) return;
    this.#release();
    this.#deviceId = undefined;
    const replace = this.source === "microphone" && this.on;
    if (replace) {
      this.state = "starting";
      this.set({}).catch(() => {}); // the error is kept in `error` and shown by `changed`
    } else {
      // Screen sharing is ended by the browser's own button: that is no failure.
      if (this.source === "camera" || this.source === "microphone") this.error = new MotetError("device_ended");
      this.set(false).catch(() => {});
    }
  }

  /** Makes all its sections send what is wished for. */
  async #send() {
    await Promise.all(this.#host.senders(this).map((sender) => arrange(sender, () => this.sending).catch((error) => {
      // One of a connection that was given up meanwhile is of no interest.
      if (this.#host.senders(this).includes(sender)) throw error;
    })));
  }
}

/** What each sender is still being made to do. @type {WeakMap<RTCRtpSender, Promise<void>>} */
const arranging = new WeakMap();

/**
 * Makes a section send what is wished for when its turn comes. One change after the other: browsers refuse parameters that were
 * read before the last ones were set.
 * Without a track the encodings must be inactive too: otherwise browsers go on sending megabytes of padding.
 * @param {RTCRtpSender} sender
 * @param {() => Sending} wish
 * @returns {Promise<void>}
 */
export function arrange(sender, wish) {
  const turn = (arranging.get(sender) ?? Promise.resolve()).catch(() => {}).then(async () => {
    const { track, layers } = wish();
    if (track && sender.track !== track) await sender.replaceTrack(track);
    await activate(sender, (encoding) => track !== null && (layers === null || layers.includes(encoding)));
    if (!track && sender.track) await sender.replaceTrack(null);
  });
  arranging.set(sender, turn);
  return turn;
}

/** @param {RTCRtpSender} sender @param {(encoding: number) => boolean} wanted */
async function activate(sender, wanted) {
  const parameters = sender.getParameters();
  let changed = false;
  parameters.encodings.forEach((encoding, i) => {
    changed ||= (encoding.active ?? true) !== wanted(i);
    encoding.active = wanted(i);
  });
  if (changed) await sender.setParameters(parameters);
}
