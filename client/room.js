// A room as its members see it: who is there, what each shows, and one's own camera and microphone. It outlives
// carriers, connections and sessions; only `leave` and the server's refusal end it.

import { Carriers } from "./carriers.js";
import { Chat } from "./chat.js";
import { MotetError, asMotetError } from "./errors.js";
import { Playback } from "./playback.js";
import { Publishing } from "./publishing.js";
import { Roster } from "./roster.js";
import { Signal } from "./signal.js";
import { Transports } from "./transports.js";
import { Wants } from "./want.js";

/** @import { CarrierEnvironment } from "./carriers.js" */
/** @import { Publication } from "./participant.js" */
/** @import { WantEnvironment } from "./want.js" */
/** @import { DeviceChoice, JoinOptions, OpenedDevices, Person, ReceiveChoice, Room as PublicRoom, RoomEventMap, RoomState } from "./types.d.ts" */
/** @import { ClientMessage, ErrorMessage, ParticipantInfo, ServerMessage, Source, TypingSeen, Welcome, WhoPage } from "./protocol.d.ts" */
/** @import { Slot } from "./slots.js" */
/** @import { LocalTrack } from "./track.js" */

/**
 * Everything that a browser provides, so that tests can provide it instead.
 * @typedef {object} OwnEnvironment
 * @property {(configuration: RTCConfiguration) => RTCPeerConnection} createPeer
 * @property {() => HTMLAudioElement} createAudio
 * @property {(source: Source, choice: DeviceChoice) => Promise<MediaStreamTrack>} openTrack
 * @property {(choice: { camera?: DeviceChoice, microphone?: DeviceChoice }) => Promise<OpenedDevices>} openDevices
 * @property {EventTarget | undefined} window
 * @property {(EventTarget & { type?: string }) | undefined} network `navigator.connection`
 * @typedef {OwnEnvironment & WantEnvironment & CarrierEnvironment} Environment
 */

/** Refusals after which the same request may succeed. */
const PASSING = new Set(["unknown_session", "resume_token", "slow_reader", "unreachable", "timeout", "connection_failed", "overloaded", "rate_limited", "shutting_down"]);
/** ms between attempts to join anew, shortened by up to half at random. Higher keeps people waiting after an outage, lower storms a restarted server. */
const REJOIN_FIRST = 200;
const REJOIN_MOST = 10_000;
/** ms between a change of what is shown and the offer of more slots, because tiles come in crowds. Higher shows the last of them later. */
const GROW_AFTER = 100;

/** @implements {PublicRoom} */
export class Room extends EventTarget {
  /** @readonly @type {string} */ id;
  /** @type {RoomState} */ state = "connecting";
  /** @readonly @type {Chat} */ chat;

  /** @type {Environment} */ #environment;
  /** @type {string | URL} */ #url;
  /** @type {{ room: string, name: string }} */ #options;
  /** @type {Roster} */ #roster;
  /** @type {Publishing} */ #publishing;
  /** @type {Wants} */ #wants;
  /** @type {Playback} */ #playback;
  /** @type {Signal | null} */ #signal = null;
  /** @type {Transports} */ #transports;
  /** In the room, as far as the server said: deltas and mutes make sense. */ #entered = false;
  /** @type {string | undefined} */ #networkType;
  /** Ends every listener at once. */ #listening = new AbortController();
  /** @type {(() => void) | null} */ #wake = null;
  #reentering = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #growing;
  /** Whoever asked `who` and waits, in order. @type {{ resolve: (page: WhoPage) => void, reject: (error: MotetError) => void }[]} */ #asking = [];
  /** What went wrong while the last mishap was being mended. @type {MotetError | null} */ #mishap = null;

