// Lost packets are asked for and sent again: five in a hundred, through the relay, towards each browser and from each.

import assert from 'node:assert/strict';

import { rtpOf } from './support/datagram.js';
import { suite } from './support/suite.js';
import { until } from './support/wait.js';

const own = suite({ relay: true, seed: 5 });
const LOSS = 0.05;
// Enough packets that some are lost in a few seconds: about fifty a second.
const PICTURE = { width: 640, height: 360, fps: 15 };
const TRACK = { width: 640, height: 360 };

const picture = (streams) => streams.find(({ kind, packetsReceived }) => kind === 'video' && packetsReceived > 0);
const media = (datagram) => rtpOf(datagram) !== null;

async function flowOf(member) {
  const { ufrag } = await member.connection();
  return until(`${member} is seen at the relay`, () => own.proxy.flowOf(ufrag));
}

/** Frames that are decoded and shown while packets are lost. */
async function decodes(receiver, publisher, seconds) {
  await receiver.mark(publisher);
  const before = picture(await receiver.inbound());
  const frames = await until(`${receiver} has shown ${publisher} for ${seconds} s`, async () => {
    const shown = await receiver.frames(publisher);
    return { ok: shown.seconds >= seconds, ...shown };
  });
  const now = picture(await receiver.inbound());
  return { frames, decoded: (now.framesDecoded - before.framesDecoded) / frames.seconds,
    freezes: (now.freezeCount ?? 0) - (before.freezeCount ?? 0), stats: now };
}

for (const kind of ['chromium', 'firefox']) {
  own.test(`${kind} gets what was lost on the way to it on the retransmission stream`, async (call) => {
    const publisher = await call.join('chromium', { picture: PICTURE, track: TRACK });
    const receiver = await call.join(kind, { picture: false, tone: false, track: TRACK });
    await receiver.sees(publisher);
    const flow = await flowOf(receiver);
    flow.policy.down = { loss: LOSS, only: media };

    const result = await decodes(receiver, publisher, 8);
    const { stats } = result;
    call.say(`${kind}: ${flow.down.dropped} lost, ${stats.nackCount} asked for, ${stats.retransmittedPacketsReceived} retransmitted, `
      + `${stats.packetsLost} missing, ${result.decoded.toFixed(1)} frames/s, ${result.freezes} freezes, longest gap ${result.frames.gap} ms`);
    assert.ok(flow.down.dropped >= 10, `${flow.down.dropped} packets were lost`);
    assert.ok(stats.nackCount > 0, 'the browser asked');
    assert.ok(stats.retransmittedPacketsReceived > 0, 'the server sent again, on a stream that the browser recognises');
    assert.ok(stats.packetsLost < flow.down.dropped / 2, `${stats.packetsLost} of ${flow.down.dropped} are still missing`);
    assert.ok(result.decoded > PICTURE.fps * 0.6, `${result.decoded} frames decoded per second`);
    assert.ok(result.frames.gap < 1500, `the picture stood still for ${result.frames.gap} ms`);
    assert.equal((await receiver.sees(publisher)).member, publisher.number);
  });

  own.test(`the server asks ${kind} for what was lost on the way from it`, async (call) => {
    const publisher = await call.join(kind, { picture: PICTURE, track: TRACK });
    const receiver = await call.join('chromium', { picture: false, tone: false, track: TRACK });
    await receiver.sees(publisher);
    const flow = await flowOf(publisher);
    flow.policy.up = { loss: LOSS, only: media };

    const result = await decodes(receiver, publisher, 8);
    const sent = (await publisher.outbound()).filter(({ kind: what, packetsSent }) => what === 'video' && packetsSent > 0);
    const nacks = sent.reduce((sum, { nackCount = 0 }) => sum + nackCount, 0);
    const again = sent.reduce((sum, { retransmittedPacketsSent = 0 }) => sum + retransmittedPacketsSent, 0);
    call.say(`${kind}: ${flow.up.dropped} lost, ${nacks} NACKs, ${again} sent again, ${result.decoded.toFixed(1)} frames/s, `
      + `longest gap ${result.frames.gap} ms, ${result.stats.pliCount} PLI`);
    assert.ok(flow.up.dropped >= 10, `${flow.up.dropped} packets were lost`);
    assert.ok(nacks > 0, 'the server asked');
    assert.ok(again > 0, 'the browser sent again');
    assert.ok(result.decoded > PICTURE.fps * 0.6, `${result.decoded} frames decoded per second`);
    assert.ok(result.frames.gap < 1500, `the picture stood still for ${result.frames.gap} ms`);
  });
}

own.test('a lost key frame is repaired at once and not after the decoder has waited for it', async (call) => {
  const publisher = await call.join('chromium', { picture: PICTURE, track: TRACK });
  await until('the publisher sends', async () => (await publisher.outbound()).some(({ packetsSent }) => packetsSent > 20));
  // The first two packets of a picture towards the newcomer are the beginning of a key frame.
  const known = new Set([...own.proxy.flows.values()]);
  const rule = own.proxy.dropNext('down', (datagram, flow) => !known.has(flow) && media(datagram) && datagram.length > 400, { times: 2 });
  const receiver = await call.join('chromium', { picture: false, tone: false, track: TRACK });
  const start = performance.now();
  await receiver.sees(publisher, { ceiling: 10_000 });
  const took = performance.now() - start;
  call.say(`${rule.dropped} packets of the first key frame lost, the picture came after ${Math.round(took)} ms`);
  assert.equal(rule.dropped, 2);
  assert.ok(took < 2500, `the picture came after ${Math.round(took)} ms; a decoder that gives up waits 3 s`);
});
