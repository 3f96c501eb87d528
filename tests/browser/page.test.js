// The page that Motet serves, as a person uses it: name, join, tiles, buttons, leave; also with a microphone that is refused.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before } from 'node:test';

import { directoryOf } from './support/artifacts.js';
import { firefox } from './support/browsers.js';
import { suite } from './support/suite.js';
import { until } from './support/wait.js';

const own = suite({ browsers: ['chromium'], devices: true });
let picky;

before(async () => {
  own.browsers.firefox = await firefox({ devices: true });
  // A browser whose microphone was refused for good.
  picky = await firefox({ devices: true, deny: ['microphone', 'camera'] });
});
after(() => picky?.close());

/** What a person sees. */
const scene = (page) => page.evaluate(() => {
  const visible = (id) => getComputedStyle(document.getElementById(id)).display !== 'none';
  const view = ['lobby', 'call', 'left'].find(visible);
  const tiles = [...document.querySelectorAll('#tiles .tile')].map((tile) => ({
    name: tile.querySelector('.name')?.textContent, note: tile.querySelector('.note')?.textContent,
    picture: tile.querySelector('video')?.dataset.visible === 'true', width: tile.querySelector('video')?.videoWidth ?? 0,
    muted: getComputedStyle(tile.querySelector('.muted-icon')).display !== 'none',
    box: (({ x, y, width, height }) => [x, y, width, height].map(Math.round))(tile.getBoundingClientRect()),
  }));
  const pressed = (id) => document.getElementById(id)?.getAttribute('aria-pressed');
  return { view, tiles, state: document.getElementById('state')?.textContent, notice: visible('notice') ? document.getElementById('notice').textContent : '',
    problem: visible('lobby-error') ? document.getElementById('lobby-error').textContent : '',
    note: document.getElementById('preview-note')?.textContent,
    microphone: pressed('microphone'), camera: pressed('camera'), previewMicrophone: pressed('preview-microphone'), title: document.title,
    wide: document.documentElement.scrollWidth > window.innerWidth };
});

async function arrive(browser, room, name, options = {}) {
  const page = await browser.open(`${own.origin}/?room=${room}`, { name, ...options });
  await until('the lobby is shown', async () => (await scene(page)).view === 'lobby');
  await page.type('#name', name);
  return page;
}

async function enter(page) {
  await page.click('#join');
  return until(`${page} is in the call`, async () => {
    const seen = await scene(page);
    return { ok: seen.view === 'call', ...seen };
  });
}

const shows = (page, names) => until(`${page} shows ${names.join(' and ')} with pictures`, async () => {
  const { tiles } = await scene(page);
  const present = tiles.map(({ name }) => name?.replace(/ \(you\)$/i, '')).sort();
  return { ok: JSON.stringify(present) === JSON.stringify([...names].sort()) && tiles.every(({ picture }) => picture), tiles };
});

own.test('two people join by the page, see each other, mute, and leave', async (call) => {
  const ann = await arrive(own.browsers.chromium, call.room, 'Ann');
  const ben = await arrive(own.browsers.firefox, call.room, 'Ben');
  await until('the devices are open', async () => (await scene(ann)).previewMicrophone === 'true');
  await until('the devices are open', async () => (await scene(ben)).previewMicrophone === 'true');
  await enter(ann);
  await enter(ben);
  await shows(ann, ['Ann', 'Ben']);
  await shows(ben, ['Ann', 'Ben']);

  const tile = (seen, name) => seen.tiles.find((one) => one.name.startsWith(name));
  await ann.click('#microphone');
  await until('Ben sees that Ann is muted', async () => tile(await scene(ben), 'Ann').muted);
  assert.equal((await scene(ann)).microphone, 'false');
  await ann.click('#microphone');
  await until('Ben sees that she is not', async () => !tile(await scene(ben), 'Ann').muted);

  await ann.click('#camera');
  await until('Ben sees her picture no more', async () => !tile(await scene(ben), 'Ann').picture);
  assert.ok(await ann.evaluate(() => window.instruments.captured.filter(({ kind }) => kind === 'video').every(({ readyState }) => readyState === 'ended')),
    'the camera is closed');
  await ann.click('#camera');
  await shows(ben, ['Ann', 'Ben']);

  await ann.click('#leave');
  await until('Ann has left', async () => (await scene(ann)).view === 'left');
  await shows(ben, ['Ben']);
  assert.ok(await ann.evaluate(() => window.instruments.captured.every(({ readyState }) => readyState === 'ended')), 'all devices are closed');

  // And comes again.
  await ann.click('#rejoin');
  await until('the lobby is shown', async () => (await scene(ann)).view === 'lobby');
  await until('the devices are open', async () => (await scene(ann)).previewMicrophone === 'true');
  await enter(ann);
  await shows(ann, ['Ann', 'Ben']);
  await shows(ben, ['Ann', 'Ben']);
  assert.deepEqual(ann.console.filter((line) => / (error|pageerror): /.test(line)), []);
  assert.deepEqual(ben.console.filter((line) => / (error|pageerror): /.test(line)), []);
});

