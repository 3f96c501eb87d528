// What a file of tests needs: a server, browsers, perhaps the relay between them; and artifacts of whatever fails.

import { createSocket } from 'node:dgram';
import { constants, setPriority } from 'node:os';
import { after, before, test } from 'node:test';

import { keep } from './artifacts.js';
import { chromium, firefox } from './browsers.js';
import { Member } from './member.js';
import { acquireAddress } from './network.js';
import { Proxy } from './proxy.js';
import { startServer } from './server.js';

/** A test that takes longer than this hangs. */
const LIMIT = 180_000;

/** A UDP port that was free a moment ago, for a server that has to be told one before it starts. */
async function freePort(address) {
  const socket = createSocket('udp4');
  await new Promise((done) => socket.bind(0, address, done));
  const { port } = socket.address();
  await new Promise((done) => socket.close(done));
  return port;
}

/**
 * The relay is the network, and a network does not wait for a processor: where it does, packets arrive in clumps, and browsers rightly
 * take that for congestion. To be called when the browsers run, which would inherit it.
 */
function hurry() {
  try {
    setPriority(constants.priority.PRIORITY_HIGH);
  } catch { /* not root: clumps on a busy machine */ }
}

/**
 * Sets up a file's server and browsers before its first test and takes everything down after its last.
 * @param {object} options
 * @param {('chromium' | 'firefox')[]} [options.browsers]
 * @param {boolean} [options.relay] browsers reach the server through the relay (`suite.proxy`)
 * @param {boolean} [options.devices] browsers have fake cameras and microphones
 * @param {string[]} [options.flags] for the server
 * @param {number} [options.seed] of the relay's losses
 */
export function suite({ browsers = ['chromium', 'firefox'], relay = false, devices = false, flags = [], seed = 1 } = {}) {
  const own = { browsers: {}, rooms: 0 };

  before(async () => {
    own.network = acquireAddress();
    const { address } = own.network;
    let settings = { advertise: address, flags };
    if (relay) {
      own.proxy = await Proxy.open({ address, seed });
      settings = { advertise: `${address}:${own.proxy.port}`, udp: await freePort(address), flags };
      own.proxy.aim({ address, port: settings.udp });
    }
    await Promise.all([
      startServer(settings).then((server) => Object.assign(own, { server, origin: server.origin })),
      ...browsers.map(async (kind) => { own.browsers[kind] = await { chromium, firefox }[kind]({ devices }); }),
    ]);
    if (relay) hurry();
  }, { timeout: LIMIT });

  after(async () => {
    for (const browser of Object.values(own.browsers)) await browser.close().catch(() => {});
    await own.server?.stop();
    await own.proxy?.close();
    own.network?.remove();
  }, { timeout: LIMIT });

  /** A test in a room of its own. Its members leave when it ends; what they saw is kept when it fails. */
  own.test = (name, body, options = {}) => test(name, { timeout: LIMIT, ...options }, async (t) => {
    own.rooms += 1;
    const call = {
      room: `test-${process.pid}-${own.rooms}`,
      members: [],
      /** Another member, in the call's room. */
      join: async (kind, more = {}) => {
        const number = more.number ?? call.members.length;
        const member = await Member.join(own.browsers[kind], { origin: own.origin, room: call.room, ...more, number });
        call.members.push(member);
        return member;
      },
      say: (text) => t.diagnostic(text),
    };
    const logged = own.server.log().length;
    const start = performance.now();
    const cpuBefore = own.server.cpu();
    try {
      await body(call, t);
      const cpu = own.server.cpu() - cpuBefore;
      t.diagnostic(`server: ${cpu.toFixed(1)} s of a processor in ${((performance.now() - start) / 1000).toFixed(1)} s`);
      if (own.server.ended) throw new Error(`the server ended: ${JSON.stringify(own.server.ended)}`);
      // Nothing that happens in these tests is worth a warning to an operator, least of all a panic.
      const complaints = own.server.log().slice(logged).split('\n').filter((line) => / (WARN|ERROR) |panicked at/.test(line));
      if (complaints.length > 0) throw new Error(`the server complained:\n${complaints.join('\n')}`);
    } catch (error) {
      t.diagnostic(`kept in ${await keep(name, error, { browsers: Object.values(own.browsers), server: own.server, proxy: own.proxy })}`);
      throw error;
    } finally {
      for (const browser of Object.values(own.browsers)) {
        for (const page of [...browser.pages]) await page.close().catch(() => {});
      }
      if (own.proxy) {
        own.proxy.set('up', {});
        own.proxy.set('down', {});
        own.proxy.rules = [];
        own.proxy.taps = [];
      }
    }
  });
  return own;
}

/** Every ordered pair of different members. */
export function pairs(members) {
  return members.flatMap((one) => members.filter((other) => other !== one).map((other) => [one, other]));
}
