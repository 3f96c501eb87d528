// Which carrier a session travels on: a WebSocket, or requests that wait where WebSockets do not open.

import { Poll } from "./poll.js";

/** @import { Carrier } from "./signal.js" */
/** @import { Beacon, Request } from "./poll.js" */

/**
 * @typedef {object} CarrierEnvironment
 * @property {(url: string) => Carrier} openSocket
 * @property {Request} [request] absent: nothing but WebSockets
 * @property {Beacon} [beacon]
 */

/** ms for a WebSocket to open. Lower gives up on slow links, higher keeps people waiting behind a wall that answers nothing. */
const OPEN_WITHIN = 3000;
/** WebSockets that closed before they opened; one may be bad luck. */
const ATTEMPTS = 2;

export class Carriers {
  /** @type {URL} */ #server;
  /** @type {CarrierEnvironment} */ #environment;
  /** WebSockets do not open here, and requests were answered. */ #polls = false;

  /** For one session: the next tries WebSockets again. @param {string | URL} server @param {CarrierEnvironment} environment */
  constructor(server, environment) {
    this.#server = new URL(server, globalThis.location?.href);
    this.#environment = environment;
  }

  /** @returns {Carrier} */
  open() {
    if (this.#polls) return this.poll();
    return this.#environment.request ? new Either(this) : this.socket();
  }

  socket() {
    return this.#environment.openSocket(this.#address("v1/ws", "ws"));
  }

  poll() {
    const { request, beacon } = this.#environment;
    if (!request) throw new TypeError("no requests");
    return new Poll(this.#address("v1/poll", "http"), request, beacon);
  }

  /** A request was answered where no WebSocket opened. */
  remember() {
    this.#polls = true;
  }

  /** @param {string} path @param {string} scheme */
  #address(path, scheme) {
    const address = new URL(path, this.#server);
    address.protocol = /^(https|wss):$/.test(address.protocol) ? `${scheme}s:` : `${scheme}:`;
    return address.href;
  }
}

/** A WebSocket that becomes requests when it does not open. @implements {Carrier} */
class Either {
  /** @type {Carrier["onopen"]} */ onopen = null;
  /** @type {Carrier["onmessage"]} */ onmessage = null;
  /** @type {Carrier["onclose"]} */ onclose = null;
  /** @type {Carrier["onerror"]} */ onerror = null;

  /** @type {Carriers} */ #carriers;
  /** @type {Carrier | null} */ #carrier = null;
  /** @type {Poll | null} */ #poll = null;
  #attempts = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /** @param {Carriers} carriers */
  constructor(carriers) {
    this.#carriers = carriers;
    this.#timer = setTimeout(() => this.#fallBack(), OPEN_WITHIN);
    this.#try();
  }

  get proves() {
    return this.#carrier?.proves ?? false;
  }

  /** @param {string} text */
  farewell(text) {
    this.#poll?.farewell(text);
  }

  /** @param {string} text */
  send(text) {
    this.#carrier?.send(text);
  }

  /** @param {number} [code] */
  close(code) {
    clearTimeout(this.#timer);
    this.#let(code);
  }

  #try() {
    this.#attempts += 1;
    try {
      const socket = this.#use(this.#carriers.socket());
      socket.onopen = (event) => {
        clearTimeout(this.#timer);
        this.#attempts = Infinity; // whatever closes it now is the carrier's end
        this.#call("onopen", event);
      };
      socket.onclose = (event) => {
        if (this.#attempts === Infinity) this.#call("onclose", event);
        else if (this.#attempts < ATTEMPTS) this.#try();
        else this.#fallBack();
      };
    } catch {
      this.#fallBack(); // forbidden by the page's policy, or absent
    }
  }

  #fallBack() {
    clearTimeout(this.#timer);
    this.#let();
    const poll = this.#use(this.#poll = this.#carriers.poll());
    poll.onopen = (event) => this.#call("onopen", event);
    poll.onclose = (event) => this.#call("onclose", event);
    poll.onmessage = (event) => {
      this.#carriers.remember();
      poll.onmessage = (next) => this.#call("onmessage", next);
      this.#call("onmessage", event);
    };
  }

  /** @param {Carrier} carrier */
  #use(carrier) {
    this.#carrier = carrier;
    carrier.onmessage = (event) => this.#call("onmessage", event);
    return carrier;
  }

  /** Lets go of what did not open. @param {number} [code] */
  #let(code) {
    const carrier = this.#carrier;
    this.#carrier = null;
    if (!carrier) return;
    carrier.onopen = carrier.onmessage = carrier.onclose = carrier.onerror = null;
    try {
      carrier.close(code);
    } catch {
      // already closing
    }
  }

  /** @param {"onopen" | "onmessage" | "onclose"} handler @param {any} event */
  #call(handler, event) {
    /** @type {any} */ (this)[handler]?.(event);
  }
}