own.test('who refuses microphone and camera is told so and joins all the same', async (call) => {
  const ann = await arrive(own.browsers.chromium, call.room, 'Ann');
  await enter(ann);
  const refused = { 'a Chromium': await arrive(own.browsers.chromium, call.room, 'Cem', { permissions: [] }),
    'a Firefox': await arrive(picky, call.room, 'Dora') };
  for (const [which, page] of Object.entries(refused)) {
    const lobby = await until(`${which} without permission says so`, async () => {
      const seen = await scene(page);
      return { ok: /allow/i.test(seen.note), ...seen };
    });
    assert.match(lobby.note, /join all the same/i);
    await enter(page);
  }
  for (const page of Object.values(refused)) {
    await until(`${page} sees Ann`, async () => {
      const { tiles } = await scene(page);
      return { ok: tiles.length === 3 && tiles.some(({ name, picture }) => name === 'Ann' && picture), tiles };
    });
  }
  const { tiles } = await scene(ann);
  assert.deepEqual(tiles.filter(({ picture }) => picture).map(({ name }) => name.replace(/ \(you\)$/i, '')), ['Ann']);
  for (const page of Object.values(refused)) await page.close();
});

own.test('a telephone and a desk, light and dark: everything fits', async (call) => {
  const directory = directoryOf('pictures');
  const others = [];
  for (const [browser, name] of [['chromium', 'Ann'], ['firefox', 'Ben'], ['chromium', 'Cem']]) {
    const page = await arrive(own.browsers[browser], call.room, name);
    await enter(page);
    others.push(name);
  }
  const page = await arrive(own.browsers.chromium, call.room, 'Dora with a rather long name of her own');
  const sizes = { phone: { width: 390, height: 844 }, desk: { width: 1280, height: 800 } };
  const pictures = async (what) => {
    for (const [device, size] of Object.entries(sizes)) {
      await page.resize(size);
      for (const scheme of ['light', 'dark']) {
        await page.prefer(scheme);
        await page.screenshot(join(directory, `${what}-${device}-${scheme}.png`));
      }
      const seen = await scene(page);
      assert.equal(seen.wide, false, `nothing is cut off or scrolls sideways on a ${device} (${what})`);
      for (const { name, box: [x, y, width, height] } of seen.tiles) {
        assert.ok(x >= 0 && y >= 0 && x + width <= size.width + 1 && y + height <= size.height + 1 && width >= 60 && height >= 60,
          `the tile of ${name} is inside the ${device}: ${[x, y, width, height]}`);
      }
    }
  };
  await until('the devices are open', async () => (await scene(page)).previewMicrophone === 'true');
  await pictures('lobby');
  await enter(page);
  await shows(page, [...others, 'Dora with a rather long name of her own']);
  await pictures('call');
  await page.click('#leave');
  await until('it has left', async () => (await scene(page)).view === 'left');
  await pictures('left');
  call.say(`pictures in ${directory}`);
});

own.test('a call on a page that is closed by going elsewhere ends at once', async (call) => {
  const ann = await arrive(own.browsers.chromium, call.room, 'Ann');
  const ben = await arrive(own.browsers.chromium, call.room, 'Ben');
  await enter(ann);
  await enter(ben);
  await shows(ann, ['Ann', 'Ben']);
  await ben.goto('about:blank');
  await until('Ben is gone', async () => (await scene(ann)).tiles.length === 1, { ceiling: 5000 });
});
