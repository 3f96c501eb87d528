// The session's peer connections: one, or two while the next takes over from one that cannot be mended. The old one plays on
// until the new one shows the same pictures, so that nobody sees the change.

import { Connection } from "./connection.js";
import { MotetError, asMotetError } from "./errors.js";
import { Stalls } from "./stall.js";

/** @import { ClientMessage, ErrorMessage, HaveState, Publish, PublicationId, Source } from "./protocol.d.ts" */
/** @import { Sending } from "./track.js" */
/** @import { Slot } from "./slots.js" */

/**
 * @typedef {object} TransportsHost
 * @property {(configuration: RTCConfiguration) => RTCPeerConnection} createPeer
 * @property {(message: ClientMessage) => number} send
 * @property {() => boolean} ready whether messages leave at once
 * @property {() => number} pictures for how many there should be slots
 * @property {(source: Source) => Sending} sending what a section is to send
 * @property {() => Promise<void>} rebind our tracks are to be put on every connection
 * @property {() => Publish[]} published everything that a new transport is to publish
 * @property {() => PublicationId[]} visible the pictures that are seen now
 * @property {(slot: Slot) => boolean} due whether new frames should be arriving in a slot
 * @property {() => void} bound slots carry something else, or are other slots
 * @property {(reason: string) => void} changed it broke, or is whole again
 * @property {(error: MotetError) => void} lost nothing here helps: join anew
 */

/** ms for a second connection to be made. Lower gives up on slow links, higher leaves people in the dark longer. */
const NEXT_WITHIN = 10_000;
/** ms after which a connection takes over whatever it shows: some picture may never come. */
const TAKE_OVER_WITHIN = 3000;
/** ms between looks whether it shows everything. */
const LOOK_EVERY = 100;

export class Transports {
  /** @type {TransportsHost} */ #host;
  /** @type {Connection | null} */ #current = null;
  /** @type {Connection | null} */ #next = null;
  /** Counts the session's connections. */ #number = -1;
  #stalls = new Stalls();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #deadline;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #looking;

  /** @param {TransportsHost} host */
  constructor(host) {
    this.#host = host;
  }

  get broken() {
    return this.#current?.broken ?? true;
  }

  /** @returns {IterableIterator<Slot> | Slot[]} what plays now */
  slots() {
    return this.#current?.slots.all() ?? [];
  }

  /** @param {PublicationId} publication @returns {Slot | undefined} */
  slotOf(publication) {
    return this.#current?.slots.of(publication);
  }

  /** @param {Source} source @returns {RTCRtpSender[]} */
  senders(source) {
    return this.#all().flatMap((connection) => connection.sender(source) ?? []);
  }

  /** All connections have the same sections to send on. @param {Source} source */
  mid(source) {
    return (this.#next ?? this.#current)?.mid(source) ?? null;
  }

  #all() {
    return [this.#current, this.#next].filter((connection) => connection !== null);
  }

  /** The first connection of a session. @returns {Promise<string>} its offer, our tracks on it */
  async begin() {
    this.close();
    const connection = this.#current = this.#make();
    this.#host.bound();
    return this.#offerOf(connection);
  }

  /** @param {string} answer to what `begin` offered */
  async begun(answer) {
    await this.#current?.answered(answer);
  }

  close() {
    this.#drop();
    this.#current?.close();
    this.#current = null;
    this.#number = -1;
  }

  /** The network changed. */
  restart() {
    for (const connection of this.#all()) connection.restart();
  }

  /** Whether packets arrive although the browser says that something changed. */
  async check() {
    return (await this.#current?.check()) ?? true;
  }

  /** There are more pictures to show. */
  grow() {
    for (const connection of this.#all()) connection.grow(this.#host.pictures());
  }

  // What the server says

  /** @param {HaveState} have @returns {boolean} whether it waits for our acknowledgement */
  have(have) {
    const connection = this.#numbered(have.transport);
    const pending = connection?.slots.apply(have) ?? false;
    if (connection && connection === this.#current) this.#host.bound();
    return pending;
  }

  /** @param {number} transport @param {string} sdp */
  answered(transport, sdp) {
    // Of a connection that was given up meanwhile: nothing to do.
    this.#numbered(transport)?.answered(sdp).catch((error) => this.#host.lost(asMotetError(error)));
  }

  /** An offer of ours failed. @param {ErrorMessage} error */
  refused({ id, reason, hint, retryMs }) {
    if (id === undefined) return;
    const connection = this.#all().find(({ offered }) => offered === id);
    connection?.refused(retryMs).catch(() => this.#failed(connection, new MotetError("connection_failed", {
      cause: new MotetError(reason, { hint }),
    })));
  }

  /** The server forgot our connections; the session and everything published live on over a new one. */
  async replace() {
    this.#drop();
    this.#current?.close();
    await this.#attempt((connection) => {
      this.#current = connection;
      this.#host.bound();
    });
    this.#host.changed("media");
  }

