// One session's message stream, whatever happens to the sockets below it: numbered, acknowledged, sent again
// after a break, delivered exactly once.

import { MotetError, asMotetError } from "./errors.js";

/** @import { ClientMessage, ServerMessage, Hello, Welcome, Resumed } from "./protocol.d.ts" */

/**
 * The part of WebSocket that is used. `proves`: it finds out by itself when it is lost.
 * @typedef {Pick<WebSocket, "onopen" | "onmessage" | "onclose" | "onerror"> & {
 *   send(text: string): void, close(code?: number): void, farewell?(text: string): void, readonly proves?: boolean }} Carrier
 */

/**
 * @typedef {object} SignalHandlers
 * @property {(message: ServerMessage) => void} message each numbered message once, in order
 * @property {(reason: string) => void} down the carrier broke; a new one is being made
 * @property {() => void} resumed the same session goes on over a new carrier
 * @property {(error: MotetError) => void} lost the session cannot be resumed: join anew
 */

/** Both sides acknowledge by any message; alone after so many. Higher costs the sender memory, lower messages. */
const ACK_AFTER_MESSAGES = 32;
/** ms. Higher costs the sender memory, lower a message for every event in a quiet room. */
const ACK_AFTER = 2000;
/** ms between pings. Higher notices a dead carrier later, lower wakes phones. */
const PING_EVERY = 5000;
/** ms for the answer to a ping. Lower would break carriers on slow mobile links, higher hides dead ones. */
const PONG_WITHIN = 4000;
/** ms to open a carrier and have `hello` or `resume` answered. */
const ANSWER_WITHIN = 8000;
/** ms: the first and the longest wait between attempts; each is shortened by up to half at random. */
const BACKOFF_FIRST = 100;
const BACKOFF_MOST = 3000;
/** ms: the server keeps a session so long. */
const RESUME_WITHIN = 30_000;
/** ms, at random on top of what a stopping server asks for: everybody comes back, but not at once. */
const GOAWAY_SPREAD = 2000;

/** Close codes of ours: 1000 means "left", this one does not. */
const CLOSE_LEFT = 1000;
const CLOSE_REPLACED = 4000;
/** Close codes of the server's that mean more than "the carrier is lost". */
const CLOSED_FRAME_TOO_LARGE = 1009;
const CLOSED_TAKEN_OVER = 4000;
const CLOSED_SESSION_ENDED = 4003;

/** Of these only the newest of a kind is worth sending again. */
const STATE_KINDS = new Set(["want"]);

/** @typedef {"idle" | "joining" | "up" | "down" | "resuming" | "ended"} Phase */

export class Signal {
  /** @type {() => Carrier} */ #connect;
  /** @type {SignalHandlers} */ #handlers;
  /** @type {Phase} */ #phase = "idle";
  /** @type {Carrier | null} */ #carrier = null;
  /** The last one that carried the session, and was lost. @type {Carrier | null} */ #former = null;
  /** @type {{ id: string, token: string } | null} */ #session = null;
  /** @type {{ resolve: (welcome: Welcome) => void, reject: (error: MotetError) => void } | null} */ #joining = null;
  /** @type {Hello | null} */ #hello = null;
  /** The carrier is open: whatever is written leaves. */ #open = false;

  /** The last number given to a message of ours, and the highest seen from the server. */
  #sent = 0;
  #seen = 0;
  /** @type {ClientMessage[]} in the order of `s` */ #unacknowledged = [];
  #owedAcks = 0;
  #attempts = 0;
  /** ms that a stopping server asked us to stay away. */ #stayAway = 0;

  /** @type {Map<string, ReturnType<typeof setTimeout>>} by what they are for */ #timers = new Map();

  /**
   * @param {() => Carrier} connect opens a new one
   * @param {SignalHandlers} handlers
   */
  constructor(connect, handlers) {
    this.#connect = connect;
    this.#handlers = handlers;
  }

  /**
   * The session's secret, with which a new session keeps the participant's id.
   * @returns {{ session: string, token: string } | null}
   */
  get identity() {
    return this.#session && { session: this.#session.id, token: this.#session.token };
  }

  /** Whether messages leave at once. */
  get up() {
    return this.#phase === "up";
  }

