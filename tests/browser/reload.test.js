// Ways to disappear: a reload, a closed window, a dead renderer, a cut carrier. There is never a second copy of anybody.

import assert from 'node:assert/strict';

import { firefox } from './support/browsers.js';
import { Member } from './support/member.js';
import { suite } from './support/suite.js';
import { observeFor, until } from './support/wait.js';

const own = suite();

for (const kind of ['chromium', 'firefox']) {
  own.test(`${kind} reloads and is there once`, async (call) => {
    const other = await call.join('chromium');
    const member = await call.join(kind);
    await other.sees(member);
    // Whoever else was there at any moment, as the other member's client saw it.
    await other.page.evaluate(() => {
      window.most = 0;
      const count = () => { window.most = Math.max(window.most, [...window.member.room.participants.values()].filter(({ isMe }) => !isMe).length); };
      count();
      for (const type of ['participantjoined', 'participantleft']) window.member.room.addEventListener(type, count);
    });
    const start = performance.now();
    await member.page.reload();
    const reloaded = performance.now() - start;
    await member.enter();
    await other.meets([member]);
    await other.seesMore(member).catch(() => other.sees(member));
    await member.sees(other);
    call.say(`${kind}: reloaded in ${Math.round(reloaded)} ms`);
    assert.equal(await other.page.evaluate(() => window.most), 1, 'never two of the one who reloaded');
    const { total } = await other.report();
    assert.equal(total, 2);
  });

  own.test(`${kind}'s window is closed and its member gone at once`, async (call) => {
    const other = await call.join('chromium');
    const member = await call.join(kind);
    await other.sees(member);
    const start = performance.now();
    await member.close();
    await other.meets([], { ceiling: 5000 });
    call.say(`${kind}: gone after ${Math.round(performance.now() - start)} ms`);
    const { events } = await other.report();
    assert.equal(events.filter(({ what }) => what === 'participantleft').length, 1);
  });

  own.test(`${kind}'s carrier is cut: the same session goes on over a new one`, async (call) => {
    const other = await call.join('chromium');
    const member = await call.join(kind);
    await other.sees(member);
    await member.sees(other);
    const { id } = await member.report();
    await member.mark(other);
    await member.page.evaluate(() => window.instruments.sockets.at(-1).close(4000, 'cut by the test'));
    await until('a new carrier is up', async () => {
      const { sockets, state } = await member.page.evaluate(() => ({ sockets: window.instruments.sockets.map(({ readyState }) => readyState),
        state: window.member.room.state }));
      return { ok: sockets.length > 1 && sockets.at(-1) === 1 && state === 'connected', sockets, state };
    });
    // What is said on the new carrier is heard, and nobody was seen leaving.
    await member.setMicrophone(false);
    await until('the other is told', async () => {
      const { participants } = await other.report();
      return participants.find(({ name }) => name === 'member 1').publications.find(({ source }) => source === 'microphone')?.muted;
    });
    assert.equal((await member.report()).id, id, 'the same participant');
    assert.equal((await other.report()).events.filter(({ what }) => what === 'participantleft').length, 0);
    await member.seesMore(other);
    const { gap } = await member.frames(other);
    assert.ok(gap < 1500, `media went on meanwhile (longest gap ${gap} ms)`);
    assert.equal(await member.page.evaluate(() => window.instruments.connections.length), 1);
  });
}

own.test("Chromium's renderer dies: the browser says goodbye for it, and its member is gone at once", async (call) => {
  const other = await call.join('chromium');
  const member = await call.join('chromium');
  await other.sees(member);
  const start = performance.now();
  await member.page.kill();
  await other.meets([], { ceiling: 5000 });
  call.say(`gone after ${Math.round(performance.now() - start)} ms`);
});

own.test('a browser dies without a word: its member is away after 8 s and gone after 30 s', async (call, t) => {
  const doomed = await firefox();
  t.after(() => doomed.close().catch(() => {}));
  const other = await call.join('chromium');
  const member = await Member.join(doomed, { origin: own.origin, room: call.room, number: 1 });
  await other.sees(member);
  await member.sees(other);
  process.kill(doomed.pid, 'SIGKILL');
  const start = performance.now();
  const presence = async () => {
    const { participants } = await other.report();
    return participants.find(({ name }) => name === 'member 1');
  };
  await until('the other sees him as away, or gone', async () => {
    const found = await presence();
    return !found || found.away;
  });
  const away = performance.now() - start;
  await other.meets([], { ceiling: 45_000 });
  const gone = performance.now() - start;
  call.say(`away after ${Math.round(away / 100) / 10} s, gone after ${Math.round(gone / 100) / 10} s`);
  // The last packet, and the turn of the wheel that looks for it, are up to a second off.
  assert.ok(away > 7000 && away < 10_000, `away after ${Math.round(away)} ms`);
  assert.ok(gone > 28_000 && gone < 33_000, `gone after ${Math.round(gone)} ms`);
});

own.test('the server process sleeps for ten seconds and the call comes back', async (call) => {
  const members = [await call.join('chromium'), await call.join('firefox')];
  await members[0].sees(members[1]);
  await members[1].sees(members[0]);
  own.server.pause();
  await observeFor(10_000);
  own.server.proceed();
  for (const [here, there] of [members, [...members].reverse()]) {
    await here.seesMore(there, { ceiling: 30_000 });
    await here.meets([there]);
  }
  for (const member of members) {
    const { events } = await member.report();
    assert.equal(events.filter(({ what }) => what === 'closed').length, 0);
  }
});
