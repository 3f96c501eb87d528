// Each flight of the DTLS handshake is lost once, in both browsers: the connection is made all the same, and hardly later.

import assert from 'node:assert/strict';

import { flightOf } from './support/datagram.js';
import { suite } from './support/suite.js';
import { until } from './support/wait.js';

const own = suite({ relay: true });
// The most that one lost flight may cost, in ms: both browsers repeat after 50 ms, the server after less.
const MOST = 100;
// Each case is measured this often, and the fastest is judged: a busy machine can delay any attempt, but nothing makes a timer run early.
const TIMES = 3;
// What no attempt may take even so, in ms: the timer of a second that RFC 6347 (§4.2.4.1) proposes would show.
const WORST = 600;

/**
 * Joins once on a page that is open already; the time on the wire, from the first ClientHello to the server's Finished that passes, in ms,
 * and the browser's own, until it says `connected`.
 */
async function handshake(member, flight, room) {
  const rule = flight ? own.proxy.dropFlight(flight) : null;
  let hello;
  let finished;
  const untap = own.proxy.tap((way, flow, datagram, lost) => {
    if (way === 'up' && flightOf(datagram, true) === 1) hello ??= performance.now();
    if (way === 'down' && !lost && flightOf(datagram, false) === 4) finished ??= performance.now();
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
  assert.ok(hello !== undefined && finished !== undefined, 'the handshake passed the relay');
  if (rule) assert.ok(rule.dropped > 0 && rule.done, `flight ${flight} was lost (${rule.dropped} datagrams) and repeated (${rule.done})`);
  return { wire: finished - hello, page: connected - (performance.timeOrigin + hello) };
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
      const list = (what) => values.map((one) => one[what].toFixed(0)).join(', ');
      call.say(`${kind}, flight lost: ${flight}: ${list('wire')} ms from ClientHello to Finished on the wire, ${list('page')} ms until the page is connected`);
    }
    const fastest = (values) => Math.min(...values.map(({ wire }) => wire));
    for (const flight of [1, 2, 3, 4]) {
      const more = fastest(times[flight]) - fastest(times.none);
      assert.ok(more <= MOST, `losing flight ${flight} costs ${Math.round(more)} ms in ${kind}`);
      for (const { wire } of times[flight]) assert.ok(wire < WORST, `${Math.round(wire)} ms with flight ${flight} lost in ${kind}`);
    }
  });
}
