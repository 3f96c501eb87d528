// What is kept when a test fails: target/artifacts/<file>/<test>/ with the server's log, each page's console, statistics and picture,
// and what passed the relay.

import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { within } from './wait.js';

const ROOT = process.env.MOTET_ARTIFACTS ?? fileURLToPath(new URL('../../../target/artifacts/', import.meta.url));
const plain = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '').slice(0, 80);

/** The directory for a test's artifacts, made when it is asked for. */
export function directoryOf(test) {
  const path = join(ROOT, plain(basename(process.argv[1] ?? 'tests', '.test.js')), plain(test));
  mkdirSync(path, { recursive: true });
  return path;
}

async function page(directory, one) {
  const file = (suffix) => join(directory, `${plain(one.name)}${suffix}`);
  writeFileSync(file('.console.txt'), `${one.console.join('\n')}\n`);
  // A page that hangs must not keep the others from being recorded.
  const attempts = {
    statistics: async () => writeFileSync(file('.stats.json'), await one.evaluate(() => window.instruments.everything())),
    seen: async () => writeFileSync(file('.seen.json'), JSON.stringify(await one.evaluate(() => window.member?.report?.() ?? null), null, 1)),
    picture: () => one.screenshot(file('.png')),
  };
  for (const [what, attempt] of Object.entries(attempts)) {
    await within(`${what} of ${one}`, 6000, attempt()).catch((error) => {
      writeFileSync(file('.missing.txt'), `${what}: ${error.message}\n`, { flag: 'a' });
    });
  }
}

/** Keeps everything about a failed test; says where. */
export async function keep(test, error, { browsers = [], server, proxy }) {
  const directory = directoryOf(test);
  writeFileSync(join(directory, 'failure.txt'), `${error?.stack ?? error}\n`);
  if (server) writeFileSync(join(directory, 'server.log'), server.log());
  if (proxy) writeFileSync(join(directory, 'relay.json'), JSON.stringify(proxy.summary(), null, 1));
  for (const browser of browsers) {
    for (const one of browser.pages) await page(directory, one);
  }
  return directory;
}
