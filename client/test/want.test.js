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
  wants.add(7, video(320, 180), "camera");
  await clock.pass(100);
  assert.deepEqual(sent, [{ n: 2, default: { height: 360, priority: 0 }, publications: { 7: { height: 360, priority: 0 } } }]);
});

test("a narrow element that crops wants the whole picture's height; one that does not, its part", async () => {
  const narrow = video(100, 400);
  wants.add(7, narrow, "camera");
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
  wants.add(7, element, "camera");
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
  wants.add(7, video(320, 180), "camera");
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
  wants.add(7, small, "camera");
  wants.add(7, large, "camera");
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

test("voices are chosen apart from pictures, and heard by a hidden page", async () => {
  wants.initial();
  wants.choose({ audio: [4, 5] });
  await clock.pass(50);
  assert.deepEqual(sent.at(-1), { n: 2, default: { height: 360, priority: 0 }, publications: {}, audio: [4, 5] });
  document.hide(true);
  await clock.pass(1100);
  assert.deepEqual(sent.at(-1), { n: 3, default: { height: 0, priority: 0 }, publications: {}, audio: [4, 5] });
});

test("of the last speakers' cameras none is named, because those who are named are always sent; a screen is", async () => {
  wants.choose({ video: { last: 3 } });
  wants.add(7, video(320, 180), "camera");
  wants.add(8, video(640, 360), "camera");
  wants.add(9, video(640, 360), "screen");
  await clock.pass(100);
  assert.deepEqual(sent.at(-1), {
    n: 1, default: { height: 720, priority: 0 }, publications: { 9: { height: 720, priority: 10 } }, video: { last: 3 },
  });
});

test("it is known which pictures were asked for", async () => {
  const element = video(320, 180);
  assert.ok(wants.wants(7), "never shown: by default");
  wants.add(7, element, "camera");
  assert.ok(wants.wants(7));
  wants.remove(7, element);
  assert.ok(!wants.wants(7));
  document.hide(true);
  await clock.pass(1100);
  assert.ok(!wants.wants(8));
});
