// A UDP relay between browsers and the server: the network of the tests. It loses, delays and darkens, loses exactly one
// datagram or one DTLS flight, and changes a client's port as a NAT does. Each client address has an upstream socket of its own, so the
// server sees as many addresses as there are clients.
//
// "up" is from the browser to the server, "down" the other way.

import { createSocket } from 'node:dgram';

import { flightOf, fragmentsOf, kindOf, nominates, userOf } from './datagram.js';

/** A small seeded generator (mulberry32): the same seed loses the same numbers of a sequence of datagrams. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// Room for a burst of key frames while the test's own process is busy elsewhere.
const BUFFER = 4 << 20;

function bind(address, port = 0) {
  const socket = createSocket({ type: 'udp4', recvBufferSize: BUFFER, sendBufferSize: BUFFER });
  // ECONNREFUSED after the other side closed its port concerns one datagram, not the relay.
  socket.on('error', () => {});
  return new Promise((done, failed) => {
    socket.once('error', failed);
    socket.bind(port, address, () => {
      socket.off('error', failed);
      done(socket);
    });
  });
}

const count = () => ({ datagrams: 0, bytes: 0, dropped: 0, kinds: {} });

/** One client address. */
class Flow {
  constructor(proxy, client, socket) {
    Object.assign(this, { proxy, client, socket });
    /** ICE user names of the client that were seen here. */
    this.names = new Set();
    /** `{ loss, delay, dark, only }` per direction, over the proxy's own. */
    this.policy = { up: {}, down: {} };
    this.up = count();
    this.down = count();
    /** Datagrams that the server still sent to a port that this client no longer has. */
    this.strays = 0;
    /** Checks with USE-CANDIDATE seen. */
    this.nominations = 0;
    this.rebindings = 0;
    this.opened = performance.now();
    this.last = this.opened;
  }

  /** Loses everything in both directions from now on, or no longer. */
  darken(dark = true) {
    this.policy.up.dark = dark;
    this.policy.down.dark = dark;
  }

  /** Gives the client a new port at once; what is sent to the old one is lost, as behind a NAT that forgot it. */
  async rebind() {
    const old = this.socket;
    const socket = await bind(this.proxy.target.bind);
    const before = old.address().port;
    this.socket = socket;
    old.removeAllListeners('message');
    old.on('message', () => { this.strays += 1; });
    this.proxy.sockets.add(socket);
    this.listen(socket);
    this.rebindings += 1;
    return { before, after: socket.address().port };
  }

  listen(socket) {
    socket.on('message', (datagram) => this.proxy.pass('down', this, datagram));
  }
}

export class Proxy {
  flows = new Map();
  sockets = new Set();
  rules = [];
  taps = [];
  timers = new Set();
  closed = false;

