// What we publish: our tracks, what the server was told of them, and which of their encodings anybody watches.

import { LocalTrack } from "./track.js";

/** @import { DeviceChoice } from "./types.d.ts" */
/** @import { ClientMessage, Layers, Mid, Publish, PublicationId, Source } from "./protocol.d.ts" */
/** @import { Sending } from "./track.js" */

/**
 * @typedef {object} PublishingHost
 * @property {(source: Source, choice: DeviceChoice) => Promise<MediaStreamTrack>} open
 * @property {(source: Source) => RTCRtpSender[]} senders
 * @property {(source: Source) => Mid | null} mid of the section, `null` before there is one
 * @property {(message: ClientMessage) => number | undefined} send `undefined` while we are not in the room
 * @property {(track: LocalTrack) => void} changed
 */

export class Publishing {
  /** @readonly @type {LocalTrack} */ camera;
  /** @readonly @type {LocalTrack} */ microphone;
  /** @readonly @type {LocalTrack[]} */ tracks;

  /** @type {PublishingHost} */ #host;
  /** Tracks by the number of the `publish` that the server has not yet obeyed. @type {Map<number, LocalTrack>} */
  #asked = new Map();
  /** Of our pictures, the encodings that somebody watches. @type {Layers["publications"]} */ #layers = {};

  /** @param {PublishingHost} host */
  constructor(host) {
    this.#host = host;
    const ours = {
      open: host.open,
      /** @param {LocalTrack} track */
      senders: (track) => host.senders(track.source),
      /** @param {LocalTrack} track */
      announce: (track) => this.#announce(track),
      changed: host.changed,
    };
    this.camera = new LocalTrack("camera", ours);
    this.microphone = new LocalTrack("microphone", ours);
    this.tracks = [this.microphone, this.camera];
  }

  /** @param {Source} source */
  of(source) {
    return this.tracks.find((track) => track.source === source);
  }

  /** What a section is to send. @param {Source} source @returns {Sending} */
  sending(source) {
    return this.of(source)?.sending ?? { track: null, layers: null };
  }

  /** There is another connection. */
  async rebind() {
    for (const track of this.tracks) await track.rebind();
  }

  /** A new session begins, in which nothing is published and nothing known. */
  begin() {
    this.#asked.clear();
    this.#layers = {};
    for (const track of this.tracks) {
      // A microphone that is muted but open is published too: unmuting it must not take a round trip.
      const publish = track.track !== null || track.told !== null;
      track.publication = null;
      track.told = publish ? track.muted : null;
      track.watched(null);
    }
  }

  /** Everything that is or should be published, for `hello` and for a new transport. @returns {Publish[]} */
  everything() {
    return this.tracks.flatMap((track) => {
      const mid = this.#host.mid(track.source);
      if (mid === null || track.told === null) return [];
      track.told = track.muted;
      return [{ mid, kind: track.kind, source: track.source, muted: track.muted }];
    });
  }

  /** Tells the server whatever it does not know yet. */
  announce() {
    for (const track of this.tracks) this.#announce(track);
  }

  /** The server named a track's publication. @param {LocalTrack} track @param {PublicationId} id */
  published(track, id) {
    track.publication = id;
    this.#watched(track);
    for (const [number, other] of this.#asked) {
      if (other === track) this.#asked.delete(number);
    }
    this.#announce(track);
  }

  /** A message of ours failed, perhaps a `publish`. @param {number} number */
  refused(number) {
    const track = this.#asked.get(number);
    if (track) track.told = null; // turning it on again asks again
    this.#asked.delete(number);
  }

  /** @param {Layers["publications"]} layers */
  watched(layers) {
    this.#layers = layers;
    for (const track of this.tracks) this.#watched(track);
  }

  close() {
    for (const track of this.tracks) track.close();
  }

  /** @param {LocalTrack} track */
  #watched(track) {
    if (track.kind === "video") track.watched(this.#layers[track.publication ?? 0] ?? null);
  }

  /** @param {LocalTrack} track */
  #announce(track) {
    if (track.told === null) {
      const mid = this.#host.mid(track.source);
      if (!track.on || mid === null) return;
      const { kind, source } = track;
      const number = this.#host.send({ t: "publish", publish: [{ mid, kind, source, muted: false }] });
      if (number === undefined) return;
      track.told = false;
      this.#asked.set(number, track);
    } else if (track.publication !== null && track.told !== track.muted) {
      const { publication, muted } = track;
      if (this.#host.send({ t: "mute", publication, muted }) !== undefined) track.told = muted;
    }
  }
}
