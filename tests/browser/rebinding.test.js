// The client's address changes under it: by a NAT that gives it another port, by a network that goes dark, by the browser's own report.

import assert from 'node:assert/strict';

import { suite } from './support/suite.js';
import { observeFor, until } from './support/wait.js';

const own = suite({ relay: true });

async function flowOf(member) {
  const { ufrag } = await member.connection();
  return until(`${member} is seen at the relay`, () => own.proxy.flowOf(ufrag));
}

/** The page's client may wish for an ICE restart, but none happens: what is then repaired, the server repairs. */
function forbidRestarts(page) {
  return page.evaluate(() => {
    window.wishedRestarts = 0;
    RTCPeerConnection.prototype.restartIce = () => { window.wishedRestarts += 1; };
  });
}

// Until the browser's next check: Chromium's come every 2.7 s, Firefox's every 4 to 6 s.
const CHECKS = { chromium: 4000, firefox: 8000 };

for (const kind of ['chromium', 'firefox']) {
  own.test(`${kind} behind a NAT that changes its port goes on without an ICE restart`, async (call) => {
    const other = await call.join('chromium');
    const moved = await call.join(kind, { before: forbidRestarts });
    await moved.sees(other);
    await other.sees(moved);
    await moved.hears(other);
    const flow = await flowOf(moved);
    const { ufrags } = await moved.connection();
    await moved.mark(other);
    await other.mark(moved);
    const { before, after } = await flow.rebind();
    assert.notEqual(before, after);

    // Both directions, at the latest after the next check.
    const start = performance.now();
    await moved.seesMore(other, { ceiling: CHECKS[kind] });
    await other.seesMore(moved, { ceiling: CHECKS[kind] });
    await moved.hears(other, { ceiling: 5000 });
    await until('the server sends nothing more to the old port', async () => {
      const strays = flow.strays;
      await moved.seesMore(other);
      await moved.seesMore(other);
      return flow.strays === strays;
    });
    const [here, there] = [await moved.frames(other), await other.frames(moved)];
    call.say(`${kind}: ${Math.round(performance.now() - start)} ms, longest gap ${here.gap} ms received, ${there.gap} ms sent, ${flow.strays} strays`);
    assert.ok(here.gap < CHECKS[kind] && there.gap < CHECKS[kind]);
    assert.deepEqual((await moved.connection()).ufrags, ufrags, 'no ICE restart');
    assert.equal((await moved.connection()).state, 'connected');
  });

  own.test(`${kind} behind a NAT that changes its port again and again stays in the call as it is`, async (call) => {
    const other = await call.join('chromium');
    const moved = await call.join(kind);
    await moved.sees(other);
    await other.sees(moved);
    for (let i = 0; i < 3; i += 1) {
      await (await flowOf(moved)).rebind();
      await moved.seesMore(other, { ceiling: 10_000 });
      await other.seesMore(moved, { ceiling: 10_000 });
    }
    assert.equal((await moved.page.evaluate(() => window.instruments.connections.length)), 1, 'the same connection');
    await moved.meets([other]);
    await other.meets([moved]);
  });

  own.test(`${kind} whose network goes dark restarts ICE on its own and comes back on another address`, async (call) => {
    const other = await call.join('chromium');
    const moved = await call.join(kind);
    await moved.sees(other);
    await other.sees(moved);
    const { ufrag } = await moved.connection();
    const dark = await flowOf(moved);
    await moved.mark(other);
    dark.darken();

    const start = performance.now();
    const renewed = await until(`${moved} offered new addresses`, async () => {
      const connection = await moved.connection();
      return { ok: connection.ufrag !== ufrag, ...connection };
    });
    const noticed = performance.now() - start;
    await moved.seesMore(other);
    await other.seesMore(moved);
    await moved.hears(other);
    const back = performance.now() - start;
    const { gap } = await moved.frames(other);
    call.say(`${kind}: restart after ${Math.round(noticed)} ms, back after ${Math.round(back)} ms, longest gap ${gap} ms`);
    const flow = own.proxy.flowOf(renewed.ufrag);
    assert.notEqual(flow, dark, 'another local port');
    assert.ok(dark.policy.up.dark, 'the old one is still dark');
    assert.equal((await moved.page.evaluate(() => window.instruments.connections.length)), 1, 'the same connection, the same keys');
    // Two samples a second apart, and their phase.
    assert.ok(noticed < 4500, `noticed after ${Math.round(noticed)} ms`);
    // The old path stays dark, so only the restart can have brought the picture back; left alone, Chromium gives up after 17 s.
    assert.ok(gap < 10_000, `${gap} ms without a picture`);
  });

  own.test(`${kind} acts at once when the browser says that the network is back`, async (call) => {
    const other = await call.join('chromium');
    const moved = await call.join(kind);
    await moved.sees(other);
    await other.sees(moved);
    const { ufrag } = await moved.connection();
    (await flowOf(moved)).darken();
    const start = performance.now();
    await moved.page.evaluate(() => window.dispatchEvent(new Event('online')));
    await until(`${moved} offered new addresses`, async () => (await moved.connection()).ufrag !== ufrag, { every: 20 });
    const noticed = performance.now() - start;
    await moved.seesMore(other);
    await other.seesMore(moved);
    call.say(`${kind}: restart after ${Math.round(noticed)} ms, back after ${Math.round(performance.now() - start)} ms`);
    assert.ok(noticed < 1000, `restarted after ${Math.round(noticed)} ms`);
    await moved.meets([other]);
    await other.meets([moved]);
  });
}

