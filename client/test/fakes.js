// A browser made of plain objects: sockets, peer connections, devices and elements that tests look into.

import { mock } from "node:test";

import { Room } from "../room.js";

/** Lets every promise that can go on, go on. */
export async function settle() {
  for (let i = 0; i < 50; i += 1) await Promise.resolve();
}

/** Mocked timers, started anew. */
export function useClock() {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  return {
    /** In steps, so that what a timer starts has its turn. @param {number} ms */
    async pass(ms) {
      for (let left = ms; left > 0; left -= 50) {
        mock.timers.tick(Math.min(50, left));
        await settle();
      }
    },
    stop: () => mock.timers.reset(),
  };
}

export class FakeSocket {
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  /** Everything sent, parsed. */ sent = [];
  /** The code of our own close. */ closed = null;
  /** Whether pings are answered. */ lively = false;

  send(text) {
    const message = JSON.parse(text);
    this.sent.push(message);
    if (this.lively && message.t === "ping") queueMicrotask(() => this.say({ t: "pong", a: 0 }));
  }

  close(code) {
    this.closed = code;
  }

  open() {
    this.onopen?.({});
  }

  say(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  /** The other side or the network ends it. */
  end(code = 1006) {
    this.onclose?.({ code });
  }

  last(kind) {
    return this.sent.findLast((message) => message.t === kind);
  }

  count(kind) {
    return this.sent.filter((message) => message.t === kind).length;
  }
}

/** A list of sockets as they are opened, and the function that opens them. */
export function sockets() {
  const opened = [];
  return {
    opened,
    connect: () => {
      const socket = new FakeSocket();
      opened.push(socket);
      return socket;
    },
    get last() {
      return opened.at(-1);
    },
  };
}

export class FakeTrack {
  readyState = "live";
  enabled = true;
  onended = null;
  contentHint = "";

  static #made = 0;
  id = `track-${FakeTrack.#made++}`;

  constructor(kind, deviceId = "one") {
    this.kind = kind;
    this.deviceId = deviceId;
  }

  getSettings() {
    return { deviceId: this.deviceId };
  }

  stop() {
    this.readyState = "ended";
  }

  unplug() {
    this.readyState = "ended";
    this.onended?.({});
  }
}

export class FakeStream {
  constructor(tracks = []) {
    this.tracks = tracks;
  }
}

class FakeSender {
  track = null;

  constructor(encodings) {
    this.encodings = encodings;
  }

  async replaceTrack(track) {
    this.track = track;
  }

  getParameters() {
    return { transactionId: "", encodings: structuredClone(this.encodings) };
  }

  async setParameters({ encodings }) {
    this.encodings = encodings;
  }

  get active() {
    return this.encodings.some(({ active }) => active);
  }
}

export class FakePeer {
  connectionState = "new";
  signalingState = "stable";
  transceivers = [];
  remote = [];
  restarts = 0;
  offers = 0;
  closed = false;
  packets = 0;
  /** Sections that an answer knows. */ answered = 0;
  /** Frames decoded, by the index of the section. */ frames = new Map();
  onconnectionstatechange = null;

  addTransceiver(kind, init) {
    const transceiver = {
      mid: null,
      kind,
      direction: init.direction,
      sender: new FakeSender(init.sendEncodings ?? []),
      receiver: {
        track: new FakeTrack(kind),
        sources: [],
        getContributingSources() {
          return this.sources;
        },
      },
      stopped: false,
      setCodecPreferences() {},
      stop() {
        this.stopped = true;
      },
    };
    this.transceivers.push(transceiver);
    return transceiver;
  }

  async createOffer() {
    this.offers += 1;
    return { type: "offer", sdp: `offer ${this.offers}` };
  }

  async setLocalDescription({ type }) {
    this.signalingState = type === "rollback" ? "stable" : "have-local-offer";
    const live = this.transceivers.filter(({ stopped }) => !stopped);
    if (type === "rollback") for (const transceiver of live.slice(this.answered)) transceiver.mid = null;
    else live.forEach((transceiver, i) => { transceiver.mid ??= String(i); });
  }

  async setRemoteDescription({ sdp }) {
    if (this.signalingState !== "have-local-offer") throw new Error("no offer");
    if (sdp === "bad") throw new Error("bad answer");
    this.signalingState = "stable";
    // As Chromium does when simulcast is first answered.
    if (this.remote.length === 0) {
      for (const { sender } of this.transceivers) {
        if (sender.encodings.length > 1) for (const encoding of sender.encodings) encoding.active = true;
      }
    }
    this.remote.push(sdp);
    this.answered = this.transceivers.filter(({ mid }) => mid !== null).length;
  }

