// Each flight of the DTLS handshake is lost once, in both browsers: the connection is made all the same, and hardly later.

import assert from 'node:assert/strict';

import { flightOf } from './support/datagram.js';
import { suite } from './support/suite.js';
import { until } from './support/wait.js';

const own = suite({ relay: true });
// The most that one lost flight may cost, in ms: both browsers repeat after 50 ms, the server after less.
const MOST = 100;
// Each case is measured this often and the median judged: a busy machine delays one attempt, not most of them.
const TIMES = 3;

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** Joins once on a page that is open already; the time from the ClientHello on the wire to the browser's `connected`, in ms. */
async function handshake(member, flight, room) {
  const rule = flight ? own.proxy.dropFlight(flight) : null;
  let hello;
  const untap = own.proxy.tap((way, flow, datagram) => {
    if (hello === undefined && way === 'up' && flightOf(datagram, true) === 1) hello = performance.timeOrigin + performance.now();
  });
  await member.enter({ room });
  const connected = await until(`${member} is connected`, () => member.page.evaluate(() => {
    const { timeline, connections } = window.instruments;
    const n = connections.length - 1;
    const entry = timeline.find((one) => one.n === n && one.what === 'connectionstate' && one.state === 'connected');
    return entry && performance.timeOrigin + entry.at;
  }), { every: 20 });
  untap();
  rule?.remove();
  await member.leave();
  assert.ok(hello !== undefined, 'a ClientHello passed the relay');
  if (rule) assert.ok(rule.dropped > 0 && rule.done, `flight ${flight} was lost (${rule.dropped} datagrams) and repeated (${rule.done})`);
  return connected - hello;
}

for (const kind of ['chromium', 'firefox']) {
  own.test(`${kind} connects though each flight is lost once`, async (call) => {
    const member = await call.join(kind, { picture: false, tone: false });
    await until('the page is connected', async () => (await member.connection()).state === 'connected');
    await member.leave();
    const times = {};
    for (const flight of [null, 1, 2, 3, 4]) {
      times[flight ?? 'none'] = [];
      for (let i = 0; i < TIMES; i += 1) times[flight ?? 'none'].push(await handshake(member, flight, `${call.room}-${flight ?? 'none'}-${i}`));
    }
    for (const [flight, values] of Object.entries(times)) {
      call.say(`${kind}, flight lost: ${flight}: ${values.map((ms) => ms.toFixed(0)).join(', ')} ms from ClientHello to connected`);
    }
    const base = median(times.none);
    for (const flight of [1, 2, 3, 4]) {
      const more = median(times[flight]) - base;
      assert.ok(more <= MOST, `losing flight ${flight} costs ${Math.round(more)} ms in ${kind}`);
    }
  });
}
