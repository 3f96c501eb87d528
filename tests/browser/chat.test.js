// What people say on the page: everybody reads the same, as text and never as markup, also who comes later, and by keyboard alone.

import assert from 'node:assert/strict';

import { suite } from './support/suite.js';
import { until } from './support/wait.js';

const own = suite({ devices: true });

/** In the page: what its chat shows. */
const shown = (page) => page.evaluate(() => ({
  open: !document.querySelector('#chat').hidden,
  said: [...document.querySelectorAll('#chat-list .said')].map((line) => `${line.querySelector('bdi').textContent}: ${line.querySelector('.said-text').textContent}`),
  links: [...document.querySelectorAll('#chat-list a')].map(({ href, target, rel }) => ({ href, target, rel })),
  markup: document.querySelectorAll('#chat-list :is(b, img, script, iframe)').length,
  unread: document.querySelector('#chat-unread').textContent,
  typing: document.querySelector('#chat-typing').textContent,
  focus: document.activeElement?.id,
  ran: window.ran === true,
}));

async function arrive(kind, room, name) {
  const page = await own.browsers[kind].open(`${own.origin}/?room=${room}`, { name });
  await until('the lobby is shown', () => page.evaluate(() => !document.querySelector('#lobby').hidden));
  await page.type('#name', name);
  await page.click('#join');
  await until(`${name} is in the call`, () => page.evaluate(() => !document.querySelector('#call').hidden));
  return page;
}

const reads = (page, what, said) => until(what, async () => {
  const seen = await shown(page);
  return { ok: JSON.stringify(seen.said) === JSON.stringify(said), ...seen };
});

own.test('two talk on the page, a third reads what was said before, and markup is text', async (call) => {
  const ann = await arrive('chromium', call.room, 'Ann');
  const ben = await arrive('firefox', call.room, 'Ben');
  await ann.click('#chat-button');
  assert.equal((await shown(ann)).focus, 'chat-field', 'one can write at once');
  await ann.type('#chat-field', 'Hello Ben');
  await until('Ben is told that Ann writes', async () => (await shown(ben)).typing === 'Ann is writing…');
  await ann.driver.keyboard.press('Enter');
  await reads(ann, 'Ann reads it', ['You: Hello Ben']);
  await until('Ben is told of it', async () => (await shown(ben)).unread === '1');
  await ben.click('#chat-button');
  const seen = await reads(ben, 'Ben reads it', ['Ann: Hello Ben']);
  assert.deepEqual([seen.unread, seen.typing], ['0', '']);

  const nasty = '<img src=x onerror="window.ran = true"><b>bold</b> https://motet.example/a?b=1. javascript:alert(1)';
  await ben.type('#chat-field', nasty);
  await ben.driver.keyboard.press('Enter');
  for (const [page, by] of [[ann, 'Ben'], [ben, 'You']]) {
    const told = await reads(page, 'it is read as it was written', [`${by === 'You' ? 'Ann' : 'You'}: Hello Ben`, `${by}: ${nasty}`]);
    assert.deepEqual(told.links, [{ href: 'https://motet.example/a?b=1', target: '_blank', rel: 'noopener noreferrer nofollow' }]);
    assert.deepEqual([told.markup, told.ran], [0, false]);
  }

  const late = await arrive('chromium', call.room, 'Dan');
  await late.click('#chat-button');
  await reads(late, 'a latecomer reads what was said before', ['Ann: Hello Ben', `Ben: ${nasty}`]);
  await ann.driver.keyboard.press('Escape');
  const closed = await shown(ann);
  assert.deepEqual([closed.open, closed.focus], [false, 'chat-button']);
});

own.test('what is said while the carrier is gone arrives once, in order', async (call) => {
  const ann = await arrive('chromium', call.room, 'Ann');
  const ben = await arrive('firefox', call.room, 'Ben');
  for (const page of [ann, ben]) await page.click('#chat-button');
  const say = async (page, text) => {
    await page.type('#chat-field', text);
    await page.driver.keyboard.press('Enter');
  };
  await say(ann, 'one');
  await reads(ben, 'Ben reads the first', ['Ann: one']);
  await ann.evaluate(() => window.instruments.sockets.at(-1).close(4999));
  await say(ann, 'two');
  await say(ann, 'three');
  await reads(ben, 'Ben reads the others', ['Ann: one', 'Ann: two', 'Ann: three']);
  await reads(ann, 'Ann reads them', ['You: one', 'You: two', 'You: three']);
});
