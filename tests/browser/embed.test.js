// What README.md tells a page of another site to write is a call.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';

import { chromium } from './support/browsers.js';
import { acquireAddress } from './support/network.js';
import { publisher, startServer } from './support/server.js';
import { until } from './support/wait.js';

const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
const [, EXAMPLE] = /```html\n(.*?)```/s.exec(README);

let network;
let page;
let server;
let browser;
let other;

before(async () => {
  network = acquireAddress();
  page = createServer((request, response) => {
    const html = EXAMPLE.replaceAll('https://calls.example', server.origin);
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
    response.end(request.url === '/' ? `<!doctype html><meta charset="utf-8"><title>Choir</title>${html}` : '');
  });
  await new Promise((done) => page.listen(0, '127.0.0.1', done));
  page.origin = `http://localhost:${page.address().port}`;
  server = await startServer({ advertise: network.address, flags: ['--origins', page.origin] });
  browser = await chromium({ devices: true });
  other = spawn(publisher(), [server.origin, 'choir'], { stdio: 'ignore' });
});

after(async () => {
  other?.kill();
  await browser?.close();
  await server?.stop();
  page?.close();
  network?.remove();
});

test('the example shows who is there, also who comes back, and sends', { timeout: 120_000 }, async () => {
  await until('the publisher is in the room', () => /joined .*total=1/.test(server.log()));
  const opened = await browser.open(`${page.origin}/`, { name: 'embed' });
  const shown = () => opened.evaluate(() => {
    const video = document.querySelector('#other');
    return { width: video.videoWidth, height: video.videoHeight, frames: video.getVideoPlaybackQuality().totalVideoFrames, paused: video.paused };
  });
  const picture = async () => {
    const seen = await shown();
    return { ok: seen.width === 320 && seen.height === 180 && seen.frames > 5 && !seen.paused, ...seen };
  };
  await until('the picture of who was there before', picture);
  const sent = await until('its own camera and microphone are sent', async () => {
    const streams = await opened.instrument('streams', 'outbound-rtp');
    const kinds = new Set(streams.filter(({ packetsSent }) => packetsSent > 0).map(({ kind }) => kind));
    return { ok: kinds.size === 2, kinds: [...kinds] };
  });
  assert.deepEqual(sent.kinds.sort(), ['audio', 'video']);

  other.kill();
  await until('the other left', () => /left .*bye/.test(server.log()));
  const { frames } = await shown();
  other = spawn(publisher(), [server.origin, 'choir'], { stdio: 'ignore' });
  await until('the picture of who came afterwards', async () => {
    const seen = await picture();
    return { ...seen, ok: seen.ok && seen.frames > frames + 5 };
  });
  assert.deepEqual(opened.console.filter((line) => / error: /.test(line)), []);
});