  /** @param {string | URL} url @param {JoinOptions} options @param {Environment} environment */
  constructor(url, options, environment) {
    super();
    this.id = options.room;
    this.#url = url;
    this.#options = { room: options.room, name: options.name ?? "" };
    this.#environment = environment;
    this.#roster = new Roster(this.#options.name, {
      emit: (type, detail) => this.#emit(type, detail),
      muted: (source) => this.#publishing.of(source)?.muted,
      published: (publication) => this.#published(publication),
      ended: ({ id }) => this.#wants.forget(id),
      attached: (publication, element, attached) => this.#attached(publication, element, attached),
    });
    this.#publishing = new Publishing({
      open: environment.openTrack,
      senders: (source) => this.#transports.senders(source),
      mid: (source) => this.#transports.mid(source),
      send: (message) => this.#send(message),
      changed: (track) => this.#trackChanged(track),
    });
    this.#wants = new Wants((want) => void this.#send({ t: "want", ...want }), environment);
    this.#transports = this.#makeTransports();
    this.chat = new Chat({
      send: (message) => this.#send(message),
      mention: (message) => this.#entered && this.#signal?.mention(message),
      me: () => this.me.id,
      said: (message) => this.#emit("chat", { message, participant: this.participants.get(message.from) ?? null }),
    });
    this.#playback = new Playback(environment.createAudio, () => this.#emit("playbackblocked", {}));
    this.#listen();
  }

  /**
   * @internal
   * @param {JoinOptions} options
   * @returns {Promise<void>}
   */
  async join(options) {
    const { camera, microphone, signal } = options;
    signal?.throwIfAborted();
    signal?.addEventListener("abort", () => this.leave(), { signal: this.#listening.signal });
    try {
      const devices = await this.#environment.openDevices({ camera, microphone });
      await this.#take(this.camera, devices.camera, devices.errors.camera);
      await this.#take(this.microphone, devices.microphone, devices.errors.microphone);
      await this.#enter(null);
    } catch (error) {
      this.#end(null);
      signal?.throwIfAborted();
      throw asMotetError(error);
    }
    signal?.throwIfAborted();
    // After the caller has had its turn to listen.
    for (const { error } of this.#publishing.tracks) {
      if (error) setTimeout(() => this.#emit("error", { error }), 0);
    }
  }

  get camera() {
    return this.#publishing.camera;
  }

  get microphone() {
    return this.#publishing.microphone;
  }

  get me() {
    return this.#roster.me;
  }

  get participants() {
    return this.#roster.participants;
  }

  get total() {
    return this.#roster.total;
  }

  get speakers() {
    return this.#roster.speakers;
  }

  /** @param {DeviceChoice} choice */
  setCamera(choice) {
    return this.#set(this.camera, choice);
  }

  /** @param {DeviceChoice} choice */
  setMicrophone(choice) {
    return this.#set(this.microphone, choice);
  }

  /** @param {string} name */
  setName(name) {
    this.#options.name = name;
    this.#send({ t: "name", name });
  }

  /** @param {ReceiveChoice} choice */
  want({ audio, lastSpeakers }) {
    this.#wants.choose({
      ...(audio !== undefined && { audio: audio === "loudest" ? audio : audio.map((one) => (typeof one === "number" ? one : one.id)) }),
      ...(lastSpeakers !== undefined && { video: { last: lastSpeakers } }),
    });
  }

  /** @returns {AsyncGenerator<Person, void, void>} */
  async *people() {
    /** @type {string | undefined} */
    let after;
    do {
      const { participants, next } = await this.#ask(after);
      for (const info of participants) yield this.participants.get(info.id) ?? person(info);
      after = next;
    } while (after !== undefined);
  }

  /** @param {string | undefined} after @returns {Promise<WhoPage>} */
  #ask(after) {
    return new Promise((resolve, reject) => {
      const number = this.#send({ t: "who", ...(after !== undefined && { after }) });
      if (number === undefined) throw new MotetError(this.state === "closed" ? "closed" : "unreachable");
      this.#asking.push({ resolve, reject });
    });
  }

  resumePlayback() {
    return this.#playback.resume();
  }

  leave() {
    this.#end(null);
  }

  // Entering

  /**
   * Makes a connection and a session, for the first time or anew.
   * @param {{ session: string, token: string } | null} identity of the session that is replaced
   */
  async #enter(identity) {
    this.#throwIfClosed();
    const carriers = new Carriers(this.#url, this.#environment);
    const signal = new Signal(() => carriers.open(), {
      message: (message) => this.#received(message),
      down: (reason) => this.#assess(reason),
      resumed: () => this.#assess("resumed"),
      lost: (error) => this.#reenter(error),
    });
    this.#signal = signal;
    this.#publishing.begin();
    const welcome = await signal.join(this.#hello(identity));
    // Deltas may follow at once: the roster first, and nothing awaited before it.
    this.#welcomed(welcome);
    await this.#transports.begun(welcome.answer);
    this.#grow();
  }

  /** @param {{ session: string, token: string } | null} identity */
  async #hello(identity) {
    this.#playback.close();
    const offer = await this.#transports.begin();
    this.#throwIfClosed();
    const { room, name } = this.#options;
    return { caps: [], room, name, offer, publish: this.#publishing.everything(), want: this.#wants.initial(), ...identity };
  }

  #makeTransports() {
    return new Transports({
      createPeer: (configuration) => this.#environment.createPeer(configuration),
      send: (message) => this.#signal?.send(message) ?? 0,
      ready: () => this.#signal?.up ?? false,
      pictures: () => this.#pictures().length,
      sending: (source) => this.#publishing.sending(source),
      rebind: () => this.#publishing.rebind(),
      published: () => this.#publishing.everything(),
      visible: () => this.#pictures().flatMap(({ id, visible }) => (visible ? [id] : [])),
      due: (slot) => this.#due(slot),
      bound: () => this.#bindSlots(),
      changed: (reason) => this.#assess(reason),
      lost: (error) => void this.#reenter(error),
    });
  }

  #throwIfClosed() {
    if (this.state === "closed") throw new MotetError("closed");
  }

  /** @param {Welcome} welcome */
  #welcomed(welcome) {
    this.#entered = true;
    if (this.#transports.have(welcome.have)) this.#signal?.acknowledge();
    this.#roster.enter(welcome.you, welcome);
    this.#bindSlots();
    this.chat.entered(welcome.chat ?? []);
    this.#publishing.announce();
    this.#assess("joined");
  }

  /**
   * The session or the connection is beyond repair: begin anew with the same name, tracks and wishes, and, while the
   * server remembers us, as the same participant. The roster stays until the next welcome corrects it.
   * @param {MotetError} error
   */
  async #reenter(error) {
    if (this.#isClosed()) return;
    if (this.#reentering) {
      this.#mishap = error;
      return;
    }
    this.#reentering = true;
    let identity = this.#signal?.identity ?? null;
    /** @type {MotetError | null} */
    let cause = error;
    for (let wait = REJOIN_FIRST; cause; wait = Math.min(REJOIN_MOST, wait * 2)) {
      identity = this.#signal?.identity ?? identity;
      this.#teardown();
      this.#assess(cause.reason);
      if (!PASSING.has(cause.reason) && cause.retryMs === undefined) {
        this.#end(cause);
        return;
      }
      await this.#pause(cause.retryMs ?? wait * (0.5 + Math.random() / 2));
      this.#mishap = null;
      cause = await this.#enter(identity).then(() => this.#mishap, asMotetError);
      if (this.#isClosed()) return;
    }
    this.#reentering = false;
  }

  #isClosed() {
    return this.state === "closed";
  }

  /** @param {number} ms or less, when the network comes back */
  #pause(ms) {
    return new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #teardown() {
    this.#entered = false;
    for (const { reject } of this.#asking.splice(0)) reject(new MotetError(this.state === "closed" ? "closed" : "unreachable"));
    clearTimeout(this.#growing);
    this.#signal?.abandon();
    this.#signal = null;
    this.#transports.close();
    this.#playback.close();
    this.#bindSlots();
  }

  /** @param {MotetError | null} error */
  #end(error) {
    if (this.state === "closed") return;
    this.state = "closed";
    this.#signal?.leave();
    this.#teardown();
    this.#wake?.();
    this.#listening.abort();
    this.#publishing.close();
    this.chat.close();
    for (const publication of this.#roster.publications()) publication.end();
    this.#wants.close();
    this.#emit("closed", { error });
  }

  /** Says it when the connection breaks or is whole again. @param {string} reason */
  #assess(reason) {
    if (this.state === "closed") return;
    const whole = this.#entered && (this.#signal?.up ?? false) && !this.#transports.broken;
    if (whole && this.state !== "connected") {
      const first = this.state === "connecting";
      this.state = "connected";
      if (!first) this.#emit("reconnected", {});
    } else if (!whole && this.state === "connected") {
      this.state = "reconnecting";
      this.#emit("reconnecting", { reason });
    }
  }

  /** What makes sense in the room only. @param {ClientMessage} message @returns {number | undefined} its number */
  #send(message) {
    return this.#entered ? this.#signal?.send(message) : undefined;
  }

  // What the browser reports

  #listen() {
    const { window, network } = this.#environment;
    const options = { signal: this.#listening.signal };
    this.#networkType = network?.type;
    window?.addEventListener("online", () => this.#networkChanged(), options);
    network?.addEventListener("change", () => void this.#networkHint(), options);
    window?.addEventListener("pagehide", () => this.#signal?.leave(), options);
    window?.addEventListener("pageshow", (event) => {
      // Back from the browser's cache of whole pages, where the others saw us leave.
      if (/** @type {PageTransitionEvent} */ (event).persisted) void this.#reenter(new MotetError("unreachable"));
    }, options);
  }

  #networkChanged() {
    this.#wake?.();
    this.#signal?.renew();
    this.#transports.restart();
  }

  /** Chromium reports a change also when only its guess of the speed changed. */
  async #networkHint() {
    const type = this.#environment.network?.type;
    const moved = type !== this.#networkType;
    this.#networkType = type;
    if (moved || !(await this.#transports.check())) this.#networkChanged();
  }

  // What the server says

  /** @param {ServerMessage} message */
  #received(message) {
    if (!this.#entered) return;
    switch (message.t) {
      case "room":
        this.#roster.delta(message);
        break;
      case "snapshot":
        this.#roster.snapshot(message);
        break;
      case "have":
        // The server begins with a new publication as soon as it knows that no old name is shown with it.
        if (this.#transports.have(message)) this.#signal?.acknowledge();
        break;
      case "answer":
        this.#transports.answered(message.transport, message.sdp);
        break;
      case "restart":
        void this.#transports.replace();
        break;
      case "chat":
        this.chat.received(message);
        break;
      case "typing":
        this.#typing(message);
        break;
      case "speakers":
        this.#roster.speak(message.speakers);
        break;
      case "layers":
        this.#publishing.watched(message.publications);
        break;
      case "who":
        this.#asking.shift()?.resolve(message);
        break;
      case "error":
        this.#failed(message);
        break;
      default: // a newer server's
    }
  }

  /** @param {TypingSeen} message */
  #typing({ from, to }) {
    const participant = this.participants.get(from);
    if (participant) this.#emit("typing", { participant, private: to !== undefined });
  }

  /** @param {ErrorMessage} message */
  #failed(message) {
    if (this.chat.refused(message)) return; // whoever said it hears why
    this.#transports.refused(message);
    this.#publishing.refused(message.id ?? 0);
    this.#emit("error", { error: new MotetError(message.reason, message) });
  }

  // Slots

  #bindSlots() {
    for (const publication of this.#roster.publications()) this.#bind(publication);
    for (const slot of this.#transports.slots()) {
      if (slot.kind === "audio" && slot.publication !== null) this.#playback.play(slot);
    }
  }

  /** @param {Publication} publication */
  #bind(publication) {
    if (publication.participant !== this.me) publication.bind(this.#transports.slotOf(publication.id) ?? null);
  }

  /** @param {Publication} publication @param {HTMLMediaElement} element @param {boolean} attached */
  #attached(publication, element, attached) {
    if (publication.kind !== "video" || publication.participant === this.me) return;
    if (attached) this.#wants.add(publication.id, element, publication.source);
    else this.#wants.remove(publication.id, element);
    this.#growLater();
  }

  /** The others' pictures that need a slot to be seen. */
  #pictures() {
    return this.#roster.publications().filter(({ kind, muted, attached, participant }) => (
      kind === "video" && !muted && attached && participant !== this.me));
  }

  #growLater() {
    clearTimeout(this.#growing);
    this.#growing = setTimeout(() => this.#grow(), GROW_AFTER);
  }

  #grow() {
    if (this.#entered) this.#transports.grow();
  }

  /** Whether new frames should be arriving in a slot: otherwise its standing still means nothing. @param {Slot} slot */
  #due({ publication, coming, why }) {
    const shown = this.#roster.publications().find(({ id }) => id === (publication ?? coming));
    // A shared screen may stand still for as long as its owner reads.
    return shown !== undefined && shown.source === "camera" && !shown.muted && !shown.participant.away && shown.attached
      && why !== "not-sent" && why !== "not-wanted" && this.#wants.wants(shown.id) && (this.#signal?.up ?? false);
  }

  // One's own tracks

  /** @param {Publication} publication */
  #published(publication) {
    const track = publication.participant === this.me ? this.#publishing.of(publication.source) : undefined;
    if (!track) {
      this.#bind(publication);
      this.#growLater();
      return;
    }
    publication.bind(track.track && { track: track.track });
    this.#publishing.published(track, publication.id);
  }

  /** @param {LocalTrack} track @param {MediaStreamTrack | null} opened @param {MotetError | undefined} error */
  async #take(track, opened, error) {
    if (opened) await track.set(opened);
    else track.error = error ?? null;
  }

  /** @param {LocalTrack} track @param {DeviceChoice} choice */
  async #set(track, choice) {
    if (this.state === "closed") throw new MotetError("closed");
    await track.set(choice);
  }

  /** @param {LocalTrack} track */
  #trackChanged(track) {
    const publication = track.publication === null ? undefined : this.me.publications.get(track.publication);
    if (publication) {
      publication.bind(track.track && { track: track.track });
      const { id, kind, source } = publication;
      if (publication.update({ id, participant: this.me.id, kind, source, muted: track.muted })) {
        this.#emit("publicationchanged", { participant: this.me, publication });
      }
    }
    if (this.state !== "closed") this.#emit("mediachanged", { media: track });
  }

  /**
   * @template {keyof RoomEventMap} K
   * @param {K} type
   * @param {RoomEventMap[K]["detail"]} detail
   */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Somebody whom the room is too big to name by itself. @param {ParticipantInfo} info @returns {Person} */
function person({ id, name, away = false }) {
  return { id, name, away };
}
