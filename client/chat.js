// What is said in the room: in the server's order, each message once, also across reconnects and new sessions.

import { MotetError } from "./errors.js";

/** @import { ClientMessage, ErrorMessage, ParticipantId, SaidInfo } from "./protocol.d.ts" */
/** @import { ChatMessage } from "./types.d.ts" */

/**
 * @typedef {object} ChatHost
 * @property {(message: ClientMessage) => number | undefined} send `undefined`: not in the room now
 * @property {(message: ClientMessage) => void} mention said now or never
 * @property {() => ParticipantId} me
 * @property {(message: ChatMessage) => void} said
 */

/** Messages kept for the page. Higher lets people read further back, lower bounds what a long call takes. */
const MOST = 1000;
/** ms between two hints that one is writing. */
const TYPING_EVERY = 3000;

/** What was sent and not yet heard back. @typedef {{ text: string, to: ParticipantId | undefined, number: number | undefined,
 *   resolve: (message: ChatMessage) => void, reject: (error: MotetError) => void }} Pending */

export class Chat {
  /** Oldest first. @readonly @type {ChatMessage[]} */ messages = [];

  /** @type {ChatHost} */ #host;
  /** By key. @type {Map<string, Pending>} */ #pending = new Map();
  /** Keys of our own messages, whatever participant we were then. @type {Set<string>} */ #mine = new Set();
  #last = 0;
  #typed = -TYPING_EVERY;
  #closed = false;

  /** @param {ChatHost} host */
  constructor(host) {
    this.#host = host;
  }

  /**
   * @param {string} text
   * @param {{ to?: ParticipantId | { readonly id: ParticipantId } }} [options] `to`: to one participant only
   * @returns {Promise<ChatMessage>} when the room heard it; while the connection is down it waits
   */
  send(text, { to } = {}) {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new MotetError("closed");
      const key = randomKey();
      const pending = { text, to: typeof to === "object" ? to.id : to, number: undefined, resolve, reject };
      this.#mine.add(key);
      this.#pending.set(key, pending);
      this.#typed = -TYPING_EVERY;
      this.#say(key, pending);
    });
  }

  /** One is writing: to be called at every key. @param {{ to?: ParticipantId | { readonly id: ParticipantId } }} [options] */
  typing({ to } = {}) {
    const now = performance.now();
    if (now - this.#typed < TYPING_EVERY) return;
    this.#typed = now;
    this.#host.mention({ t: "typing", to: typeof to === "object" ? to.id : to });
  }

  /**
   * A session began, the first or another; what is not known to have arrived is said again, under its old key.
   * @param {SaidInfo[]} history
   */
  entered(history) {
    // Numbers that begin anew belong to a room that was made anew.
    if ((history.at(-1)?.id ?? 0) < this.#last) this.#last = 0;
    for (const said of history) this.received(said);
    for (const [key, pending] of this.#pending) this.#say(key, pending);
  }

  /** @param {SaidInfo} said */
  received({ id, from, name, to, text, key, at }) {
    const known = id <= this.#last || (key !== undefined && this.messages.some((one) => one.key === key && one.from === from));
    this.#last = Math.max(this.#last, id);
    if (known || text === undefined) return; // sealed: this client has no key
    const mine = (key !== undefined && this.#mine.has(key)) || from === this.#host.me();
    const message = { id, from, name, to: to ?? null, text, key, at: new Date(at), mine };
    this.messages.push(message);
    if (this.messages.length > MOST) this.messages.shift();
    this.#host.said(message);
    if (key === undefined) return;
    this.#pending.get(key)?.resolve(message);
    this.#pending.delete(key);
  }

  /** @param {ErrorMessage} error @returns {boolean} whether it was about something said */
  refused(error) {
    for (const [key, { number, reject }] of this.#pending) {
      if (number === undefined || number !== error.id) continue;
      this.#pending.delete(key);
      reject(new MotetError(error.reason, error));
      return true;
    }
    return false;
  }

  close() {
    this.#closed = true;
    for (const { reject } of this.#pending.values()) reject(new MotetError("closed"));
    this.#pending.clear();
  }

  /** @param {string} key @param {Pending} pending */
  #say(key, pending) {
    pending.number = this.#host.send({ t: "chat", text: pending.text, key, to: pending.to });
  }
}

/** Not `randomUUID`, which insecure pages lack. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
