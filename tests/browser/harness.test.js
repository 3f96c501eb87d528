// The instruments, without Motet: what one real browser draws and sounds is recognised in another, directly and through the relay.
// When this fails, no other result of these tests means anything.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { chromium, firefox } from './support/browsers.js';
import { blankSite } from './support/blank.js';
import { connect, disconnect } from './support/direct.js';
import { keep } from './support/artifacts.js';
import { acquireAddress } from './support/network.js';
import { Proxy } from './support/proxy.js';
import { until } from './support/wait.js';

let network;
let site;
let browsers;

before(async () => {
  network = acquireAddress();
  site = await blankSite();
  const [one, other] = await Promise.all([chromium({ realAddresses: true }), firefox({ realAddresses: true })]);
  browsers = { chromium: one, firefox: other };
});

after(async () => {
  for (const browser of Object.values(browsers ?? {})) await browser.close();
  await site?.close();
  network?.remove();
});

const recording = (name, body) => test(name, async (t) => {
  try {
    await body(t);
  } catch (error) {
    t.diagnostic(`kept in ${await keep(name, error, { browsers: Object.values(browsers) })}`);
    throw error;
  }
});

async function pair(t, from, to) {
  const pages = [await browsers[from].open(site.origin, { name: `from-${from}` }), await browsers[to].open(site.origin, { name: `to-${to}` })];
  t.after(async () => {
    await disconnect(...pages);
    for (const page of pages) await page.close();
  });
  return pages;
}

const seen = (page, mid) => page.instrument('look', `raw:${mid}`);
const heard = (page, mid) => page.instrument('hear', `raw:${mid}`);

for (const [from, to, member] of [['chromium', 'chromium', 1], ['chromium', 'firefox', 2], ['firefox', 'chromium', 3]]) {
  recording(`${from}'s picture and tone are recognised in ${to}`, async (t) => {
    const [one, other] = await pair(t, from, to);
    const { mids } = await connect(one, other, { picture: { member }, tone: { member } });
    const picture = await until('the picture is recognised', async () => {
      const look = await seen(other, mids.picture);
      return { ok: look.member !== null, ...look };
    });
    assert.equal(picture.member, member);
    assert.equal(picture.colour, member);
    assert.equal(picture.width, 320);
    const tone = await until('a tone is heard', async () => {
      const hear = await heard(other, mids.tone);
      return { ok: hear.member !== null, ...hear };
    });
    assert.deepEqual(tone.members, [member]);
    assert.equal(tone.member, member);
    // The number goes on: a frozen picture would still be recognised.
    await until('a later frame is shown', async () => (await seen(other, mids.picture)).frame > picture.frame + 10);
  });
}

for (const [kind, member] of [['chromium', 4], ['firefox', 5]]) {
  recording(`${kind} is lossy, moved and silent behind the relay when it is told to be`, async (t) => {
    const proxy = await Proxy.open({ address: network.address, seed: 7 });
    t.after(() => proxy.close());
    const [one, other] = await pair(t, kind, 'chromium');
    // The handshake's first flight is lost once, whichever side is the client.
    const flight = proxy.dropFlight(1);
    const { mids, ufrag } = await connect(one, other, { picture: { member, fps: 15 }, tone: { member }, proxy });
    await until('the picture comes through', async () => (await seen(other, mids.picture)).member === member);
    assert.ok(flight.done || flight.dropped === 0, 'the flight was repeated');
    const flow = proxy.flowOf(ufrag);
    assert.ok(flow.up.kinds.rtp > 0);

    proxy.set('up', { loss: 0.05 });
    const inbound = async () => (await other.instrument('streams', 'inbound-rtp')).find(({ kind: what }) => what === 'video');
    const recovered = await until('losses were retransmitted', async () => {
      const stats = await inbound();
      // Firefox repeats packets as probes, which often repairs a loss before anybody asks for it.
      const asked = kind === 'firefox' || stats.nackCount > 0;
      return { ok: stats.retransmittedPacketsReceived > 0 && asked && flow.up.dropped > 0, ...stats };
    });
    assert.ok(recovered.framesDecoded > 0);
    proxy.set('up', {});

    flow.darken();
    const { frame } = await until('the last picture stays', async () => {
      const a = await seen(other, mids.picture);
      const b = await inbound();
      return { ok: flow.up.dropped > 40 && a.member !== null, ...a, packets: b.packetsReceived };
    });
    flow.darken(false);
    await until('the picture goes on', async () => {
      const look = await seen(other, mids.picture);
      return { ok: look.member === member && (look.frame - frame + 1024) % 1024 > 5, ...look };
    });
  });
}

