// Lost packets are asked for and sent again: five in a hundred, through the relay, towards each browser and from each.

import assert from 'node:assert/strict';

import { rtpOf } from './support/datagram.js';
import { suite } from './support/suite.js';
import { until } from './support/wait.js';

const own = suite({ relay: true, seed: 5 });
const LOSS = 0.05;
// Small, so that Chromium makes one layer of it and nothing but losses disturbs the picture; detailed, so that enough packets are lost in a few seconds.
const PICTURE = { fps: 15, detail: true };
/** Seconds without and with loss. */
const BEFORE = 3;
const DURING = 8;
/** Packets of the picture that are lost at least. */
const LEAST = 12;

const picture = (streams) => streams.find(({ kind, packetsReceived }) => kind === 'video' && packetsReceived > 0);
const media = (datagram) => rtpOf(datagram) !== null;

async function flowOf(member) {
  const { ufrag } = await member.connection();
  return until(`${member} is seen at the relay`, () => own.proxy.flowOf(ufrag));
}

const sent = async (member) => (await member.outbound()).filter(({ kind, packetsSent }) => kind === 'video' && packetsSent > 0);

/** What is encoded, decoded and shown of a publisher in some seconds, and until enough was lost. */
async function decodes(receiver, publisher, seconds, enough = () => true) {
  const state = async () => ({ stats: picture(await receiver.inbound()), layers: await sent(publisher) });
  await receiver.mark(publisher);
  const before = await state();
  const { gap, seconds: lasted } = await until(`${receiver} has shown ${publisher} for ${seconds} s and enough was lost`, async () => {
    const shown = await receiver.frames(publisher);
    return { ok: shown.seconds >= seconds && enough(), ...shown };
  });
  const now = await state();
  const more = (field) => (now.stats[field] ?? 0) - (before.stats[field] ?? 0);
  const encoded = before.layers.map(({ ssrc, framesEncoded }) => now.layers.find((layer) => layer.ssrc === ssrc).framesEncoded - framesEncoded);
  return { gap, decoded: more('framesDecoded'), encoded: Math.max(...encoded), rate: more('framesDecoded') / lasted, freezes: more('freezeCount'),
    keyframes: more('keyFramesDecoded'), nacks: more('nackCount'), retransmitted: more('retransmittedPacketsReceived'), plis: more('pliCount') };
}

const described = ({ decoded, encoded, rate, keyframes, plis, freezes, gap }) => `${decoded} of ${encoded} frames decoded (${rate.toFixed(1)}/s), `
  + `${keyframes} key frames, ${plis} PLI, ${freezes} freezes, longest gap ${gap} ms`;

/**
 * What is repaired is decoded, whatever else the machine does meanwhile. A late repair of a frame that no other depends on (two in three
 * are such) is thrown away by the decoder, rightly; everything else would stand still until a key frame is asked for.
 */
function assertRepaired(result, healthy) {
  assert.ok(result.decoded > result.encoded * 0.7, `${result.decoded} of ${result.encoded} frames were decoded`);
  assert.ok(result.gap < 1500 + healthy.gap, `the picture stood still for ${result.gap} ms, ${healthy.gap} ms without loss`);
  assert.equal(result.plis, 0, 'no key frame had to be asked for');
}

/** Counts, by their plain numbers, the packets of a picture that were lost at the relay and those of its retransmission stream. */
function countAtRelay(way, flow, { media: source, rtx }) {
  const counted = { lost: new Set(), repeated: new Set(), repeatedLost: 0 };
  const end = own.proxy.tap((direction, where, datagram, lost) => {
    if (direction !== way || where !== flow) return;
    const rtp = rtpOf(datagram);
    if (rtp?.ssrc === source && lost) counted.lost.add(rtp.sequence);
    if (rtp?.ssrc !== rtx) return;
    if (lost) counted.repeatedLost += 1;
    else counted.repeated.add(rtp.sequence);
  });
  return { counted, end };
}

