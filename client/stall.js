// Pictures that stopped without a reason: told to the server, which knows the cheapest cure.

/** @import { Mid } from "./protocol.d.ts" */
/** @import { Slot } from "./slots.js" */

/** ms without a new frame. Lower takes a hiccup of the network for a stall, higher shows frozen faces longer. */
const STALLED = 1500;
/** ms between two complaints about one slot: the server acts once a second, and a cure needs a round trip and a keyframe. */
const AGAIN = 2000;

export class Stalls {
  /** @type {Map<Mid, { publication: number | null, frames: number, since: number, told: number }>} */ #seen = new Map();

  /**
   * One sample of all picture slots.
   * @param {Iterable<Slot>} slots
   * @param {ReadonlyMap<Mid, number>} frames decoded so far
   * @param {(slot: Slot) => boolean} due whether new frames should be arriving
   * @param {number} now ms
   * @returns {{ slot: Mid, ms: number }[]} what is to be said
   */
  sample(slots, frames, due, now) {
    const stalled = [];
    for (const slot of slots) {
      if (slot.kind !== "video") continue;
      const decoded = frames.get(slot.mid) ?? 0;
      const publication = slot.publication ?? slot.coming;
      const seen = this.#seen.get(slot.mid);
      if (!seen || seen.publication !== publication || seen.frames !== decoded || !due(slot)) {
        this.#seen.set(slot.mid, { publication, frames: decoded, since: now, told: -Infinity });
      } else if (now - seen.since >= STALLED && now - seen.told >= AGAIN) {
        seen.told = now;
        stalled.push({ slot: slot.mid, ms: Math.round(now - seen.since) });
      }
    }
    return stalled;
  }
}
