// Who is in the room and what each publishes. A publication follows its slot wherever the server binds it.

import { isAtOrAfter } from "./slots.js";

/** @import { Participant as PublicParticipant, Publication as PublicPublication } from "./types.d.ts" */
/** @import { Kind, ParticipantInfo, PublicationId, PublicationInfo, Source } from "./protocol.d.ts" */

/** ms between two looks at whose packets a picture is made of. Higher shows a wrong name longer where the server's word came late, lower costs CPU. */
const WITNESS_EVERY = 250;

/**
 * What carries a publication now.
 * @typedef {object} Binding
 * @property {MediaStreamTrack} track
 * @property {number | undefined} [fromTs]
 * @property {number | undefined} [layer]
 * @property {string | undefined} [why]
 * @property {() => PublicationId | undefined} [witness] whose packets are played now, as far as the browser knows
 */

/**
 * @typedef {object} PublicationHost
 * @property {(publication: Publication) => void} changed
 * @property {(publication: Publication, element: HTMLMediaElement, attached: boolean) => void} attached
 */

/** @implements {PublicParticipant} */
export class Participant {
  /** @type {string} */ id;
  name = "";
  away = false;
  speaking = false;
  /** @readonly @type {boolean} */ isMe;
  /** @type {Map<PublicationId, Publication>} */ publications = new Map();

  /** @param {ParticipantInfo} info @param {boolean} isMe */
  constructor(info, isMe) {
    this.id = info.id;
    this.isMe = isMe;
    this.update(info);
  }

  /**
   * @internal
   * @param {ParticipantInfo} info
   * @returns {boolean} whether anything changed
   */
  update(info) {
    const away = info.away ?? false;
    const name = info.name ?? "";
    const changed = this.name !== name || this.away !== away || this.id !== info.id;
    this.id = info.id;
    this.name = name;
    this.away = away;
    return changed;
  }

  get camera() {
    return this.#find("camera");
  }

  get microphone() {
    return this.#find("microphone");
  }

  get screen() {
    return this.#find("screen");
  }

  /** @param {Source} source */
  #find(source) {
    for (const publication of this.publications.values()) {
      if (publication.source === source) return publication;
    }
    return null;
  }
}

/** @implements {PublicPublication} */
export class Publication {
  /** @readonly @type {PublicationId} */ id;
  /** @readonly @type {Participant} */ participant;
  /** @readonly @type {Kind} */ kind;
  /** @readonly @type {Source} */ source;
  muted = false;
  visible = false;
  /** @type {number | null} */ layer = null;
  /** @type {string | null} */ why = null;

  /** @type {PublicationHost} */ #host;
  /** @type {MediaStreamTrack | null} */ #track = null;
  /** @type {MediaStream | null} */ #stream = null;
  /** @type {number | undefined} */ #fromTs;
  /** @type {(() => PublicationId | undefined) | undefined} */ #witness;
  /** Each with the number of its attachment. @type {Map<HTMLMediaElement, number>} */ #elements = new Map();
  #attachments = 0;
  /** Frames asked for in an earlier one say nothing any more. */ #generation = 0;
  /** When the witness was last asked. */ #asked = 0;
  /** It named somebody else: time stamps alone prove nothing then. */ #doubted = false;

  /** @param {PublicationInfo} info @param {Participant} participant @param {PublicationHost} host */
  constructor(info, participant, host) {
    this.id = info.id;
    this.participant = participant;
    this.kind = info.kind;
    this.source = info.source;
    this.muted = info.muted ?? false;
    this.#host = host;
  }

  get track() {
    return this.#track;
  }

  /** @internal Whether any element shows it. */
  get attached() {
    return this.#elements.size > 0;
  }

