// The carrier where WebSockets are blocked: requests that wait for an answer, and look like a WebSocket to whoever uses them.

/** @import { Carrier } from "./signal.js" */

/**
 * The part of `fetch` that is used.
 * @typedef {(url: string, init: { method: string, body: string, headers: Record<string, string>, signal: AbortSignal, keepalive: boolean })
 *   => Promise<{ ok: boolean, text(): Promise<string> }>} Request
 */

/** ms that a request waits for something to be said; its answer is a sign of life. Higher notices a dead network later, lower costs requests. */
const WAIT = 4000;
/** ms that an answer may take beyond that. */
const LATE = 4000;
/** Bytes that browsers send on behalf of a page that is gone are limited to 64 kB in all. */
const KEPT_ALIVE = 8192;
const LOST = 1006;
const LEFT = 1000;

/** @implements {Carrier} */
export class Poll {
  /** @type {Carrier["onopen"]} */ onopen = null;
  /** @type {Carrier["onmessage"]} */ onmessage = null;
  /** @type {Carrier["onclose"]} */ onclose = null;
  /** @type {Carrier["onerror"]} */ onerror = null;
  /** A request is out at all times, so nobody else need ask whether this lives. @readonly */ proves = true;

  /** @type {string} */ #url;
  /** @type {Request} */ #request;
  /** The carrier's secret, once the server has named it. */ #id = "";
  /** @type {string[]} */ #queue = [];
  /** Messages are on their way up: one request at a time keeps their order. */ #sending = false;
  #waiting = false;
  /** What came beside a request that waits: it may hold what was said before. @type {string[]} */ #held = [];
  #closed = false;
  #waiter = new AbortController();
  #sender = new AbortController();

  /** @param {string} url @param {Request} request */
  constructor(url, request) {
    this.#url = url;
    this.#request = request;
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
    else if (this.#id && this.#queue.length > 0) void this.#ask(this.#lines(), 0, this.#sender.signal).catch(() => {});
  }

  /** What is to be sent, behind the line that says whose it is. */
  #lines() {
    return [...(this.#id ? [this.#header()] : []), ...this.#queue.splice(0)].join("\n");
  }

  #header() {
    return JSON.stringify({ t: "poll", id: this.#id });
  }

  /** Sends what waits. The first request waits for its answer, because there is no other yet to bring it. */
  async #up() {
    if (this.#sending || this.#closed || this.#queue.length === 0) return;
    this.#sending = true;
    await this.#exchange(this.#id ? 0 : WAIT);
    this.#sending = false;
    if (this.#queue.length > 0) void this.#up();
    else void this.#wait();
  }

  /** Waits for what the server says. */
  async #wait() {
    while (!this.#waiting && !this.#sending && !this.#closed && this.#id) {
      this.#waiting = true;
      await this.#exchange(WAIT);
      this.#waiting = false;
    }
  }

  /** @param {number} wait */
  async #exchange(wait) {
    const waits = this.#waiting && wait > 0;
    const timer = setTimeout(() => this.#end(), wait + LATE);
    try {
      const mine = this.#id !== "";
      const { ok, body } = waits ? await this.#ask(this.#header(), wait, this.#waiter.signal) : await this.#ask(this.#lines(), wait, this.#sender.signal);
      // What the server says of a carrier that it forgot is not about the session.
      if (ok || !mine) this.#take(body, waits);
      if (!ok) this.#end();
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
    return { ok: answer.ok, body: await answer.text() };
  }

  /** @param {string} body @param {boolean} waited */
  #take(body, waited) {
    const lines = body.split("\n").filter((line) => line !== "");
    if (this.#waiting && !waited) {
      this.#held.push(...lines);
      return;
    }
    const held = this.#held.splice(0);
    for (const line of held.length > 0 ? [...lines, ...held].sort((a, b) => numberOf(a) - numberOf(b)) : lines) this.#say(line);
  }

  /** @param {string} line */
  #say(line) {
    if (this.#closed) return;
    if (!this.#id && line.includes('"carrier"')) {
      const first = parse(line);
      if (first?.t === "carrier") {
        this.#id = String(first.id);
        return;
      }
    }
    this.onmessage?.call(/** @type {any} */ (this), /** @type {any} */ ({ data: line }));
  }

  /** The carrier is lost. */
  #end() {
    if (this.#closed) return;
    this.close(LOST);
    this.onclose?.call(/** @type {any} */ (this), /** @type {any} */ ({ code: LOST }));
  }
}

/** Those of the carrier itself have none, and come first. @param {string} line */
function numberOf(line) {
  return Number(parse(line)?.s ?? 0);
}

/** @param {string} line @returns {any} */
function parse(line) {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
