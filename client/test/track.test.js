import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { MotetError } from "../errors.js";
import { LocalTrack } from "../track.js";
import { FakePeer, FakeTrack, settle } from "./fakes.js";

let sender, opened, failure, gate, announced, shown;

beforeEach(() => {
  sender = new FakePeer().addTransceiver("video", {
    direction: "sendonly",
    sendEncodings: [{ rid: "f", active: false }, { rid: "h", active: false }, { rid: "q", active: false }],
  }).sender;
  opened = [];
  failure = null;
  gate = null;
  announced = [];
  shown = [];
});

function make(source) {
  return new LocalTrack(source, {
    async open(_, choice) {
      await gate;
      if (failure) throw failure;
      if (choice instanceof FakeTrack) return choice;
      opened.push(new FakeTrack(source === "camera" ? "video" : "audio", choice?.deviceId?.ideal ?? "one"));
      return opened.at(-1);
    },
    senders: () => [sender],
    announce: (track) => announced.push(track.muted ? "muted" : "live"),
    changed: (track) => shown.push(track.state),
  });
}

test("a camera that is turned on is sent with all its encodings", async () => {
  const camera = make("camera");
  await camera.set(true);
  assert.equal(camera.state, "on");
  assert.equal(sender.track, opened[0]);
  assert.ok(sender.encodings.every(({ active }) => active));
  assert.deepEqual(announced, ["live"]);
});

test("a camera that is turned off sends nothing, by encodings and by track, and its lamp is off", async () => {
  const camera = make("camera");
  await camera.set(true);
  await camera.set(false);
  assert.ok(sender.encodings.every(({ active }) => !active));
  assert.equal(sender.track, null);
  assert.equal(opened[0].readyState, "ended");
  assert.deepEqual([camera.state, camera.track], ["off", null]);
  assert.deepEqual(announced, ["live", "muted"]);
});

test("it is said to be off at once, however long the browser takes for its part", async () => {
  const microphone = make("microphone");
  await microphone.set(true);
  assert.deepEqual([shown[0], shown.at(-1)], ["starting", "on"]);
  sender.setParameters = () => new Promise(() => {});
  microphone.set(false);
  await settle();
  assert.deepEqual([microphone.state, shown.at(-1), announced.at(-1)], ["off", "off", "muted"]);
});

test("the lamp goes out at once, however long the browser takes for its part", async () => {
  const camera = make("camera");
  await camera.set(true);
  sender.setParameters = () => new Promise(() => {});
  camera.set(false);
  await settle();
  assert.deepEqual([opened[0].readyState, camera.track], ["ended", null]);
});

test("a camera comes back as the same device", async () => {
  const camera = make("camera");
  await camera.set(new FakeTrack("video", "usb"));
  await camera.set(false);
  await camera.set(true);
  assert.equal(opened[0].deviceId, "usb");
  assert.equal(sender.track, opened[0]);
});

test("a muted microphone is silent at once and keeps its device", async () => {
  const microphone = make("microphone");
  await microphone.set(true);
  const done = microphone.set(false);
  assert.equal(opened[0].enabled, false, "before anything is awaited");
  await done;
  assert.ok(!sender.active);
  assert.equal(opened[0].readyState, "live");
  await microphone.set(true);
  assert.equal(opened.length, 1);
  assert.deepEqual([opened[0].enabled, sender.active, sender.track], [true, true, opened[0]]);
});

test("the last of several quick wishes is what happens", async () => {
  const camera = make("camera");
  let open;
  gate = new Promise((resolve) => { open = resolve; });
  const first = camera.set(true);
  const second = camera.set(false);
  await settle();
  open();
  await Promise.all([first, second]);
  assert.deepEqual([camera.state, sender.track, sender.active], ["off", null, false]);
  assert.equal(opened[0].readyState, "ended", "nobody wanted it any more");

  await Promise.all([camera.set(true), camera.set(false), camera.set(true)]);
  assert.deepEqual([camera.state, sender.active], ["on", true]);
});

test("a device that does not open leaves it off, with a reason", async () => {
  const camera = make("camera");
  failure = Object.assign(new Error("no"), { name: "NotAllowedError" });
  await assert.rejects(camera.set(true), { reason: "permission_denied" });
  assert.equal(camera.state, "off");
  assert.ok(camera.error instanceof MotetError);
  assert.ok(!announced.includes("live"));
  failure = null;
  await camera.set(true);
  assert.deepEqual([camera.state, camera.error], ["on", null]);
});

test("changing to another device releases the first", async () => {
  const camera = make("camera");
  await camera.set(true);
  const other = new FakeTrack("video", "two");
  await camera.set(other);
  assert.equal(opened[0].readyState, "ended");
  assert.equal(sender.track, other);
});

test("a microphone that is unplugged is replaced; a camera goes off and says why", async () => {
  const microphone = make("microphone");
  await microphone.set(true);
  opened[0].unplug();
  await settle();
  assert.equal(sender.track, opened[1]);
  assert.equal(microphone.state, "on");

  const camera = make("camera");
  await camera.set(true);
  opened.at(-1).unplug();
  await settle();
  assert.deepEqual([camera.state, camera.error?.reason], ["off", "device_ended"]);
});

test("a muted microphone that is unplugged stays muted", async () => {
  const microphone = make("microphone");
  await microphone.set(true);
  await microphone.set(false);
  opened[0].unplug();
  await settle();
  assert.equal(microphone.state, "off");
  await microphone.set(true);
  assert.equal(opened.length, 2);
});

const flags = () => sender.encodings.map(({ active }) => active);

test("encodings that nobody watches are off, and the device stays open whatever is watched", async () => {
  const camera = make("camera");
  await camera.set(true);
  camera.watched([1]);
  await settle();
  assert.deepEqual(flags(), [false, true, false]);
  camera.watched([]);
  await settle();
  assert.deepEqual([flags(), sender.track, opened[0].readyState, camera.state], [[false, false, false], opened[0], "live", "on"]);
  camera.watched(null);
  await settle();
  assert.deepEqual(flags(), [true, true, true]);
});

test("what is watched and whether it is on combine in any order", async () => {
  const camera = make("camera");
  camera.watched([0, 2]);
  assert.deepEqual(flags(), [false, false, false], "off is off");
  await camera.set(true);
  assert.deepEqual(flags(), [true, false, true]);
  const off = camera.set(false);
  camera.watched([0]);
  await off;
  await settle();
  assert.deepEqual([flags(), sender.track], [[false, false, false], null]);
  await camera.set(true);
  assert.deepEqual(flags(), [true, false, false]);
});

test("parameters are never read while others are being set", async () => {
  const camera = make("camera");
  await camera.set(true);
  let setting = 0;
  const set = sender.setParameters;
  sender.setParameters = async (parameters) => {
    assert.equal(setting, 0, "one change after the other");
    setting += 1;
    await settle();
    setting -= 1;
    return set.call(sender, parameters);
  };
  for (const layers of [[0], [1], [], [2]]) camera.watched(layers);
  const off = camera.set(false);
  camera.watched([1]);
  const on = camera.set(true);
  await Promise.all([off, on]);
  for (let i = 0; i < 10; i += 1) await settle();
  assert.deepEqual(flags(), [false, true, false]);
});

test("a change that fails does not keep the next one from being made", async () => {
  const camera = make("camera");
  await camera.set(true);
  const set = sender.setParameters;
  sender.setParameters = async () => { throw new Error("InvalidStateError"); };
  camera.watched([0]);
  await settle();
  sender.setParameters = set;
  camera.watched([1]);
  await settle();
  assert.deepEqual(flags(), [false, true, false]);
});
