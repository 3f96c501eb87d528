// The receiving sections of the connection: which publication each carries, as the server's `have` says.

/** @import { HaveState, Kind, Mid, PublicationId } from "./protocol.d.ts" */

/**
 * One receiving section. Its track lives as long as the connection; what it shows changes.
 * @typedef {object} Slot
 * @property {Mid} mid
 * @property {Kind} kind
 * @property {RTCRtpReceiver} receiver
 * @property {MediaStreamTrack} track
 * @property {PublicationId | null} publication `null`: empty, or decided but not begun
 * @property {PublicationId | null} coming decided but not begun
 * @property {number | undefined} fromTs the RTP timestamp at which the publication begins
 * @property {number | undefined} layer
 * @property {string | undefined} why
 * @property {() => PublicationId | undefined} witness whose packets it played last
 */

export class Slots {
  /** @type {Map<Mid, Slot>} */ #slots = new Map();

  /** @param {Mid} mid @param {RTCRtpReceiver} receiver */
  add(mid, receiver) {
    if (this.#slots.get(mid)?.receiver === receiver) return;
    const { track } = receiver;
    this.#slots.set(mid, {
      mid, kind: track.kind === "audio" ? "audio" : "video", receiver, track,
      publication: null, coming: null, fromTs: undefined, layer: undefined, why: undefined,
      witness: () => newestSource(receiver),
    });
  }

  /**
   * Takes over the server's statement, which is always about all slots: one that it does not name is empty.
   * A pending slot carries nobody yet: until the first packet it still shows whoever was there before.
   * @param {HaveState} have
   * @returns {boolean} whether a slot became pending: the server waits for our acknowledgement
   */
  apply(have) {
    let pending = false;
    const stated = new Map(have.slots.map((state) => [state.slot, state]));
    for (const slot of this.#slots.values()) {
      const state = stated.get(slot.mid);
      const publication = state?.publication ?? null;
      const coming = state?.pending ? publication : null;
      pending ||= coming !== null && coming !== slot.coming;
      slot.coming = coming;
      slot.publication = coming === null ? publication : null;
      slot.fromTs = state?.fromTs;
      slot.layer = state?.layer;
      slot.why = state?.why;
    }
    return pending;
  }

  /**
   * @param {PublicationId} publication
   * @returns {Slot | undefined}
   */
  of(publication) {
    for (const slot of this.#slots.values()) {
      if (slot.publication === publication) return slot;
    }
    return undefined;
  }

  /** @returns {IterableIterator<Slot>} */
  all() {
    return this.#slots.values();
  }
}

/**
 * Every packet names its publication as its contributing source. The browser lists those of the last ten seconds, 20 to 60 ms
 * late, so only the newest says anything.
 * @param {RTCRtpReceiver} receiver
 * @returns {PublicationId | undefined}
 */
function newestSource(receiver) {
  const sources = receiver.getContributingSources?.() ?? [];
  let newest = sources[0];
  for (const source of sources) if (newest && source.timestamp > newest.timestamp) newest = source;
  return newest?.source;
}

/**
 * Whether an RTP timestamp is at or after another. They wrap around every 13 hours at 90 kHz: of two, the later one
 * is less than half the circle ahead.
 * @param {number} timestamp @param {number} reference
 */
export function isAtOrAfter(timestamp, reference) {
  return ((timestamp - reference) | 0) >= 0;
}