  /** @param {HTMLMediaElement} element */
  attach(element) {
    if (this.#elements.has(element)) return;
    this.#elements.set(element, ++this.#attachments);
    element.autoplay = true;
    if (this.kind === "video") {
      element.muted = true; // its sound is another publication; and muted video may always play
      element.setAttribute("playsinline", "");
      element.dataset.visible = String(this.visible);
    }
    this.#show(element);
    this.#watch(element);
    this.#host.attached(this, element, true);
  }

  /** @param {HTMLMediaElement} element */
  detach(element) {
    if (!this.#elements.delete(element)) return;
    element.srcObject = null;
    delete element.dataset.visible;
    this.#host.attached(this, element, false);
    if (this.#elements.size === 0) this.#setVisible(false);
  }

  /** @internal @param {PublicationInfo} info @returns {boolean} whether anything changed */
  update(info) {
    const muted = info.muted ?? false;
    if (this.muted === muted) return false;
    this.muted = muted;
    this.#rewatch();
    return true;
  }

  /**
   * @internal
   * @param {Binding | null} binding what carries it now
   */
  bind(binding) {
    const track = binding?.track ?? null;
    const layer = binding?.layer ?? null;
    const why = binding?.why ?? null;
    const moved = track !== this.#track;
    const again = !moved && binding?.fromTs !== this.#fromTs;
    const changed = moved || layer !== this.layer || why !== this.why;
    this.layer = layer;
    this.why = why;
    this.#fromTs = binding?.fromTs;
    this.#witness = binding?.witness;
    const sure = this.#witness?.() === this.id; // it is playing there already, as when one connection takes over from another
    if (moved) {
      this.#track = track;
      this.#stream = track ? new MediaStream([track]) : null;
      for (const element of this.#elements.keys()) this.#show(element);
    }
    if (moved || (again && !sure)) this.#rewatch(moved && sure);
    if (changed) this.#host.changed(this);
  }

  /** @internal It is gone. */
  end() {
    this.bind(null);
    for (const element of [...this.#elements.keys()]) this.detach(element);
  }

  /** @param {HTMLMediaElement} element */
  #show(element) {
    if (element.srcObject === this.#stream) return;
    element.srcObject = this.#stream;
    // Fails when the browser wants a click first, or when the stream is replaced meanwhile: autoplay tries again.
    if (this.#stream) element.play()?.catch(() => {});
  }

  /** @param {boolean} [sure] what is shown now goes on */
  #rewatch(sure = false) {
    this.#generation += 1;
    this.#doubted = false;
    if (!sure) this.#setVisible(false);
    for (const element of this.#elements.keys()) this.#watch(element);
  }

  /**
   * Looks at every frame: after a switch the slot still shows a few of its predecessor's, and when the server's word does not
   * arrive, it may show a successor's.
   * @param {HTMLMediaElement} element
   */
  #watch(element) {
    if (this.kind !== "video" || this.muted || !this.#track) return;
    const generation = this.#generation;
    const attachment = this.#elements.get(element);
    const stale = () => generation !== this.#generation || this.#elements.get(element) !== attachment;
    if ("requestVideoFrameCallback" in element) {
      const next = () => /** @type {HTMLVideoElement} */ (element).requestVideoFrameCallback((_, { rtpTimestamp }) => {
        if (stale()) return;
        this.#framed(rtpTimestamp);
        if (!stale()) next();
      });
      next();
    } else {
      const shown = () => {
        if (stale()) /** @type {HTMLMediaElement} */ (element).removeEventListener("timeupdate", shown);
        else this.#framed(undefined);
      };
      /** @type {HTMLMediaElement} */ (element).addEventListener("timeupdate", shown);
    }
  }

  /** A frame is shown. @param {number | undefined} rtpTimestamp */
  #framed(rtpTimestamp) {
    if (this.visible) {
      const now = performance.now();
      if (now - this.#asked < WITNESS_EVERY) return;
      this.#asked = now;
      const source = this.#witness?.();
      if (source === undefined || source === this.id) return;
      this.#doubted = true;
      this.#setVisible(false);
      return;
    }
    const timed = rtpTimestamp !== undefined && this.#fromTs !== undefined;
    if (timed && !isAtOrAfter(rtpTimestamp, this.#fromTs ?? 0)) return;
    const source = timed && !this.#doubted ? this.id : (this.#witness?.() ?? this.id);
    if (source !== this.id) return;
    this.#doubted = false;
    this.#asked = performance.now(); // the list of sources is late
    this.#setVisible(true);
  }

  /** @param {boolean} visible */
  #setVisible(visible) {
    if (this.visible === visible) return;
    this.visible = visible;
    for (const element of this.#elements.keys()) element.dataset.visible = String(visible);
    this.#host.changed(this);
  }
}
