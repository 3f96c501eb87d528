// What to ask of the server: pictures as large as they are shown, and none while nobody looks.

/** @import { PublicationId, Source, WantState, Wish } from "./protocol.d.ts" */

/**
 * @typedef {object} WantEnvironment
 * @property {Document | undefined} document
 * @property {typeof ResizeObserver | undefined} ResizeObserver
 * @property {() => number} pixelRatio
 */

/** ms between a change of layout and the message. Higher shows small pictures longer, lower sends more while dragging. */
const DEBOUNCE = 100;
/** ms that a page stays hidden before it gives up its pictures: changing tabs for a moment costs nothing. */
const DEBOUNCE_HIDDEN = 1000;
/** For publications that were never shown: a middle layer arrives at once, and is corrected when its size is known. */
const DEFAULT_HEIGHT = 360;
/** No encoding is larger. */
const MOST_HEIGHT = 4320;
/** The screen is what people look at. */
const SCREEN_PRIORITY = 10;

export class Wants {
  /** @type {Map<PublicationId, { elements: Set<HTMLMediaElement>, source: Source }>} */ #shown = new Map();
  /** Which voices, and how many of the last speakers' cameras. @type {Pick<WantState, "audio" | "video">} */ #choice = {};
  /** @type {(want: WantState) => void} */ #send;
  /** @type {WantEnvironment} */ #environment;
  /** @type {ResizeObserver | null} */ #observer;
  #n = 0;
  #last = "";
  #hidden = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /** @param {(want: WantState) => void} send @param {WantEnvironment} environment */
  constructor(send, environment) {
    this.#send = send;
    this.#environment = environment;
    const { ResizeObserver } = environment;
    this.#observer = ResizeObserver ? new ResizeObserver(() => this.#schedule()) : null;
    environment.document?.addEventListener("visibilitychange", this.#visibility);
    this.#hidden = environment.document?.hidden ?? false;
  }

  /** @param {PublicationId} publication @param {HTMLMediaElement} element @param {Source} source */
  add(publication, element, source) {
    const shown = this.#shown.get(publication) ?? { elements: new Set(), source };
    shown.elements.add(element);
    this.#shown.set(publication, shown);
    this.#observer?.observe(element);
    element.addEventListener("resize", this.#resized); // the picture's own size, hence its shape
    this.#schedule();
  }

  /** Shown no more: not wanted, until it is attached again. @param {PublicationId} publication @param {HTMLMediaElement} element */
  remove(publication, element) {
    this.#shown.get(publication)?.elements.delete(element);
    this.#observer?.unobserve(element);
    element.removeEventListener("resize", this.#resized);
    this.#schedule();
  }

  /** @param {PublicationId} publication it exists no more */
  forget(publication) {
    if (this.#shown.delete(publication)) this.#schedule();
  }

  /** @param {Pick<WantState, "audio" | "video">} choice beside the pictures that are shown */
  choose(choice) {
    this.#choice = choice;
    this.#schedule(0);
  }

  /** Whether the server was asked for this picture. @param {PublicationId} publication */
  wants(publication) {
    const shown = this.#shown.get(publication);
    return !this.#hidden && (shown === undefined || shown.elements.size > 0);
  }

  /** The wish as it stands, for `hello`. @returns {WantState} */
  initial() {
    const wish = this.#wish();
    this.#last = JSON.stringify(wish);
    return { n: ++this.#n, ...wish };
  }

  close() {
    clearTimeout(this.#timer);
    this.#observer?.disconnect();
    this.#environment.document?.removeEventListener("visibilitychange", this.#visibility);
    for (const { elements } of this.#shown.values()) {
      for (const element of elements) element.removeEventListener("resize", this.#resized);
    }
    this.#shown.clear();
  }

  #resized = () => this.#schedule();

  #visibility = () => {
    const hidden = this.#environment.document?.hidden ?? false;
    this.#schedule(hidden ? DEBOUNCE_HIDDEN : 0);
  };

  /** @param {number} [after] ms */
  #schedule(after = DEBOUNCE) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#hidden = this.#environment.document?.hidden ?? false;
      const wish = this.#wish();
      const text = JSON.stringify(wish);
      if (text === this.#last) return;
      this.#last = text;
      this.#send({ n: ++this.#n, ...wish });
    }, after);
  }

  /** @returns {Omit<WantState, "n">} */
  #wish() {
    const { audio, video } = this.#choice;
    const voices = audio === undefined ? {} : { audio };
    if (this.#hidden) return { default: { height: 0, priority: 0 }, publications: {}, ...voices };
    /** @type {Record<string, Wish>} */
    const publications = {};
    const byDefault = { height: DEFAULT_HEIGHT, priority: 0 };
    let largest = 0;
    for (const [id, { elements, source }] of this.#shown) {
      const exact = Math.max(0, ...[...elements].map((element) => this.#height(element)));
      const height = Math.min(MOST_HEIGHT, Math.ceil(exact));
      // A camera that is named is sent whoever speaks, so the last speakers' are asked for by a size for all.
      if (video && source === "camera") largest = Math.max(largest, height);
      else publications[id] = { height, priority: source === "screen" ? SCREEN_PRIORITY : 0 };
    }
    if (largest > 0) byDefault.height = largest;
    return { default: byDefault, publications, ...voices, ...(video && { video }) };
  }

  /**
   * The height in physical pixels at which the whole picture is drawn, whatever part of it the element shows.
   * @param {HTMLMediaElement} element
   */
  #height(element) {
    const { clientWidth, clientHeight } = element;
    const { videoWidth, videoHeight } = /** @type {HTMLVideoElement} */ (element);
    const byWidth = clientWidth * (videoWidth ? videoHeight / videoWidth : 9 / 16);
    const fit = globalThis.getComputedStyle?.(element).objectFit;
    const height = fit === "cover" ? Math.max(clientHeight, byWidth) : Math.min(clientHeight, byWidth);
    return height * this.#environment.pixelRatio();
  }
}
