// A client that was written from PROTOCOL.md on another WebRTC stack is one of us: browsers see its prepared picture.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';

import { publisher } from './support/server.js';
import { suite } from './support/suite.js';
import { until } from './support/wait.js';

const own = suite();
const NUMBER = 6;
// The prepared file's own: fifteen frames a second of this size, a keyframe each second.
const SIZE = '320x180';
const SECONDS = 2;
const FRAMES = 15 * SECONDS;

own.test('a publisher of another make is seen by both browsers, also by who comes later, and leaves', async (call) => {
  const early = await call.join('chromium', { tone: false });
  const child = spawn(publisher(), [own.origin, call.room, '--name', `member ${NUMBER}`], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise((done) => child.once('exit', done));
  let said = '';
  child.stderr.on('data', (chunk) => { said += chunk; });
  try {
    await early.meets([NUMBER]);
    const late = await call.join('firefox', { tone: false });
    for (const member of [early, late]) {
      await until(`${member} sees the publisher`, async () => {
        if (child.exitCode !== null) throw Object.assign(new Error(`the publisher ended: ${said}`), { fatal: true });
        return ((await member.frames(NUMBER))?.frames ?? 0) > 0;
      });
      await member.mark(NUMBER);
      // Many frames and each of them whole: a gap would be a second long, until the next keyframe.
      const { sizes, gap } = await until(`${member} sees its picture move`, async () => {
        const seen = await member.frames(NUMBER);
        return { ok: seen.frames >= FRAMES, ...seen };
      });
      assert.deepEqual(sizes, [SIZE]);
      call.say(`${member}: longest time between two frames ${gap} ms`);
      assert.ok(gap < 900, `${gap} ms between two frames`);
    }
    child.kill('SIGTERM');
    assert.equal(await ended, 0, said);
    await early.meets([late]);
  } finally {
    child.kill('SIGKILL');
  }
});
