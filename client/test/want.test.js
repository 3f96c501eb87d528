import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { Wants } from "../want.js";
import { FakeDocument, FakeVideo, useClock } from "./fakes.js";

let clock, sent, document, wants, resized, fit;

beforeEach(() => {
  clock = useClock();
  sent = [];
  fit = "contain";
  document = new FakeDocument();
  globalThis.getComputedStyle = () => ({ objectFit: fit });
  wants = new Wants((want) => sent.push(want), {
    document,
    pixelRatio: () => 2,
    ResizeObserver: class {
      constructor(callback) {
        resized = callback;
      }
      observe() {}
      unobserve() {}
      disconnect() {}
    },
  });
});

afterEach(() => {
  wants.close();
  clock.stop();
  delete globalThis.getComputedStyle;
});

function video(width, height) {
  return Object.assign(new FakeVideo(), { clientWidth: width, clientHeight: height });
}

test("the first wish is for everything at a middle height", () => {
  assert.deepEqual(wants.initial(), { n: 1, default: { height: 360, priority: 0 }, publications: {} });
});

test("a picture is wanted at the physical pixels in which it is drawn", async () => {
  wants.initial();
  wants.add(7, video(320, 180), 0);
  await clock.pass(100);
  assert.deepEqual(sent, [{ n: 2, default: { height: 360, priority: 0 }, publications: { 7: { height: 360, priority: 0 } } }]);
});

test("a narrow element that crops wants the whole picture's height; one that does not, its part", async () => {
  const narrow = video(100, 400);
  wants.add(7, narrow, 0);
  await clock.pass(100);
  assert.equal(sent.at(-1).publications[7].height, Math.ceil(100 * 9 / 16 * 2));
  fit = "cover";
  resized();
  await clock.pass(100);
  assert.equal(sent.at(-1).publications[7].height, 800);
  Object.assign(narrow, { videoWidth: 360, videoHeight: 640 });
  fit = "contain";
  narrow.dispatchEvent(new Event("resize"));
  await clock.pass(100);
  assert.equal(sent.at(-1).publications[7].height, Math.ceil(100 * 640 / 360 * 2));
});

test("changes in quick succession become one message, and none where nothing changed", async () => {
  const element = video(320, 180);
  wants.add(7, element, 0);
  for (let i = 0; i < 10; i += 1) {
    element.clientHeight = 181 + i;
    element.clientWidth = 10_000;
    resized();
    await clock.pass(50);
  }
  await clock.pass(100);
  assert.equal(sent.length, 1);
  resized();
  await clock.pass(200);
  assert.equal(sent.length, 1);
});

test("a hidden page wants no picture, and all of them again when it is shown", async () => {
  wants.initial();
  wants.add(7, video(320, 180), 0);
  await clock.pass(100);
  document.hide(true);
  await clock.pass(900);
  assert.equal(sent.length, 1, "a glance at another tab costs nothing");
  await clock.pass(200);
  assert.deepEqual(sent.at(-1), { n: 3, default: { height: 0, priority: 0 }, publications: {} });
  document.hide(false);
  await clock.pass(50);
  assert.equal(sent.at(-1).publications[7].height, 360);
});

test("a picture that was shown and is no more is not wanted; the largest of two elements counts", async () => {
  const small = video(160, 90);
  const large = video(640, 360);
  wants.add(7, small, 0);
  wants.add(7, large, 0);
  await clock.pass(100);
  assert.equal(sent.at(-1).publications[7].height, 720);
  wants.remove(7, large);
  await clock.pass(100);
  assert.equal(sent.at(-1).publications[7].height, 180);
  wants.remove(7, small);
  await clock.pass(100);
  assert.equal(sent.at(-1).publications[7].height, 0);
  wants.forget(7);
  await clock.pass(100);
  assert.deepEqual(sent.at(-1).publications, {});
});
