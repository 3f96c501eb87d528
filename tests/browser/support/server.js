// The server under test: the debug binary, started on free ports and stopped by its process id.

import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { until } from './wait.js';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const running = new Set();
// Whatever ends this process, no server stays behind.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** The binary that is tested: `MOTET_BIN`, or what `cargo build` left. Nothing is built here. */
export function binary() {
  const path = process.env.MOTET_BIN ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target'), 'debug', 'motet');
  if (!existsSync(path)) throw new Error(`${path} does not exist: run \`cargo build\` first, or set MOTET_BIN`);
  return path;
}

/** An example program, as `cargo build --examples` left it beside the server. */
function example(name) {
  const path = join(dirname(binary()), 'examples', name);
  if (!existsSync(path)) throw new Error(`${path} does not exist: run \`cargo build --example ${name}\` first`);
  return path;
}

/** The publisher of prepared pictures. */
export const publisher = () => example('publisher');

/** Many clients at once. */
export const crowd = () => example('crowd');

/** Lines of a child's output, the newest last, at most 4 MB: what a failing test shows. */
class Log {
  text = '';

  add(chunk) {
    this.text += chunk;
    if (this.text.length > 4 << 20) this.text = this.text.slice(-(3 << 20));
  }
}

/**
 * Starts Motet and waits until it says that it is ready.
 * @param {object} [options]
 * @param {string} [options.advertise] `address` or `address:port` that browsers are told to send to
 * @param {number} [options.udp] media port, 0: any
 * One worker: one media port, so that the relay can stand before it.
 * @param {string[]} [options.flags] more flags
 * @param {Record<string, string>} [options.env]
 */
export async function startServer({ advertise, udp = 0, flags = [], env = {} } = {}) {
  const args = ['--http', '127.0.0.1:0', '--udp', String(udp), '--workers', '1', ...(advertise ? ['--advertise', advertise] : []), ...flags];
  const child = spawn(binary(), args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, RUST_BACKTRACE: '1', NO_COLOR: '1', ...env } });
  running.add(child);
  const log = new Log();
  child.stdout.on('data', (chunk) => log.add(chunk));
  child.stderr.on('data', (chunk) => log.add(chunk));
  const ended = new Promise((done) => child.once('exit', (code, signal) => {
    running.delete(child);
    done({ code, signal });
  }));
  let end;
  ended.then((result) => { end = result; });
  child.once('error', (error) => log.add(`${error.stack}\n`));

  const origin = await until('the server says that it is ready', () => {
    if (end) throw Object.assign(new Error(`the server ended with ${JSON.stringify(end)}:\n${log.text}`), { fatal: true });
    return /Motet is ready: (http:\/\/[^\s/]+)\/?/.exec(log.text)?.[1];
  }, { every: 20 });

  return {
    origin,
    pid: child.pid,
    args,
    log: () => log.text,
    /** Seconds of processor time that it has used so far (proc(5): utime and stime, in ticks of 10 ms); 0 when it is gone. */
    cpu() {
      try {
        const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
        return (Number(fields[11]) + Number(fields[12])) / 100;
      } catch {
        return 0;
      }
    },
    get ended() { return end ?? null; },
    /** Stops it as an operator would; after 5 s it is ended. */
    async stop() {
      if (end) return end;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
      const result = await ended;
      clearTimeout(timer);
      return result;
    },
    /** SIGSTOP and SIGCONT: the process sleeps, its sockets fill. */
    pause: () => child.kill('SIGSTOP'),
    proceed: () => child.kill('SIGCONT'),
  };
}
