// Off is off: no packet leaves, no lamp burns; and on is on again at once.

import assert from 'node:assert/strict';

import { suite } from './support/suite.js';
import { observeFor, until } from './support/wait.js';

const own = suite();
// ms until others see the camera again, a new key frame included.
const BACK = 2500;

const sum = (streams, kind, field) => streams.filter((stream) => stream.kind === kind).reduce((total, stream) => total + (stream[field] ?? 0), 0);

for (const kind of ['chromium', 'firefox']) {
  own.test(`${kind}'s camera off sends nothing, darkens the lamp, and comes back`, async (call) => {
    const other = await call.join('chromium');
    const member = await call.join(kind);
    await other.sees(member);
    await member.sees(other);

    await member.page.evaluate(() => { window.cameraTrack = window.member.room.camera.track; });
    await member.setCamera(false);
    assert.equal(await member.page.evaluate(() => window.cameraTrack.readyState), 'ended', 'the lamp is dark');
    await until('others are told', async () => {
      const { participants } = await other.report();
      return participants.find(({ name }) => name === 'member 1').publications.find(({ source }) => source === 'camera')?.muted;
    });
    const before = await member.outbound();
    await observeFor(2000);
    const after = await member.outbound();
    const packets = sum(after, 'video', 'packetsSent') - sum(before, 'video', 'packetsSent');
    const bytes = sum(after, 'video', 'retransmittedBytesSent') - sum(before, 'video', 'retransmittedBytesSent');
    assert.equal(packets, 0, `${packets} packets left in 2 s with the camera off (${bytes} bytes of retransmission)`);
    // The sound is not touched by it.
    await other.hears(member);
    await member.seesMore(other);

    const start = performance.now();
    await other.mark(member);
    await member.showPicture();
    const back = await until('the picture is back', async () => {
      const [look, { frames }] = [await other.look(member), await other.frames(member)];
      return { ok: look.member === member.number && frames > 0, ...look };
    }, { every: 20 });
    const took = performance.now() - start;
    call.say(`${kind}: the picture is back after ${Math.round(took)} ms`);
    assert.equal(back.colour, member.number);
    assert.ok(took < BACK, `${Math.round(took)} ms until the picture was back`);
  });

  own.test(`${kind}'s microphone off is silence at once, and on is sound at once`, async (call) => {
    const other = await call.join('chromium');
    const member = await call.join(kind);
    await other.hears(member);
    await member.setMicrophone(false);
    const silence = await until('silence', async () => {
      const hear = await other.hear(member);
      return { ok: hear.member === null, ...hear };
    });
    assert.deepEqual(silence.members, []);
    const before = await member.outbound();
    await observeFor(2000);
    const packets = sum(await member.outbound(), 'audio', 'packetsSent') - sum(before, 'audio', 'packetsSent');
    assert.equal(packets, 0, `${packets} packets left in 2 s with the microphone off`);
    await until('others are told', async () => {
      const { participants } = await other.report();
      return participants.find(({ name }) => name === 'member 1').publications.find(({ source }) => source === 'microphone')?.muted;
    });
    await member.setMicrophone(true);
    const hear = await other.hears(member, { ceiling: 5000 });
    assert.deepEqual(hear.members, [member.number]);
    await other.seesMore(member);
  });
}

own.test('who joins with everything off is there, and can turn it on later', async (call) => {
  const other = await call.join('chromium');
  const member = await call.join('firefox', { picture: false, tone: false });
  await other.meets([member]);
  await member.sees(other);
  await member.showPicture();
  assert.equal((await other.sees(member)).member, member.number);
  await member.page.evaluate(async (number) => {
    await window.member.room.setMicrophone(await window.instruments.tone({ member: number }));
  }, member.number);
  assert.deepEqual((await other.hears(member)).members, [member.number]);
});