  /**
   * @param {object} options
   * @param {string} options.address where browsers send to
   * @param {{ address: string, port: number }} [options.target] the server; may be set later (`aim`)
   * @param {number} [options.seed]
   */
  static async open({ address, target, seed = 1 }) {
    const proxy = new Proxy();
    proxy.random = random(seed);
    proxy.address = address;
    proxy.policy = { up: {}, down: {} };
    proxy.front = await bind(address);
    proxy.port = proxy.front.address().port;
    proxy.front.on('message', (datagram, client) => proxy.#fromClient(datagram, client));
    if (target) proxy.aim(target);
    return proxy;
  }

  /** Where the server is. */
  aim({ address, port }) {
    this.target = { address, port, bind: this.address };
  }

  /** Loss (0…1), delay (ms) and darkness of a direction, for all clients that have none of their own. */
  set(direction, policy) {
    this.policy[direction] = policy;
  }

  /** The flows on which a client with this ICE user name was seen, the newest last. */
  flowsOf(ufrag) {
    return [...this.flows.values()].filter((flow) => flow.names.has(ufrag));
  }

  /** The flow on which this client's datagrams come now. */
  flowOf(ufrag) {
    return this.flowsOf(ufrag).sort((a, b) => a.last - b.last).at(-1);
  }

  /** Calls `tap(direction, flow, datagram, lost)` for every datagram. Returns a function that ends it. */
  tap(tap) {
    this.taps.push(tap);
    return () => { this.taps = this.taps.filter((other) => other !== tap); };
  }

  /**
   * Loses the next `times` datagrams for which `matches(datagram, flow)` holds, after letting `skip` of them pass. Returns the
   * rule: `rule.dropped` counts, `rule.done` says whether all are lost, `rule.remove()` ends it.
   */
  dropNext(direction, matches, { times = 1, skip = 0 } = {}) {
    let left = skip;
    return this.#rule((way, flow, datagram, rule) => {
      if (way !== direction || rule.dropped >= times || !matches(datagram, flow)) return false;
      if (left > 0) { left -= 1; return false; }
      return true;
    }, (rule) => rule.dropped >= times);
  }

  /**
   * Loses one DTLS flight (1…4, without a cookie round) once, all its datagrams: until the same fragment comes again, which is its
   * repetition. The DTLS client is the side that sent the ClientHello.
   */
  dropFlight(number, matches = () => true) {
    const seen = new WeakMap();
    const clients = new WeakMap();
    return this.#rule((way, flow, datagram, rule) => {
      if (kindOf(datagram) !== 'dtls' || !matches(flow)) return false;
      if (flightOf(datagram, false) === 1) clients.set(flow, way);
      if (flightOf(datagram, clients.get(flow) === way) !== number) return false;
      const fragments = seen.get(flow) ?? new Set();
      seen.set(flow, fragments);
      const mine = fragmentsOf(datagram);
      if (rule.done || mine.some((fragment) => fragments.has(fragment))) {
        rule.done = true;
        return false;
      }
      for (const fragment of mine) fragments.add(fragment);
      return true;
    }, (rule) => rule.done);
  }

  #rule(decide, isDone) {
    const rule = { dropped: 0, done: false, remove: () => { this.rules = this.rules.filter((other) => other !== rule); } };
    rule.decide = (way, flow, datagram) => {
      const drop = decide(way, flow, datagram, rule);
      if (drop) rule.dropped += 1;
      rule.done = isDone(rule);
      return drop;
    };
    this.rules.push(rule);
    return rule;
  }

  #fromClient(datagram, client) {
    const key = `${client.address}:${client.port}`;
    let flow = this.flows.get(key);
    if (flow?.waiting) {
      flow.waiting.push(datagram);
      return;
    }
    if (!flow) {
      flow = new Flow(this, client, null);
      flow.waiting = [datagram];
      this.flows.set(key, flow);
      bind(this.address).then((socket) => {
        this.sockets.add(socket);
        if (this.closed) return socket.close();
        flow.socket = socket;
        flow.listen(socket);
        const { waiting } = flow;
        flow.waiting = null;
        for (const early of waiting) this.pass('up', flow, early);
      });
      return;
    }
    this.pass('up', flow, datagram);
  }

  pass(way, flow, datagram) {
    if (this.closed) return;
    const counter = flow[way];
    const kind = kindOf(datagram);
    counter.datagrams += 1;
    counter.bytes += datagram.length;
    counter.kinds[kind] = (counter.kinds[kind] ?? 0) + 1;
    if (way === 'up') {
      flow.last = performance.now();
      const user = userOf(datagram);
      if (user?.client) flow.names.add(user.client);
      if (nominates(datagram)) flow.nominations += 1;
    }
    const policy = { ...this.policy[way], ...flow.policy[way] };
    let lost = Boolean(policy.dark);
    for (const rule of this.rules) if (rule.decide(way, flow, datagram)) lost = true;
    if (!lost && policy.loss && (!policy.only || policy.only(datagram))) lost = this.random() < policy.loss;
    for (const tap of this.taps) tap(way, flow, datagram, lost);
    if (lost) {
      counter.dropped += 1;
      return;
    }
    if (policy.delay) {
      const timer = setTimeout(() => {
        this.timers.delete(timer);
        this.#send(way, flow, datagram);
      }, policy.delay);
      this.timers.add(timer);
    } else {
      this.#send(way, flow, datagram);
    }
  }

  #send(way, flow, datagram) {
    if (this.closed) return;
    if (way === 'up') {
      if (this.target) flow.socket.send(datagram, this.target.port, this.target.address, () => {});
    } else {
      this.front.send(datagram, flow.client.port, flow.client.address, () => {});
    }
  }

  /** What passed, for the artifacts. */
  summary() {
    return [...this.flows.values()].map((flow) => ({
      client: `${flow.client.address}:${flow.client.port}`, names: [...flow.names], up: flow.up, down: flow.down, strays: flow.strays,
      rebindings: flow.rebindings, nominations: flow.nominations,
    }));
  }

  async close() {
    this.closed = true;
    for (const timer of this.timers) clearTimeout(timer);
    for (const socket of [this.front, ...this.sockets]) {
      await new Promise((done) => {
        try { socket.close(done); } catch { done(); }
      });
    }
  }
}
