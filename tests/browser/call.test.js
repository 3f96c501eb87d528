// Two Chromium windows and a Firefox in one room: everybody's own picture and tone arrive at everybody else, and at nobody else's place.

import assert from 'node:assert/strict';

import { pairs, suite } from './support/suite.js';
import { observeFor, until } from './support/wait.js';

const own = suite();

own.test('everybody sees and hears everybody else, and nobody himself', async (call) => {
  const members = [await call.join('chromium'), await call.join('chromium'), await call.join('firefox')];
  for (const member of members) await member.meets(members.filter((other) => other !== member));

  for (const [here, there] of pairs(members)) {
    const look = await here.sees(there);
    assert.equal(look.member, there.number, `${here} sees the code of ${there}: ${JSON.stringify(look)}`);
    assert.equal(look.colour, there.number, `${here} sees the colour of ${there}: ${JSON.stringify(look)}`);
    const hear = await here.hears(there);
    assert.equal(hear.member, there.number, `${here} hears ${there}: ${JSON.stringify(hear)}`);
    assert.deepEqual(hear.members, [there.number], `${here} hears only ${there} there: ${JSON.stringify(hear)}`);
  }
  for (const [here, there] of pairs(members)) await here.seesMore(there);

  // Below the client: whatever a slot carries, it is never one's own, and nobody is carried twice.
  for (const member of members) {
    const sections = await member.page.instrument('watchAll');
    const inbound = await member.inbound();
    const carrying = sections.filter(({ mid }) => inbound.some((stream) => stream.mid === mid && stream.packetsReceived > 0));
    const seen = { video: [], audio: [] };
    for (const { key, kind } of carrying) {
      const what = await until(`${member} recognises what section ${key} carries`, async () => {
        const found = await member.page.instrument(kind === 'video' ? 'look' : 'hear', key);
        return { ok: found.member !== null, ...found };
      });
      seen[kind].push(what.member);
    }
    const others = members.filter((other) => other !== member).map(({ number }) => number);
    assert.deepEqual(seen.video.sort(), others, `pictures in ${member}'s sections`);
    assert.deepEqual(seen.audio.sort(), others, `tones in ${member}'s sections`);
    assert.equal(new Set(inbound.map(({ ssrc }) => ssrc)).size, inbound.length);
  }
});

own.test('a latecomer sees and hears those who are there, and is seen', async (call) => {
  const first = await call.join('chromium');
  const second = await call.join('firefox');
  await first.sees(second);
  await second.sees(first);
  const late = await call.join('chromium');
  for (const [here, there] of [[late, first], [late, second], [first, late], [second, late]]) {
    assert.equal((await here.sees(there)).member, there.number);
    assert.deepEqual((await here.hears(there)).members, [there.number]);
  }
});

own.test('who leaves is gone everywhere, and his sections carry nothing more', async (call) => {
  const [stays, leaves, also] = [await call.join('chromium'), await call.join('chromium'), await call.join('firefox')];
  for (const [here, there] of pairs(call.members)) await here.sees(there);
  const before = await stays.page.instrument('watchAll');
  await leaves.leave();
  await stays.meets([also]);
  await also.meets([stays]);
  await stays.seesMore(also);
  await also.seesMore(stays);
  // Nobody's picture is left standing in any section as if it were still arriving.
  const packets = async () => Object.fromEntries((await stays.inbound()).map(({ mid, packetsReceived }) => [mid, packetsReceived]));
  const then = await packets();
  await observeFor(2000);
  const now = await packets();
  const moving = before.filter(({ mid }) => now[mid] > (then[mid] ?? 0)).map(({ kind }) => kind).sort();
  assert.deepEqual(moving, ['audio', 'video'], 'one picture and one sound still arrive');
});

own.test('two rooms at once stay apart', async (call) => {
  const here = [await call.join('chromium', { number: 0 }), await call.join('chromium', { number: 1 })];
  const there = [await call.join('chromium', { number: 2, room: `${call.room}-b` }), await call.join('firefox', { number: 3, room: `${call.room}-b` })];
  for (const group of [here, there]) {
    for (const [one, other] of pairs(group)) {
      await one.meets([other]);
      assert.equal((await one.sees(other)).member, other.number);
      assert.deepEqual((await one.hears(other)).members, [other.number]);
    }
  }
});

for (const kind of ['chromium', 'firefox']) {
  own.test(`three layers of ${kind}'s larger picture: each receiver gets the size that he shows`, async (call) => {
    const shows = await call.join(kind, { track: { width: 1280, height: 720 }, picture: { fps: 10 } });
    const other = kind === 'chromium' ? 'firefox' : 'chromium';
    const one = await call.join('chromium', { picture: false, tone: false, track: { width: 1280, height: 720 }, viewport: { width: 1320, height: 800 } });
    const two = await call.join(other, { picture: false, tone: false, track: { width: 240, height: 135 } });
    const gets = (member, width) => until(`${member} gets the picture that is ${width} wide`, async () => {
      const look = await member.look(shows);
      return { ok: look.member === shows.number && look.width === width, ...look };
    }, { ceiling: 40_000 }); // the top layer takes the encoder some seconds on a busy machine
    await gets(one, 1280);
    await gets(two, 320);
    // The section of the screen has encodings too, and may send probes although nothing is on it.
    const sent = (await shows.outbound()).filter(({ kind: what, rid, active, framesEncoded }) => what === 'video' && rid && active !== false && framesEncoded > 0);
    assert.deepEqual(sent.map(({ rid, frameWidth }) => `${rid} ${frameWidth}`).sort(), ['f 1280', 'h 640', 'q 320']);

    // The wish changes: each follows his own, nobody the other's.
    await two.show(shows, 640, 360);
    await gets(two, 640);
    await one.show(shows, 200, 112);
    await gets(one, 320);
    await gets(two, 640);
    await two.show(shows, 1280, 720);
    await gets(two, 1280);
    await gets(one, 320);
    assert.equal((await one.sees(shows)).member, shows.number);
  });
}

own.test('what nobody looks at is not sent to him, and comes back when he looks', async (call) => {
  const shows = await call.join('chromium');
  const looks = await call.join('firefox', { picture: false });
  await looks.sees(shows);
  await looks.show(shows, 0, 0);
  const packets = async () => (await looks.inbound()).filter(({ kind }) => kind === 'video').reduce((sum, { packetsReceived }) => sum + packetsReceived, 0);
  await until('no more packets of the picture arrive', async () => {
    const before = await packets();
    await observeFor(1000);
    return await packets() === before;
  });
  assert.deepEqual((await looks.hears(shows)).members, [shows.number], 'the sound goes on');
  await looks.show(shows, 320, 180);
  await looks.seesMore(shows);
});