  restartIce() {
    this.restarts += 1;
  }

  async getStats() {
    return new Map([
      ["t", { type: "transport", selectedCandidatePairId: "p" }],
      ["p", { type: "candidate-pair", packetsReceived: this.packets }],
      ...[...this.frames].map(([index, framesDecoded]) => [`i${index}`, {
        type: "inbound-rtp", kind: "video", trackIdentifier: this.transceivers[index].receiver.track.id, framesDecoded,
      }]),
    ]);
  }

  close() {
    this.closed = true;
  }

  become(state) {
    this.connectionState = state;
    this.onconnectionstatechange?.({});
  }

  sender(index) {
    return this.transceivers[index].sender;
  }
}

/** A video element: frames are presented by the test. */
export class FakeVideo extends EventTarget {
  dataset = {};
  clientWidth = 320;
  clientHeight = 180;
  videoWidth = 0;
  videoHeight = 0;
  srcObject = null;
  #waiting = [];

  setAttribute() {}

  async play() {}

  requestVideoFrameCallback(callback) {
    this.#waiting.push(callback);
  }

  present(rtpTimestamp) {
    for (const callback of this.#waiting.splice(0)) callback(0, { rtpTimestamp });
  }
}

export class FakeDocument extends EventTarget {
  hidden = false;

  hide(hidden) {
    this.hidden = hidden;
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

/** Where a Room lives in tests. */
export function environment() {
  globalThis.MediaStream ??= FakeStream;
  const net = sockets();
  const peers = [];
  const audio = [];
  const opened = [];
  return {
    net,
    peers,
    audio,
    /** Device tracks as they were opened. */ opened,
    /** Set to an error to make devices fail. */ deviceFailure: null,
    openSocket: () => Object.assign(net.connect(), { lively: true }),
    createPeer() {
      const peer = new FakePeer();
      peers.push(peer);
      return peer;
    },
    createAudio() {
      const element = new FakeVideo();
      audio.push(element);
      return element;
    },
    async openTrack(source, choice) {
      if (this.deviceFailure) throw this.deviceFailure;
      if (choice instanceof FakeTrack) return choice;
      const track = new FakeTrack(source === "camera" ? "video" : "audio", choice?.deviceId?.ideal);
      opened.push(track);
      return track;
    },
    async openDevices({ camera, microphone }) {
      const result = { camera: null, microphone: null, errors: {} };
      for (const [source, choice] of Object.entries({ camera, microphone })) {
        if (!choice) continue;
        try {
          result[source] = await this.openTrack(source, choice);
        } catch (error) {
          result.errors[source] = error;
        }
      }
      return result;
    },
    window: new EventTarget(),
    document: new FakeDocument(),
    ResizeObserver: class {
      observe() {}
      unobserve() {}
      disconnect() {}
    },
    pixelRatio: () => 2,
    network: undefined,
  };
}

/** A room with Ada, who is oneself, and Ben, who shows his camera: 7. */
export function call() {
  const env = environment();
  const made = {
    env,
    /** @type {Room | null} */ room: null,
    /** Everything told to the page, from the join on. */ events: [],
    /** The last revision said. */ rev: 5,
    said: 1000,
    async join(options = {}, more = {}) {
      const room = new Room("https://calls.example/", { room: "garden", name: "Ada", ...options }, env);
      made.room = room;
      const emit = room.dispatchEvent;
      room.dispatchEvent = (event) => {
        made.events.push([event.type, event.detail]);
        return emit.call(room, event);
      };
      const joined = room.join(options);
      await settle();
      env.net.last.open();
      env.net.last.say({
        t: "welcome", s: 1, a: 1, caps: [], session: "5e5510n000000000", epoch: 1, resume: "token", you: "00000000000000aa",
        answer: "answer", room: { rev: 5, total: 2 },
        participants: [{ id: "00000000000000aa", name: "Ada" }, { id: "00000000000000bb", name: "Ben" }],
        publications: [{ id: 7, participant: "00000000000000bb", kind: "video", source: "camera", muted: false }],
        have: { n: 1, transport: 0, slots: [] }, limits: {}, ...more,
      });
      await joined;
      return env.net.last;
    },
    /** A numbered message of the server's. */
    say(message) {
      made.said += 1;
      env.net.last.say({ a: 0, ...message, s: made.said });
    },
  };
  return made;
}
