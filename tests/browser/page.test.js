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
  // `picky`: a browser whose microphone and camera were refused for good.
  [own.browsers.firefox, picky] = await Promise.all([firefox({ devices: true }), firefox({ devices: true, deny: ['microphone', 'camera'] })]);
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
    microphone: pressed('microphone'), camera: pressed('camera'), previewMicrophone: pressed('preview-microphone'), previewCamera: pressed('preview-camera'), title: document.title,
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
  const long = 'Dora with a rather long name of her own';
  const page = await arrive(own.browsers.chromium, call.room, long);
  const sizes = { phone: { width: 390, height: 844 }, desk: { width: 1280, height: 800 } };
  const pictures = async (what, schemes = { phone: ['light', 'dark'], desk: ['light', 'dark'] }) => {
    for (const [device, size] of Object.entries(sizes)) {
      await page.resize(size);
      for (const scheme of schemes[device]) {
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
  const one = { phone: ['light'], desk: ['dark'] };
  await until('the devices are open', async () => (await scene(page)).previewMicrophone === 'true');
  await pictures('lobby');
  await enter(page);
  await shows(page, [long]);
  await pictures('alone', one);

  const others = [];
  for (const [browser, name] of [['chromium', 'Ann'], ['firefox', 'Ben'], ['chromium', 'Cem']]) {
    const other = await arrive(own.browsers[browser], call.room, name);
    await enter(other);
    others.push({ name, page: other });
    await shows(page, [long, ...others.map((one) => one.name)]);
    if (others.length < 3) await pictures(`call-of-${others.length + 1}`, one);
  }
  await pictures('call-of-4');
  await others[0].page.click('#camera');
  await others[1].page.click('#microphone');
  await page.click('#microphone');
  await page.click('#camera');
  await until('two pictures are left, and two are muted', async () => {
    const { tiles } = await scene(page);
    return { ok: tiles.filter(({ picture }) => picture).length === 2 && tiles.filter(({ muted }) => muted).length === 2, tiles };
  });
  await pictures('switched-off');
  for (const text of ['Shall we begin?', 'Yes: https://motet.example/agenda?week=48', 'A rather long sentence that needs more than one line in a column that is not wide, and אבג beside it.']) {
    await others[0].page.evaluate((said) => {
      document.querySelector('#chat-field').value = said;
      document.querySelector('#chat-form').requestSubmit();
    }, text);
  }
  await until('three messages are counted', async () => (await page.evaluate(() => document.querySelector('#chat-unread').textContent)) === '3');
  await pictures('unread', one);
  await page.click('#chat-button');
  await page.type('#chat-field', 'Here I am');
  await page.driver.keyboard.press('Enter');
  await until('four are shown', async () => (await page.evaluate(() => document.querySelectorAll('#chat-list .said').length)) === 4);
  await pictures('chat');
  await page.driver.keyboard.press('Escape');
  await page.click('#leave');
  await until('it has left', async () => (await scene(page)).view === 'left');
  await pictures('left', one);
  call.say(`pictures in ${directory}`);
});

own.test('the keyboard is enough', async (call) => {
  for (const browser of [own.browsers.chromium, own.browsers.firefox]) {
    const page = await browser.open(`${own.origin}/?room=${call.room}`, { name: `keys-${browser.kind}` });
    const { keyboard } = page.driver;
    const focused = () => page.evaluate(() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return { id: document.activeElement.id, ring: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 };
    });
    /** Forwards or backwards: past the last button Firefox goes on in its own windows' buttons. */
    const tabTo = async (id, backwards = false) => {
      if (backwards) await keyboard.down('Shift');
      for (let presses = 0; presses < 8 && (await focused()).id !== id; presses += 1) await keyboard.press('Tab');
      if (backwards) await keyboard.up('Shift');
      assert.deepEqual(await focused(), { id, ring: true }, `#${id} is reached by the tabulator, and one sees it, in ${page}`);
    };
    const becomes = (what, fits) => until(`${what} in ${page}`, async () => {
      const seen = await scene(page);
      return { ok: fits(seen), ...seen };
    });

    await becomes('the devices are open', ({ previewMicrophone }) => previewMicrophone === 'true');
    assert.equal((await focused()).id, 'name', 'who has no name yet can type it at once');
    await keyboard.type('Kay');
    await tabTo('preview-camera', true);
    await keyboard.press(' ');
    await becomes('the camera is off', ({ previewCamera }) => previewCamera === 'false');
    await keyboard.press(' ');
    await becomes('and on again, with the focus where it was', ({ previewCamera }) => previewCamera === 'true');
    await tabTo('join');
    await keyboard.press('Enter');
    await becomes('the call', ({ view, tiles }) => view === 'call' && tiles.some(({ name, picture }) => name === 'Kay' && picture));
    await tabTo('microphone');
    await keyboard.press(' ');
    await becomes('the microphone is off', ({ microphone }) => microphone === 'false');
    await tabTo('camera');
    await keyboard.press(' ');
    await becomes('the camera is off', ({ camera }) => camera === 'false');
    await keyboard.press(' ');
    await becomes('and on', ({ camera }) => camera === 'true');
    await tabTo('copy', true);
    await tabTo('leave');
    await keyboard.press('Enter');
    await becomes('the call is left', ({ view }) => view === 'left');
    await tabTo('rejoin');
    await keyboard.press('Enter');
    await becomes('the lobby', ({ view }) => view === 'lobby');
    await tabTo('join');
    await keyboard.press('Enter');
    await becomes('the call again', ({ view }) => view === 'call');
    await page.close();
  }
});

own.test('who joins while the browser is still asking for the devices gets them when it is done', async (call) => {
  const ann = await arrive(own.browsers.chromium, call.room, 'Ann');
  await enter(ann);
  const page = await own.browsers.chromium.open(null, { name: 'hesitant' });
  await page.driver.addInitScript(() => {
    const native = navigator.mediaDevices.getUserMedia;
    const asked = new Promise((done) => { window.allow = done; });
    navigator.mediaDevices.getUserMedia = async (wish) => {
      await asked;
      return native.call(navigator.mediaDevices, wish);
    };
  });
  await page.goto(`${own.origin}/?room=${call.room}`);
  await page.type('#name', 'Hal');
  const seen = await enter(page);
  assert.deepEqual([seen.microphone, seen.camera], ['false', 'false']);
  await page.evaluate(() => window.allow());
  await shows(ann, ['Ann', 'Hal']);
  await until('his microphone is on, too', async () => (await scene(page)).microphone === 'true');
  await page.click('#leave');
  await until('he has left', async () => (await scene(page)).view === 'left');
  assert.ok(await page.evaluate(() => window.instruments.captured.every(({ readyState }) => readyState === 'ended')), 'all devices are closed');
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