  /** @param {number | undefined} number */
  #numbered(number) {
    return this.#all().find((connection) => connection.number === (number ?? this.#current?.number));
  }

  // Taking over

  #make() {
    const number = ++this.#number;
    /** @type {Connection} */
    const connection = new Connection(this.#host.createPeer, {
      offer: (sdp) => this.#host.send({ t: "offer", transport: number, sdp }),
      ready: this.#host.ready,
      sending: this.#host.sending,
      changed: () => this.#connectionChanged(connection),
      sampled: (frames) => {
        if (connection === this.#current) this.#sampled(connection, frames);
      },
      failed: (error) => this.#failed(connection, error),
    }, number, this.#host.pictures());
    return connection;
  }

  /** @param {Connection} connection */
  async #offerOf(connection) {
    await this.#host.rebind();
    return connection.firstOffer();
  }

  /** Makes another connection in this session. @param {(connection: Connection) => void} place where it belongs */
  async #attempt(place) {
    try {
      const connection = this.#make();
      place(connection);
      const sdp = await this.#offerOf(connection);
      if (!this.#all().includes(connection)) return; // overtaken
      const publish = this.#host.published();
      connection.offered = this.#host.send({ t: "offer", transport: connection.number, sdp, publish });
    } catch (error) {
      this.#host.lost(asMotetError(error, "connection_failed"));
    }
  }

  /** @param {Connection} connection @param {MotetError} error */
  #failed(connection, error) {
    if (connection === this.#next) {
      this.#drop();
      if (this.broken) this.#host.lost(error);
    } else if (connection === this.#current && !this.#next) {
      if (!connection.proved) {
        this.#host.lost(error);
        return;
      }
      void this.#attempt((next) => {
        this.#next = next;
        this.#deadline = setTimeout(() => this.#failed(next, error), NEXT_WITHIN);
      });
    }
  }

  /** @param {Connection} connection */
  #connectionChanged(connection) {
    if (connection === this.#current) this.#host.changed("media");
    if (connection !== this.#next || !connection.proved || this.#looking) return;
    clearTimeout(this.#deadline);
    let left = TAKE_OVER_WITHIN / LOOK_EVERY;
    this.#looking = setInterval(() => {
      left -= 1;
      if (left <= 0 || this.#showsAll(connection)) this.#takeOver(connection);
    }, LOOK_EVERY);
  }

  /** Whether it plays all that is seen now. @param {Connection} connection */
  #showsAll({ slots }) {
    return this.#host.visible().every((publication) => slots.of(publication)?.witness() === publication);
  }

  /** @param {Connection} connection */
  #takeOver(connection) {
    const old = this.#current;
    this.#current = connection;
    this.#next = null;
    this.#drop();
    this.#stalls = new Stalls();
    this.#host.bound();
    old?.close();
    this.#host.changed("media");
  }

  /** Gives up what was going to take over. */
  #drop() {
    clearTimeout(this.#deadline);
    clearInterval(this.#looking);
    this.#looking = undefined;
    this.#next?.close();
    this.#next = null;
  }

  /** @param {Connection} connection @param {ReadonlyMap<string, number>} frames */
  #sampled({ slots }, frames) {
    for (const stall of this.#stalls.sample(slots.all(), frames, this.#host.due, performance.now())) {
      this.#host.send({ t: "stall", ...stall });
    }
  }
}
