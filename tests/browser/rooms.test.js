// Rooms that grow, change hands and are looked away from: slots that grow in mid-call, names that always fit the picture, hidden and
// frozen pages, encodings that nobody watches, a carrier that is gone for a while.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';

import { chromium } from './support/browsers.js';
import { publisher } from './support/server.js';
import { suite } from './support/suite.js';
import { observeFor, until } from './support/wait.js';

const own = suite();

/** Participants of another make, which cost a browser nothing but what it receives. */
function publishers(call, numbers) {
  const children = numbers.map((number) => spawn(publisher(), [own.origin, call.room, '--name', `member ${number}`], { stdio: 'ignore' }));
  return { stop: () => children.forEach((child) => child.kill('SIGKILL')) };
}

const videoSections = (member) => member.page.evaluate(() => window.instruments.connections.at(-1).getTransceivers()
  .filter(({ receiver, currentDirection }) => receiver.track.kind === 'video' && currentDirection === 'recvonly').length);

// ms. A second connection needs no more; ten frames a second on a busy machine take half of it.
const BLINK = 900;
// ms. Twenty-four publishers, each a process of its own, and their pictures on two processors; a connection made anew or slots
// bound anew would be seen by the events.
const CROWDED = 3000;

for (const kind of ['chromium', 'firefox']) {
  own.test(`${kind} grows to twenty-four others in mid-call, and the first pictures do not blink`, async (call) => {
    const member = await call.join(kind, { tone: false, track: { width: 160, height: 90 } });
    const first = Array.from({ length: 6 }, (_, i) => 100 + i);
    const rest = Array.from({ length: 18 }, (_, i) => 200 + i);
    const started = [publishers(call, first)];
    try {
      const moves = (number) => until(`${member} sees ${number}`, async () => ((await member.frames(number))?.frames ?? 0) > 5, { ceiling: 60_000 });
      for (const number of first) await moves(number);
      assert.equal(await videoSections(member), 9);
      for (const number of first) await member.mark(number);
      const before = (await member.report()).events.length;
      const start = performance.now();
      started.push(publishers(call, rest));
      for (const number of rest) await moves(number);
      const gaps = [];
      for (const number of first) gaps.push((await member.frames(number)).gap);
      call.say(`${kind}: 24 pictures ${Math.round(performance.now() - start)} ms after 18 came, longest gap of those before ${Math.max(...gaps)} ms`);
      assert.equal(await videoSections(member), 25);
      assert.equal(await member.page.evaluate(() => window.instruments.connections.length), 1);
      assert.ok(Math.max(...gaps) < CROWDED, `${gaps} ms without a picture`);
      const { events } = await member.report();
      const hidden = events.slice(before).filter(({ what, who, source, visible }) => what === 'publicationchanged' && source === 'camera' && first.includes(Number(who.slice(7))) && !visible);
      assert.deepEqual(hidden, [], 'nobody who was seen was hidden');
    } finally {
      for (const { stop } of started) stop();
    }
  });

  own.test(`${kind} shows no picture under a wrong name while one slot goes from one person to another`, async (call) => {
    const shown = [await call.join('chromium', { tone: false }), await call.join('chromium', { tone: false })];
    // A single slot for pictures: whoever is shown next takes it from whoever was.
    const viewer = await call.join(kind, { tone: false, picture: false,
      before: (page) => page.evaluate(async () => { (await import('/connection.js')).STEPS.splice(0, 4, 1); }) });
    await viewer.page.evaluate((numbers) => {
      const { instruments, member } = window;
      const samples = window.samples = [];
      for (const number of numbers) {
        const video = member.element(`camera:${number}`);
        const publication = [...member.room.participants.values()].find(({ name }) => name === `member ${number}`).camera;
        const look = () => {
          const { member: drawn } = instruments.read(video, video.videoWidth, video.videoHeight);
          samples.push({ number, drawn, visible: publication.visible });
          video.requestVideoFrameCallback(look);
        };
        video.requestVideoFrameCallback(look);
      }
    }, shown.map(({ number }) => number));
    assert.equal(await videoSections(viewer), 1);
    const [a, b] = shown;
    for (let turn = 0; turn < 8; turn += 1) {
      const [next, last] = turn % 2 ? [a, b] : [b, a];
      await viewer.show(last, 0, 0);
      await viewer.show(next, 320, 180);
      await until(`${viewer} sees ${next} under its name`, async () => {
        const look = await viewer.look(next);
        const { participants } = await viewer.report();
        const { visible } = participants.find(({ name }) => name === `member ${next.number}`).publications.find(({ source }) => source === 'camera');
        return { ok: visible && look.member === next.number, visible, ...look };
      });
      await viewer.seesMore(next);
      await viewer.seesMore(next);
    }
    const samples = await viewer.page.evaluate(() => window.samples);
    const wrong = samples.filter(({ number, drawn, visible }) => visible && drawn !== null && drawn !== number);
    const others = samples.filter(({ number, drawn, visible }) => !visible && drawn !== null && drawn !== number);
    call.say(`${kind}: ${samples.length} frames looked at, ${others.length} of the last person's shown to nobody`);
    assert.deepEqual(wrong, []);
    assert.ok(samples.filter(({ visible }) => visible).length >= 16);
  });

  own.test(`${kind} on a hidden page receives no pictures, goes on hearing, and sees again when it is shown`, async (call) => {
    const other = await call.join('chromium');
    const member = await call.join(kind);
    await member.sees(other);
    await member.hears(other);
    const hide = (hidden) => member.page.evaluate((is) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => is });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
    const received = async (kindOf) => (await member.inbound()).filter((one) => one.kind === kindOf).reduce((sum, { packetsReceived = 0 }) => sum + packetsReceived, 0);
    await hide(true);
    await until('no picture arrives', async () => {
      const before = await received('video');
      await observeFor(1000);
      return (await received('video')) === before;
    });
    const voice = await received('audio');
    await until('the voice does', async () => (await received('audio')) > voice);
    await hide(false);
    const start = performance.now();
    await member.seesMore(other);
    call.say(`${kind}: seen again ${Math.round(performance.now() - start)} ms after it was shown`);
  });

  own.test(`${kind} whose carrier is gone for twenty seconds blinks nowhere and loses nobody`, async (call) => {
    const other = await call.join('chromium');
    const cut = await call.join(kind, { before: (page) => page.evaluate(() => {
      const { WebSocket: Native, fetch: native } = window;
      window.WebSocket = class extends Native {
        constructor(...settings) {
          if (window.cut) throw new DOMException('cut', 'SecurityError');
          super(...settings);
        }
      };
      window.fetch = (...request) => (window.cut ? Promise.reject(new TypeError('cut')) : native(...request));
    }) });
    await cut.sees(other);
    await other.sees(cut);
    await cut.hears(other);
    await cut.mark(other);
    await other.mark(cut);
    await cut.page.evaluate(() => {
      window.cut = true;
      window.instruments.sockets.at(-1)?.close(4000);
    });
    await until(`${cut} notices`, async () => (await cut.report()).state === 'reconnecting');
    await observeFor(20_000);
    await other.page.evaluate(() => window.member.room.setName('member 0'));
    await cut.page.evaluate(() => { window.cut = false; });
    await until(`${cut} is back`, async () => (await cut.report()).state === 'connected');
    const [here, there] = [await cut.frames(other), await other.frames(cut)];
    call.say(`${kind}: longest gaps in ${Math.round(here.seconds)} s: ${here.gap} and ${there.gap} ms`);
    // What a busy machine does to ten frames a second, but not what a new connection would.
    assert.ok(here.gap < 2000 && there.gap < 2000, `${here.gap} and ${there.gap} ms without a picture`);
    assert.equal(await cut.page.evaluate(() => window.instruments.connections.length), 1);
    assert.equal((await cut.connection()).restarts, 0);
    const told = (await other.report()).events.map(({ what }) => what);
    assert.ok(!told.includes('participantleft') && !told.includes('participantchanged'), told.join(' '));
    assert.ok(!(await cut.report()).events.some(({ what }) => what === 'participantleft'));
  });

  own.test(`${kind} that hears nothing of its first connection moves to a second one without a blink`, async (call) => {
    const other = await call.join('chromium');
    const moved = await call.join(kind, { before: (page) => page.evaluate(() => {
      // Its media flows on, but its statistics say nothing, and a restart of ICE is never tried.
      const native = RTCPeerConnection.prototype.getStats;
      RTCPeerConnection.prototype.getStats = function getStats(...selector) {
        return window.deaf && window.instruments.connections[0] === this ? Promise.resolve(new Map()) : native.apply(this, selector);
      };
      RTCPeerConnection.prototype.restartIce = () => {};
    }) });
    await moved.sees(other);
    await other.sees(moved);
    await moved.hears(other);
    await moved.mark(other);
    await other.mark(moved);
    await moved.page.evaluate(() => { window.deaf = true; });
    await until('the first connection was closed', async () => {
      const states = await moved.page.evaluate(() => window.instruments.connections.map(({ connectionState }) => connectionState));
      return { ok: states.length === 2 && states[0] === 'closed', states };
    });
    await moved.seesMore(other);
    await other.seesMore(moved);
    await moved.hears(other);
    await other.hears(moved);
    const [here, there] = [await moved.frames(other), await other.frames(moved)];
    call.say(`${kind}: longest gaps while it moved: ${here.gap} ms received, ${there.gap} ms sent`);
    assert.ok(here.gap < BLINK && there.gap < BLINK, `${here.gap} and ${there.gap} ms without a picture`);
    await moved.meets([other]);
    const { participants, events } = await other.report();
    assert.ok(!events.some(({ what }) => what === 'participantleft' || what === 'publicationremoved'), 'nobody saw anything of it');
    assert.equal(participants.length, 2);
    await until('it is whole again', async () => (await moved.report()).state === 'connected');
  });

  own.test(`${kind} sends no encoding that nobody watches, and all again when somebody does`, async (call) => {
    const viewer = await call.join('chromium', { tone: false, picture: false });
    const shown = await call.join(kind, { tone: false });
    await viewer.sees(shown);
    const sent = async () => (await shown.outbound()).filter((one) => one.kind === 'video').reduce((sum, { packetsSent = 0 }) => sum + packetsSent, 0);
    await viewer.show(shown, 0, 0);
    await until('no packet of a picture leaves', async () => {
      const before = await sent();
      await observeFor(1500);
      return (await sent()) === before;
    }, { ceiling: 30_000 });
    const { camera, lamp } = await shown.report();
    assert.deepEqual([camera, lamp], ['on', 'live'], 'the camera stays as it is');
    await viewer.show(shown, 320, 180);
    const start = performance.now();
    await viewer.seesMore(shown);
    call.say(`${kind}: seen again after ${Math.round(performance.now() - start)} ms`);
  });

  own.test(`${kind} is told who speaks`, async (call) => {
    const listener = await call.join(kind, { tone: false, picture: false });
    const speaker = await call.join('chromium', { picture: false });
    await until(`${listener} is told`, async () => {
      const { speakers } = await listener.report();
      return { ok: speakers.join() === `member ${speaker.number}`, speakers };
    });
    await speaker.setMicrophone(false);
    await until('nobody speaks any more', async () => (await listener.report()).speakers.length === 0);
  });
}

own.test('a page that is frozen for ten seconds is away, comes back, and nobody left', async (call) => {
  const other = await call.join('chromium');
  const browser = own.browsers.frozen = await chromium();
  const frozen = await call.join('frozen');
  await frozen.sees(other);
  await other.sees(frozen);
  const session = await browser.driver.newBrowserCDPSession();
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  const renderers = processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => id);
  assert.ok(renderers.length > 0);
  for (const pid of renderers) process.kill(pid, 'SIGSTOP');
  try {
    await observeFor(10_000);
  } finally {
    for (const pid of renderers) process.kill(pid, 'SIGCONT');
  }
  const start = performance.now();
  await other.seesMore(frozen);
  await frozen.seesMore(other);
  await frozen.hears(other);
  call.say(`back ${Math.round(performance.now() - start)} ms after it went on`);
  await until('nobody is away', async () => (await other.report()).participants.every(({ away }) => !away));
  await other.meets([frozen]);
  await frozen.meets([other]);
  assert.ok(!(await other.report()).events.some(({ what }) => what === 'participantleft'));
});