recording('a picture that is nobody\'s is not recognised', async (t) => {
  const page = await browsers.chromium.open(site.origin, { name: 'alone' });
  t.after(() => page.close());
  const readings = await page.evaluate(() => {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width: 320, height: 180 });
    const context = canvas.getContext('2d');
    const read = () => window.instruments.read(canvas, 320, 180);
    const results = {};
    results.black = read();
    window.instruments.draw(context, 5, 77);
    results.right = read();
    // Somebody else's colour with this one's code, and one block turned over.
    context.fillStyle = 'rgb(40,170,60)';
    context.fillRect(0, 0, 320, 90);
    results.repainted = read();
    context.fillStyle = '#888';
    context.fillRect(0, 99, 32, 36);
    results.smeared = read();
    window.instruments.draw(context, 5, 77);
    const { data } = context.getImageData(8, 110, 1, 1);
    context.fillStyle = data[0] > 127 ? '#000' : '#fff';
    context.fillRect(0, 99, 32, 36);
    results.flipped = read();
    // The smallest layer.
    const small = document.createElement('canvas');
    Object.assign(small, { width: 80, height: 45 });
    window.instruments.draw(context, 5, 900);
    small.getContext('2d').drawImage(canvas, 0, 0, 80, 45);
    results.small = window.instruments.read(small, 80, 45);
    return results;
  });
  assert.equal(readings.black.member, null);
  assert.deepEqual([readings.right.member, readings.right.frame, readings.right.colour], [5, 77, 5]);
  assert.deepEqual([readings.repainted.member, readings.repainted.colour], [5, 1]);
  assert.equal(readings.smeared.member, null);
  assert.equal(readings.flipped.member, null);
  assert.deepEqual([readings.small.member, readings.small.frame, readings.small.colour], [5, 900, 5]);
});

recording('a tone is told from silence, and two tones from one', async (t) => {
  for (const browser of Object.values(browsers)) {
    const page = await browser.open(site.origin, { name: 'tones' });
    t.after(() => page.close());
    await page.evaluate(async () => {
      const { instruments } = window;
      instruments.listen('one', await instruments.tone({ member: 6, gain: 0.2 }));
      const quiet = await instruments.tone({ member: 1 });
      quiet.enabled = false;
      instruments.listen('silence', quiet);
    });
    const one = await until('the tone is heard', async () => {
      const hear = await page.instrument('hear', 'one');
      return { ok: hear.member !== null, ...hear };
    });
    assert.deepEqual([one.member, one.members], [6, [6]]);
    const silence = await page.instrument('hear', 'silence');
    assert.deepEqual([silence.member, silence.members], [null, []]);
    // The transform itself, on samples that are made up: two tones, one of them 12 dB lower.
    const both = await page.evaluate(() => {
      const samples = Float32Array.from({ length: 8192 }, (_, i) => [2, 5].reduce((sum, member, n) =>
        sum + (0.2 / (1 + 3 * n)) * Math.sin((2 * Math.PI * window.instruments.frequencyOf(member) * i) / 48000), 0));
      return window.instruments.recognise(samples);
    });
    assert.deepEqual([both.member, both.members], [2, [2, 5]]);
  }
});
