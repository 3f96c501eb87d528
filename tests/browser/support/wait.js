// Waiting for a condition. Tests never sleep and never repeat an assertion: they wait, with a ceiling, until
// something observable is so, and then assert once.

import { setTimeout as pause } from 'node:timers/promises';

/** How long to wait at most, in ms. Lower costs false alarms on a busy machine, higher only the time of a failing test. */
export const CEILING = 20_000;

/**
 * Calls `probe` until it returns something truthy, and returns that. The error names what was awaited and what was
 * seen last: a probe may return `{ ok: false, … }` to have its findings shown.
 */
export async function until(description, probe, { ceiling = CEILING, every = 100 } = {}) {
  const start = performance.now();
  let seen;
  let failure;
  for (;;) {
    try {
      seen = await probe();
      failure = undefined;
      if (seen && seen.ok !== false) return seen;
    } catch (error) {
      if (error?.fatal) throw error;
      failure = error;
    }
    const elapsed = performance.now() - start;
    if (elapsed > ceiling) {
      const last = failure ? `the last attempt threw ${failure.stack ?? failure}` : `last seen: ${JSON.stringify(seen)}`;
      throw new Error(`waited ${Math.round(elapsed)} ms in vain until ${description}; ${last}`);
    }
    await pause(every);
  }
}

/**
 * Lets `ms` pass while the thing under test runs, to observe that something does *not* happen, or to measure a rate over
 * a known time. Not for waiting until something happens: that is `until`.
 */
export async function observeFor(ms) {
  const start = performance.now();
  await pause(ms);
  return performance.now() - start;
}

/** The promise's value, or an error that names what took too long. */
export async function within(description, ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${description} took longer than ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