  /**
   * Begins a new session. One Signal holds one session.
   * @param {Promise<Omit<Hello, "t" | "s" | "a">>} hello mostly still in the making: the carrier opens meanwhile
   * @returns {Promise<Welcome>} rejects with the server's refusal, `unreachable` or `timeout`, or as `hello` does
   */
  join(hello) {
    return new Promise((resolve, reject) => {
      this.#joining = { resolve, reject };
      this.#connectAs("joining");
      hello.then((content) => {
        if (this.#phase !== "joining") return;
        this.#hello = { t: "hello", ...content, s: ++this.#sent };
        if (this.#open) this.#greet();
      }, (error) => {
        if (this.#phase === "joining") this.#fail(asMotetError(error));
      });
    });
  }

  /**
   * Sends now, or as soon as there is a carrier.
   * @param {ClientMessage} message
   * @returns {number} its number
   */
  send(message) {
    if (STATE_KINDS.has(message.t)) {
      this.#unacknowledged = this.#unacknowledged.filter((old) => old.t !== message.t);
    }
    message.s = ++this.#sent;
    this.#unacknowledged.push(message);
    if (this.#phase === "up") this.#write(message);
    return message.s;
  }

  /** Says what is worth nothing later. @param {ClientMessage} message */
  mention(message) {
    if (this.#phase === "up") this.#write(message);
  }

  /** Says at once what was seen: the server waits for it. */
  acknowledge() {
    if (this.#phase === "up") this.#write({ t: "ack" });
  }

  /** Ends the session: others see us leave at once. */
  leave() {
    if (this.#phase === "ended") return;
    /** @type {ClientMessage} */
    const bye = { t: "bye", s: ++this.#sent };
    if (this.#phase === "up") this.#write(bye);
    // Firefox cuts a page's requests before it tells the page that it goes away: the server still listens to them.
    else this.#former?.farewell?.(JSON.stringify({ ...bye, a: this.#seen }));
    this.#end();
    this.#drop(CLOSE_LEFT);
  }

  /** Lets go of the session without ending it: another is going to take it over. */
  abandon() {
    if (this.#phase === "ended") return;
    this.#end();
    this.#drop(CLOSE_REPLACED);
  }

  /** The network changed: do not wait for the old carrier's silence. */
  renew() {
    if (this.#phase === "up") {
      this.#down("network_changed");
    } else if (this.#phase === "down") {
      this.#attempts = 0;
      this.#connectAs("resuming");
    }
  }

  // Carriers

  /** @param {"joining" | "resuming"} phase */
  #connectAs(phase) {
    this.#clear("retry");
    this.#drop(CLOSE_REPLACED);
    this.#phase = phase;
    /** @type {Carrier} */
    let carrier;
    try {
      carrier = this.#connect();
    } catch (error) {
      this.#broke("unreachable", error);
      return;
    }
    this.#carrier = carrier;
    carrier.onopen = () => {
      this.#open = true;
      this.#greet();
    };
    carrier.onmessage = ({ data }) => this.#received(data);
    carrier.onclose = ({ code }) => this.#closed(code);
    carrier.onerror = null; // a close always follows, and says no less
    this.#after("answer", ANSWER_WITHIN, () => this.#broke("timeout"));
  }

  /** The first message on a new carrier. */
  #greet() {
    if (this.#phase === "joining" && this.#hello) {
      this.#write(this.#hello);
    } else if (this.#session) {
      this.#write({ t: "resume", session: this.#session.id, token: this.#session.token });
    }
  }

  /** @param {number} code */
  #closed(code) {
    switch (code) {
      case CLOSED_TAKEN_OVER:
        this.#fail(new MotetError("replaced"));
        break;
      case CLOSE_LEFT:
      case CLOSED_SESSION_ENDED:
        this.#fail(new MotetError("unknown_session"));
        break;
      case CLOSED_FRAME_TOO_LARGE:
        this.#dropLargest(); // it would close every carrier to come
        this.#broke("message_too_large");
        break;
      default:
        this.#broke("unreachable");
    }
  }

  #dropLargest() {
    const sizes = this.#unacknowledged.map((message) => JSON.stringify(message).length);
    this.#unacknowledged.splice(sizes.indexOf(Math.max(...sizes)), 1);
  }

  /** The present carrier is of no more use. @param {string} reason @param {unknown} [cause] */
  #broke(reason, cause) {
    if (this.#phase === "joining") {
      this.#fail(new MotetError(reason, { cause }));
    } else if (this.#phase === "up" || this.#phase === "resuming") {
      this.#down(reason);
    }
  }

  /** @param {string} reason */
  #down(reason) {
    const wasUp = this.#phase === "up";
    if (wasUp) this.#former = this.#carrier;
    this.#phase = "down";
    this.#drop(CLOSE_REPLACED);
    if (wasUp) {
      this.#attempts = 0;
      this.#after("give up", RESUME_WITHIN, () => this.#fail(new MotetError("unreachable")));
    }
    const backoff = Math.min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** this.#attempts++) * (0.5 + Math.random() / 2);
    this.#after("retry", Math.max(backoff, this.#stayAway), () => this.#connectAs("resuming"));
    this.#stayAway = 0;
    if (wasUp) this.#handlers.down(reason);
  }

  /** Lets go of the carrier, so that nothing it still says is heard. @param {number} code */
  #drop(code) {
    const carrier = this.#carrier;
    this.#carrier = null;
    this.#open = false;
    for (const name of ["answer", "ping", "pong", "ack"]) this.#clear(name);
    if (!carrier) return;
    carrier.onopen = carrier.onmessage = carrier.onclose = carrier.onerror = null;
    try {
      carrier.close(code);
    } catch {
      // already closing
    }
  }

  /** The session is over, not by our wish. @param {MotetError} error */
  #fail(error) {
    const joining = this.#joining;
    this.#joining = null;
    this.#end();
    this.#drop(CLOSE_REPLACED);
    if (joining) joining.reject(error);
    else this.#handlers.lost(error);
  }

  #end() {
    this.#phase = "ended";
    const joining = this.#joining;
    this.#joining = null;
    for (const name of [...this.#timers.keys()]) this.#clear(name);
    this.#unacknowledged = [];
    joining?.reject(new MotetError("closed"));
  }

  // Messages

  /** @param {unknown} data */
  #received(data) {
    /** @type {ServerMessage} */
    let message;
    try {
      message = JSON.parse(String(data));
      if (typeof message?.t !== "string") throw new TypeError("no kind");
    } catch (error) {
      console.warn("motet: a message that is not JSON was ignored", error);
      return;
    }
    const { a, s } = message;
    if (typeof a === "number") {
      this.#unacknowledged = this.#unacknowledged.filter((sent) => (sent.s ?? 0) > a);
    }
    this.#clear("pong"); // whatever arrives proves that the carrier lives
    if (typeof s === "number") {
      const known = s <= this.#seen;
      this.#seen = Math.max(this.#seen, s);
      this.#owedAcks += 1;
      this.#scheduleAck();
      if (known) return;
    }
    this.#dispatch(message);
  }

  /** @param {ServerMessage} message */
  #dispatch(message) {
    switch (message.t) {
      case "welcome":
        return this.#welcomed(message);
      case "resumed":
        return this.#resumed(message);
      case "refuse":
        return this.#refused(new MotetError(message.reason, message));
      case "pong":
      case "ack":
        return;
      case "goaway":
        this.#stayAway = message.inMs + Math.random() * GOAWAY_SPREAD;
        return;
      default:
        this.#handlers.message(message);
    }
  }

  /** @param {Welcome} welcome */
  #welcomed(welcome) {
    const joining = this.#joining;
    if (this.#phase !== "joining" || !joining) return;
    this.#joining = null;
    this.#hello = null;
    this.#session = { id: welcome.session, token: welcome.resume };
    this.#begin();
    joining.resolve(welcome);
  }

  /** @param {Resumed} resumed */
  #resumed(resumed) {
    if (this.#phase !== "resuming" || !this.#session) return;
    this.#session.token = resumed.resume;
    this.#clear("give up");
    this.#begin();
    this.#write({ t: "ack" }); // the server forgets the previous token only now
    this.#handlers.resumed();
  }

  /** @param {MotetError} error */
  #refused(error) {
    if (this.#phase === "resuming" && error.retryMs !== undefined) {
      // Too busy now: the session still exists.
      this.#down(error.reason);
    } else {
      this.#fail(error);
    }
  }

