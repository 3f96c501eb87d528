// A mailbox for short texts on the server, for two who will connect to each other without it. Not part of a call.

import { MotetError } from "./errors.js";

/**
 * @typedef {object} Rendezvous
 * @property {(id: string, text: string, options?: { timeoutMs?: number, signal?: AbortSignal }) => Promise<boolean>} send
 *   leaves a text for whoever reads `id`; with `timeoutMs` it waits until it was read. False: nobody came, and it is taken back
 * @property {(id: string, callback: (text: string) => void, options?: { signal?: AbortSignal, onError?: (error: MotetError) => void }) => () => void} onMessage
 *   reads whatever comes for `id`, in order, until the returned function is called or the signal aborts
 */

/** ms that one request waits. Longer costs fewer requests, but some networks cut what is silent for half a minute. */
const WAIT = 25_000;
/** ms until it is tried again after a failure, doubled each time: soon enough for a person, and no load on a server that is down. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;

/**
 * @param {string | URL} server its address
 * @returns {Rendezvous}
 */
export function rendezvous(server) {
  /** @param {Record<string, string>} query @param {string | undefined} body @param {AbortSignal | undefined} signal */
  async function post(query, body, signal) {
    const url = new URL("sig", new URL(server, globalThis.location?.href));
    url.search = new URLSearchParams(query).toString();
    let response;
    try {
      response = await fetch(url, { method: "POST", body, signal, cache: "no-store" });
    } catch (thrown) {
      signal?.throwIfAborted();
      throw new MotetError("unreachable", { cause: thrown });
    }
    if (response.ok || response.status === 504) return response;
    const said = await response.json().catch(() => ({}));
    throw new MotetError(said.reason ?? "protocol", { hint: said.hint });
  }

  return {
    async send(id, text, { timeoutMs = 0, signal } = {}) {
      const { status } = await post({ set: id, timeoutms: String(timeoutMs) }, text, signal);
      return status !== 504;
    },

    onMessage(id, callback, { signal, onError } = {}) {
      const stop = new AbortController();
      const stopped = signal ? AbortSignal.any([stop.signal, signal]) : stop.signal;
      void (async () => {
        let pause = FIRST_PAUSE;
        while (!stopped.aborted) {
          try {
            const response = await post({ get: id, timeoutms: String(WAIT) }, undefined, stopped);
            const text = response.status === 200 ? await response.text() : null;
            pause = FIRST_PAUSE;
            // What was read is delivered even if the reader stops in this moment: nobody else will get it.
            if (text !== null) deliver(callback, text);
          } catch (thrown) {
            if (stopped.aborted) return;
            if (thrown instanceof MotetError) onError?.(thrown);
            const rest = pause;
            await new Promise((done) => setTimeout(done, rest));
            pause = Math.min(2 * pause, LONGEST_PAUSE);
          }
        }
      })();
      return () => stop.abort();
    },
  };
}

/** A callback that fails does not end the reading. @param {(text: string) => void} callback @param {string} text */
function deliver(callback, text) {
  try {
    callback(text);
  } catch (thrown) {
    setTimeout(() => { throw thrown; });
  }
}
