// What is heard: one audio element for each voice slot, for life, and the browser's permission to play.

/** @import { Slot } from "./slots.js" */

export class Playback {
  /** By the slot's mid. @type {Map<string, { element: HTMLAudioElement, track: MediaStreamTrack }>} */ #elements = new Map();
  /** @type {() => HTMLAudioElement} */ #create;
  /** @type {() => void} */ #blocked;
  #isBlocked = false;

  /** @param {() => HTMLAudioElement} create @param {() => void} blocked playing needs a click first */
  constructor(create, blocked) {
    this.#create = create;
    this.#blocked = blocked;
  }

  /**
   * The slot carries a voice. An element once playing goes on through every change of speaker, and of connection.
   * @param {Slot} slot
   */
  play(slot) {
    const playing = this.#elements.get(slot.mid);
    if (playing?.track === slot.track) return;
    const element = playing?.element ?? this.#create();
    element.autoplay = true;
    element.srcObject = new MediaStream([slot.track]);
    this.#elements.set(slot.mid, { element, track: slot.track });
    this.#start(element).catch(() => {
      if (this.#isBlocked) return;
      this.#isBlocked = true;
      this.#blocked();
    });
  }

  /** To be called while a click is handled. @returns {Promise<void>} */
  async resume() {
    await Promise.all([...this.#elements.values()].map(({ element }) => this.#start(element)));
    this.#isBlocked = false;
  }

  close() {
    for (const { element } of this.#elements.values()) element.srcObject = null;
    this.#elements.clear();
  }

  /** @param {HTMLAudioElement} element @returns {Promise<void>} rejects only when the browser wants a click */
  async #start(element) {
    try {
      await element.play();
    } catch (error) {
      if (error instanceof Error && error.name === "NotAllowedError") throw error;
    }
  }
}
