import assert from "node:assert/strict";
import { test } from "node:test";

import { Stalls } from "../stall.js";

/** Samples one slot once a second. */
function watch(states, { due = () => true } = {}) {
  const stalls = new Stalls();
  return states.map(([publication, frames, coming = null], second) => {
    const slot = { mid: "12", kind: "video", publication, coming };
    return stalls.sample([slot], new Map([["12", frames]]), due, second * 1000).map(({ ms }) => ms)[0] ?? 0;
  });
}

test("a picture that stands still is told after more than a second and a half, and then every two seconds", () => {
  assert.deepEqual(watch([[7, 10], [7, 20], [7, 20], [7, 20], [7, 20], [7, 20], [7, 20]]), [0, 0, 0, 2000, 0, 4000, 0]);
});

test("every new frame and every new publication begins anew", () => {
  assert.deepEqual(watch([[7, 10], [7, 10], [7, 11], [7, 11], [8, 11], [8, 11], [8, 12]]), [0, 0, 0, 0, 0, 0, 0]);
});

test("a slot that waits for its first frame is told, too", () => {
  assert.deepEqual(watch([[null, 10, 7], [null, 10, 7], [7, 10], [7, 10]]), [0, 0, 2000, 0]);
});

test("where no frame is due, none is missed", () => {
  let muted = true;
  const states = [[7, 1], [7, 1], [7, 1], [7, 1]];
  assert.deepEqual(watch(states, { due: () => false }), [0, 0, 0, 0]);
  assert.deepEqual(watch([...states, [7, 1], [7, 1]], { due: () => { muted = !muted; return muted; } }), [0, 0, 0, 0, 0, 0]);
});

test("voices have no frames", () => {
  const stalls = new Stalls();
  const slot = { mid: "4", kind: "audio", publication: 1, coming: null };
  for (const now of [0, 5000]) assert.deepEqual(stalls.sample([slot], new Map(), () => true, now), []);
});