  /** The carrier is ours: whatever waited leaves now, in order. */
  #begin() {
    this.#phase = "up";
    this.#attempts = 0;
    this.#clear("answer");
    for (const message of this.#unacknowledged) this.#write(message);
    this.#scheduleAck();
    this.#ping();
  }

  #ping() {
    if (this.#carrier?.proves) return;
    this.#after("ping", PING_EVERY, () => {
      this.#after("pong", PONG_WITHIN, () => this.#broke("silent"));
      this.#write({ t: "ping" });
      this.#ping();
    });
  }

  #scheduleAck() {
    if (this.#phase !== "up" || this.#owedAcks === 0) return;
    if (this.#owedAcks >= ACK_AFTER_MESSAGES) this.#write({ t: "ack" });
    else if (!this.#timers.has("ack")) this.#after("ack", ACK_AFTER, () => this.#write({ t: "ack" }));
  }

  /** @param {ClientMessage} message */
  #write(message) {
    if (!this.#carrier) return;
    message.a = this.#seen;
    this.#owedAcks = 0;
    this.#clear("ack");
    try {
      this.#carrier.send(JSON.stringify(message));
    } catch (error) {
      // Only a socket that is not open throws; its close event follows and the message is sent again then.
      console.warn("motet:", asMotetError(error).message);
    }
  }

  // Timers

  /** @param {string} name @param {number} ms @param {() => void} then */
  #after(name, ms, then) {
    this.#clear(name);
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name);
      then();
    }, ms));
  }

  /** @param {string} name */
  #clear(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}
