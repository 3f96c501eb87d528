// The receiving sections of the connection: which publication each carries, as the server's `have` says.

/** @import { HaveState, Kind, Mid, PublicationId } from "./protocol.d.ts" */

/**
 * One receiving section. Its track lives as long as the connection; what it shows changes.
 * @typedef {object} Slot
 * @property {Mid} mid
 * @property {Kind} kind
 * @property {MediaStreamTrack} track
 * @property {PublicationId | null} publication `null`: empty, or decided but not begun
 * @property {number | undefined} fromTs the RTP timestamp at which the publication begins
 * @property {number | undefined} layer
 * @property {string | undefined} why
 */

export class Slots {
  /** @type {Map<Mid, Slot>} */ #slots = new Map();

  /** @param {Mid} mid @param {MediaStreamTrack} track */
  add(mid, track) {
    const kind = track.kind === "audio" ? "audio" : "video";
    this.#slots.set(mid, {
      mid, kind, track, publication: null, fromTs: undefined, layer: undefined, why: undefined,
    });
  }

  /**
   * Takes over the server's statement, which is always about all slots: one that it does not name is empty.
   * A pending slot carries nobody yet: between the decision and the first packet it still shows the last frame of
   * whoever was there before.
   * @param {HaveState} have
   */
  apply(have) {
    const stated = new Map(have.slots.map((state) => [state.slot, state]));
    for (const slot of this.#slots.values()) {
      const state = stated.get(slot.mid);
      slot.publication = state && !state.pending ? state.publication : null;
      slot.fromTs = state?.fromTs;
      slot.layer = state?.layer;
      slot.why = state?.why;
    }
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
 * Whether an RTP timestamp is at or after another. They wrap around every 13 hours at 90 kHz: of two, the later one
 * is less than half the circle ahead.
 * @param {number} timestamp @param {number} reference
 */
export function isAtOrAfter(timestamp, reference) {
  return ((timestamp - reference) | 0) >= 0;
}
