// The carrier where WebSockets are blocked: requests that wait for an answer, and look like a WebSocket to whoever uses them.

/** @import { Carrier } from "./signal.js" */

/**
 * The part of `fetch` that is used.
 * @typedef {(url: string, init: { method: string, body: string, headers: Record<string, string>, signal: AbortSignal, keepalive: boolean })
 *   => Promise<{ ok: boolean, status: number, text(): Promise<string> }>} Request
 */

/** ms that a request waits for something to be said; its answer is a sign of life. Higher notices a dead network later, lower costs requests. */
const WAIT = 4000;
/** ms that an answer may take beyond that. */
const LATE = 4000;
/** Bytes that browsers send on behalf of a page that is gone are limited to 64 kB in all. */
const KEPT_ALIVE = 8192;
/** Close codes, as a WebSocket has them. */
const LOST = 1006;
const TOO_LARGE = 1009;
const LEFT = 1000;

/**
 * `navigator.sendBeacon`: what outlives its page for certain. A request with `keepalive` should, and is given up all the same.
 * @typedef {(url: string, body: string) => boolean} Beacon
 */

/** @implements {Carrier} */
export class Poll {
  /** @type {Carrier["onopen"]} */ onopen = null;
  /** @type {Carrier["onmessage"]} */ onmessage = null;
  /** @type {Carrier["onclose"]} */ onclose = null;
  /** @type {Carrier["onerror"]} */ onerror = null;
  /** A request is out at all times, so nobody else need ask whether this lives. @readonly */ proves = true;

  /** @type {string} */ #url;
  /** @type {Request} */ #request;
  /** @type {Beacon | undefined} */ #beacon;
  /** The carrier's secret, once the server has named it. */ #id = "";
  /** @type {string[]} */ #queue = [];
  /** What is on its way up. @type {string[]} */ #flying = [];
  /** Messages are on their way up: one request at a time keeps their order. */ #sending = false;
  #waiting = false;
  #closed = false;
  #waiter = new AbortController();
  #sender = new AbortController();

  /** @param {string} url @param {Request} request @param {Beacon} [beacon] */
  constructor(url, request, beacon) {
    this.#url = url;
    this.#request = request;
    this.#beacon = beacon;
    // There is nothing to open: the first message is the first request.
    queueMicrotask(() => {
      if (!this.#closed) this.onopen?.call(/** @type {any} */ (this), new Event("open"));
    });
  }

  /** @param {string} text */
  send(text) {
    if (this.#closed) return;
    this.#queue.push(text);
    void this.#up();
  }

  /** @param {number} [code] */
  close(code) {
    if (this.#closed) return;
    this.#closed = true;
    this.#waiter.abort();
    if (code !== LEFT) this.#sender.abort();
    else if (this.#id) this.#lastWords();
  }

  /** The last word of a carrier that seems lost. @param {string} text */
  farewell(text) {
    if (this.#id) this.#beacon?.(`${this.#url}?timeoutms=0`, [this.#header(), text].join("\n"));
  }

  /** The page may be going away: whatever the server has not got for certain is said again, which it notices. */
  #lastWords() {
    const lines = [this.#header(), ...this.#flying, ...this.#queue.splice(0)];
    if (lines.length === 1 || this.#beacon?.(`${this.#url}?timeoutms=0`, lines.join("\n"))) return;
    void this.#ask(lines.join("\n"), 0, this.#sender.signal).catch(() => {});
  }

  #header() {
    return JSON.stringify({ t: "poll", id: this.#id });
  }

  /** Sends what is to be sent. Nothing is said in the answers, except in the first. */
  async #up() {
    if (this.#sending) return;
    this.#sending = true;
    while (!this.#closed && this.#queue.length > 0) {
      this.#flying = this.#queue.splice(0);
      const lines = [...(this.#id ? [this.#header()] : []), ...this.#flying];
      await this.#exchange(lines.join("\n"), this.#id ? 0 : WAIT, this.#sender.signal);
      this.#flying = [];
      void this.#wait();
    }
    this.#sending = false;
  }

  /** Hears what the server says: in the answers of one request after another, so that its order is kept. */
  async #wait() {
    if (this.#waiting) return;
    this.#waiting = true;
    while (!this.#closed && this.#id) await this.#exchange(this.#header(), WAIT, this.#waiter.signal);
    this.#waiting = false;
  }

  /** @param {string} body @param {number} wait @param {AbortSignal} signal */
  async #exchange(body, wait, signal) {
    const timer = setTimeout(() => this.#end(), wait + LATE);
    const mine = this.#id !== "";
    try {
      const { ok, status, text } = await this.#ask(body, wait, signal);
      // What the server says of a carrier that it forgot is not about the session.
      if (ok || !mine) for (const line of text.split("\n")) this.#say(line);
      if (!ok) this.#end(status === 413 ? TOO_LARGE : LOST);
    } catch {
      this.#end();
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param {string} body @param {number} wait @param {AbortSignal} signal */
  async #ask(body, wait, signal) {
    const answer = await this.#request(`${this.#url}?timeoutms=${wait}`, {
      method: "POST", body, signal, // plain text, so that browsers ask no other server's permission first
      headers: { "content-type": "text/plain" },
      keepalive: wait === 0 && body.length < KEPT_ALIVE, // the last words are said while the page goes away
    });
    return { ok: answer.ok, status: answer.status, text: await answer.text() };
  }

  /** @param {string} line */
  #say(line) {
    if (this.#closed || line === "") return;
    // The carrier's own words begin and end it.
    const own = /^\{"t":"(carrier|closed)"/.test(line) ? JSON.parse(line) : {};
    if (own.t === "carrier") this.#id = own.id;
    else if (own.t === "closed") this.#end(own.code);
    else this.onmessage?.call(/** @type {any} */ (this), /** @type {any} */ ({ data: line }));
  }

  /** @param {number} [code] */
  #end(code = LOST) {
    if (this.#closed) return;
    this.close(LOST);
    this.onclose?.call(/** @type {any} */ (this), /** @type {any} */ ({ code }));
  }
}
