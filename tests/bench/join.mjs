// How long a person waits: a Chromium page joins a room in which somebody publishes VP8, 20 times in sequence. Prints every step's median and
// worst, in ms since `join` was called.
//
//   cargo build --release --bin motet --example publisher
//   MOTET_BIN=target/release/motet node tests/bench/join.mjs [--times 20] [--ceilings 250,600] [--publisher 'command {origin} {room}' | page]
//
// Somebody is the prepared publisher beside the server unless --publisher names another command. `--publisher page` is a Chromium page, whose
// encoder competes with the joining page for the processor. With --ceilings a median or worst first frame beyond them is a failure.

import { spawn } from 'node:child_process';
import { parseArgs } from 'node:util';

import { BLANK, chromium } from '../browser/support/browsers.js';
import { Member } from '../browser/support/member.js';
import { acquireAddress } from '../browser/support/network.js';
import { publisher as prepared, startServer } from '../browser/support/server.js';
import { until } from '../browser/support/wait.js';

const { values } = parseArgs({ options: { times: { type: 'string', default: '20' }, publisher: { type: 'string', default: `${prepared()} {origin} {room}` }, ceilings: { type: 'string' } } });
const TIMES = Number(values.times);
const ROOM = 'bench-join';
const STEPS = ['socket', 'welcome', 'ice', 'dtls', 'packet', 'frame'];

/** In the page: joins, and waits for the first frame of a picture; when each step was reached. */
async function once(room) {
  const { instruments } = window;
  const { join } = await import('/motet.js');
  const start = performance.now();
  const call = await join(new URL('/', location.href), { room, name: 'bench' });
  const video = document.createElement('video');
  video.style.cssText = 'width:320px;height:180px';
  document.body.append(video);
  const shown = new Promise((done) => video.requestVideoFrameCallback(() => done(performance.now())));
  const attach = () => {
    for (const participant of call.participants.values()) if (!participant.isMe) participant.camera?.attach(video);
  };
  call.addEventListener('publicationadded', attach);
  attach();
  const frame = await shown;
  const n = instruments.connections.length - 1;
  const at = (matches) => instruments.timeline.filter((entry) => entry.at >= Math.floor(start)).find(matches)?.at;
  const steps = {
    socket: at((entry) => entry.what === 'socket-open'),
    welcome: at((entry) => entry.what === 'received' && entry.t === 'welcome'),
    ice: at((entry) => entry.n === n && entry.what === 'iceconnectionstate' && entry.state === 'connected'),
    dtls: at((entry) => entry.n === n && entry.what === 'connectionstate' && entry.state === 'connected'),
    packet: at((entry) => entry.n === n && entry.what === 'track-unmute' && entry.kind === 'video'),
    frame,
  };
  call.leave();
  video.remove();
  return Object.fromEntries(Object.entries(steps).map(([step, time]) => [step, time === undefined ? null : time - start]));
}

const network = acquireAddress();
const server = await startServer({ advertise: network.address });
const browser = await chromium();
let publisher;
let external;
try {
  if (values.publisher !== 'page') {
    const [command, ...args] = values.publisher.replace('{origin}', server.origin).replace('{room}', ROOM).split(' ');
    external = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  } else {
    publisher = await Member.join(browser, { origin: server.origin, room: ROOM, number: 0, tone: false });
    await until('the publisher sends', async () => (await publisher.outbound()).some(({ packetsSent }) => packetsSent > 10));
  }
  const page = await browser.open(`${server.origin}${BLANK}`, { name: 'joins' });
  const results = [];
  // The first join of a page also loads its modules and is not counted.
  for (let i = 0; i <= TIMES; i += 1) {
    const steps = await page.evaluate(once, ROOM);
    if (i > 0) results.push(steps);
  }
  const of = (step) => results.map((steps) => steps[step]).filter((value) => value !== null).sort((a, b) => a - b);
  console.log(`${results.length} joins, ms since join() (median, worst)`);
  for (const step of STEPS) {
    const sorted = of(step);
    if (sorted.length === 0) console.log(`${step.padEnd(8)} not seen`);
    else console.log(`${step.padEnd(8)} ${sorted[Math.floor(sorted.length / 2)].toFixed(0).padStart(5)} ${sorted.at(-1).toFixed(0).padStart(5)}`);
  }
  const frames = of('frame');
  if (values.ceilings) {
    const [median, worst] = values.ceilings.split(',').map(Number);
    if (frames[Math.floor(frames.length / 2)] > median || frames.at(-1) > worst) process.exitCode = 1;
  }
} finally {
  external?.kill();
  await browser.close();
  await server.stop();
  network.remove();
}
