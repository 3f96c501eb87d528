// Many join at the same instant: nobody is missing, nobody is there twice, and everybody has sound and picture.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';

import { crowd } from './support/server.js';
import { pairs, suite } from './support/suite.js';
import { until } from './support/wait.js';

const own = suite();
/** Of another make; they only watch and listen. */
const OTHERS = 20;

own.test('four pages and twenty others join at once, and everybody sees and hears', async (call) => {
  const kinds = ['chromium', 'firefox', 'chromium', 'firefox'];
  // The pages are open, and wait for each other.
  let waiting = kinds.length;
  let go;
  const together = new Promise((done) => { go = done; });
  const before = () => {
    waiting -= 1;
    if (waiting === 0) go();
    return together;
  };
  const joins = kinds.map((kind, number) => call.join(kind, { number, before }));
  await Promise.race([together, Promise.all(joins)]);
  const child = spawn(crowd(), [own.origin, call.room, 'storm', '--clients', String(OTHERS), '--publishers', '0', '--within', '20', '--stay', '120'],
    { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((done) => child.once('exit', done));
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => { said += chunk; });
  try {
    const members = await Promise.all(joins);
    for (const [here, there] of pairs(members)) {
      assert.equal((await here.sees(there)).member, there.number);
      assert.deepEqual((await here.hears(there)).members, [there.number]);
    }
    for (const member of members) {
      const { participants } = await until(`${member} counts everybody`, async () => {
        const seen = await member.report();
        return { ok: seen.total === kinds.length + OTHERS, ...seen };
      });
      assert.equal(new Set(participants.map(({ id }) => id)).size, kinds.length + OTHERS);
    }
    child.kill('SIGTERM');
    assert.equal(await ended, 0, said);
    call.say(said);
    for (const member of members) await member.meets(members.filter((other) => other !== member));
  } finally {
    child.kill('SIGKILL');
  }
});