for (const kind of ['chromium', 'firefox']) {
  own.test(`${kind} gets what was lost on the way to it on the retransmission stream`, async (call) => {
    const publisher = await call.join('chromium', { picture: PICTURE });
    const receiver = await call.join(kind, { picture: false, tone: false });
    await receiver.sees(publisher);
    const flow = await flowOf(receiver);
    const { mid } = picture(await receiver.inbound());
    const healthy = await decodes(receiver, publisher, BEFORE);
    call.say(`${kind} without loss: ${described(healthy)}`);

    const { counted, end } = countAtRelay('down', flow, await receiver.page.instrument('sources', mid));
    flow.policy.down = { loss: LOSS, only: media };
    const result = await decodes(receiver, publisher, DURING, () => counted.lost.size >= LEAST);
    end();
    call.say(`${kind}: ${counted.lost.size} packets of the picture lost, ${result.nacks} asked for, ${counted.repeated.size} retransmitted `
      + `(and ${counted.repeatedLost} of these lost), ${result.retransmitted} recognised; ${described(result)}`);
    // Not all: what was lost last is still to be asked for, and Firefox does not always ask twice.
    assert.ok(counted.repeated.size >= counted.lost.size * 0.7, `${counted.repeated.size} of ${counted.lost.size} were sent again`);
    // Firefox does not count what it recovers: there the frames alone tell.
    if (kind === 'chromium') assert.ok(result.retransmitted >= counted.repeated.size * 0.8, `${result.retransmitted} recognised`);
    assertRepaired(result, healthy);
    assert.equal((await receiver.sees(publisher)).member, publisher.number);
  });

  own.test(`the server asks ${kind} for what was lost on the way from it`, async (call) => {
    const publisher = await call.join(kind, { picture: PICTURE });
    const receiver = await call.join('chromium', { picture: false, tone: false });
    await receiver.sees(publisher);
    const flow = await flowOf(publisher);
    const healthy = await decodes(receiver, publisher, BEFORE);
    call.say(`${kind} without loss: ${described(healthy)}`);

    const sums = async () => {
      const layers = await sent(publisher);
      const sum = (field) => layers.reduce((all, layer) => all + (layer[field] ?? 0), 0);
      return { nacks: sum('nackCount'), again: sum('retransmittedPacketsSent') };
    };
    const before = await sums();
    flow.policy.up = { loss: LOSS, only: media };
    const result = await decodes(receiver, publisher, DURING, () => flow.up.dropped >= 2 * LEAST);
    const after = await sums();
    call.say(`${kind}: ${flow.up.dropped} packets of any kind lost, ${after.nacks - before.nacks} NACKs, ${after.again - before.again} packets sent again; `
      + described(result));
    assert.ok(after.nacks > before.nacks, 'the server asked');
    assert.ok(after.again > before.again, 'the browser sent again');
    assertRepaired(result, healthy);
  });
}

own.test('a lost key frame is repaired at once and not after the decoder has waited for it', async (call) => {
  const publisher = await call.join('chromium', { picture: PICTURE });
  await until('the publisher sends', async () => (await publisher.outbound()).some(({ packetsSent }) => packetsSent > 20));
  // The first two packets of a picture towards the newcomer are the beginning of a key frame.
  const known = new Set([...own.proxy.flows.values()]);
  const rule = own.proxy.dropNext('down', (datagram, flow) => !known.has(flow) && media(datagram) && datagram.length > 400, { times: 2 });
  const receiver = await call.join('chromium', { picture: false, tone: false });
  const start = performance.now();
  await receiver.sees(publisher, { ceiling: 10_000 });
  const took = performance.now() - start;
  call.say(`${rule.dropped} packets of the first key frame lost, the picture came after ${Math.round(took)} ms`);
  assert.equal(rule.dropped, 2);
  assert.ok(took < 2500, `the picture came after ${Math.round(took)} ms; a decoder that gives up waits 3 s`);
});