for (const kind of ['chromium', 'firefox']) {
  own.test(`${kind} whose path is dead for good gets a second connection, and nobody sees it leave`, async (call) => {
    const other = await call.join('chromium');
    const moved = await call.join(kind, { before: forbidRestarts });
    await moved.sees(other);
    await other.sees(moved);
    await moved.mark(other);
    (await flowOf(moved)).darken();
    const start = performance.now();
    await until(`${moved} made a second connection`, async () => (await moved.page.evaluate(() => window.instruments.connections.length)) === 2);
    const begun = performance.now() - start;
    await moved.seesMore(other);
    await other.seesMore(moved);
    await moved.hears(other);
    const { gap } = await moved.frames(other);
    call.say(`${kind}: second connection after ${Math.round(begun)} ms, back after ${Math.round(performance.now() - start)} ms, longest gap ${gap} ms`);
    assert.ok(await moved.page.evaluate(() => window.wishedRestarts) > 0, 'a restart was tried first');
    await until('the first is closed', () => moved.page.evaluate(() => window.instruments.connections[0].connectionState === 'closed'));
    await other.meets([moved]);
    await moved.meets([other]);
    const told = (await other.report()).events.map(({ what }) => what);
    assert.ok(!told.includes('participantleft'), told.join(' '));
  });
}

// ms after eight seconds of darkness: the end of a fruitless attempt to restart, another, and a key frame.
const MOST_AFTER = 6000;

for (const kind of ['chromium', 'firefox']) {
  own.test(`${kind} without a network for eight seconds comes back by itself`, async (call) => {
    const other = await call.join('chromium');
    const cut = await call.join(kind);
    await cut.sees(other);
    await other.sees(cut);
    await cut.mark(other);
    await other.mark(cut);
    // Nobody's datagrams pass, whatever port they come from; the carrier is TCP on this machine and stays.
    own.proxy.set('up', { dark: true });
    own.proxy.set('down', { dark: true });
    const dark = await observeFor(8000);
    own.proxy.set('up', {});
    own.proxy.set('down', {});
    const start = performance.now();
    await cut.seesMore(other);
    await other.seesMore(cut);
    await cut.hears(other);
    const back = performance.now() - start;
    const [here, there] = [await cut.frames(other), await other.frames(cut)];
    const { restarts } = await cut.connection();
    call.say(`${kind}: back ${Math.round(back)} ms after ${Math.round(dark)} ms of darkness, longest gaps ${here.gap} and ${there.gap} ms, ${restarts} restarts`);
    // Five seconds after the fruitless restart a second connection is begun, which takes over where it is the faster one.
    const connections = await cut.page.evaluate(() => window.instruments.connections.length);
    assert.ok(connections <= 2, `${connections} connections`);
    assert.ok(here.gap < dark + MOST_AFTER && there.gap < dark + MOST_AFTER, `${here.gap} and ${there.gap} ms without a picture`);
    await cut.meets([other]);
    await other.meets([cut]);
    const { events } = await other.report();
    assert.equal(events.filter(({ what }) => what === 'participantleft').length, 0, 'nobody left meanwhile');
  });
}
