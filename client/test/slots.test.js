import assert from "node:assert/strict";
import { test } from "node:test";

import { Participant, Publication } from "../participant.js";
import { Slots, isAtOrAfter } from "../slots.js";
import { FakeStream, FakeTrack, FakeVideo } from "./fakes.js";

globalThis.MediaStream ??= FakeStream;

function slots() {
  const made = new Slots();
  made.add("4", { track: new FakeTrack("audio") });
  made.add("5", { track: new FakeTrack("video") });
  made.add("6", { track: new FakeTrack("video") });
  return made;
}

function publication() {
  const changes = [];
  const made = new Publication(
    { id: 9, participant: "p", kind: "video", source: "camera" },
    new Participant({ id: "p", name: "P" }, false),
    { changed: (which) => changes.push(which.visible), attached() {} },
  );
  return { made, changes };
}

test("have names the slot of a publication", () => {
  const have = slots();
  have.apply({ n: 1, slots: [{ slot: "5", publication: 9, fromTs: 7, layer: 1 }] });
  assert.deepEqual([have.of(9).mid, have.of(9).fromTs, have.of(9).layer], ["5", 7, 1]);
  have.apply({ n: 1, slots: [{ slot: "6", publication: 9 }] });
  assert.equal(have.of(9).mid, "6");
});

test("a slot that is empty, pending or not named carries nobody", () => {
  const have = slots();
  for (const state of [{ publication: null }, { publication: 9, pending: true }]) {
    have.apply({ n: 1, slots: [{ slot: "5", publication: 9 }] });
    have.apply({ n: 1, slots: [{ slot: "5", ...state }] });
    assert.equal(have.of(9), undefined);
  }
  have.apply({ n: 1, slots: [{ slot: "5", publication: 9 }] });
  have.apply({ n: 1, slots: [] });
  assert.equal(have.of(9), undefined);
});

test("a slot of which nothing is known here is ignored", () => {
  const have = slots();
  have.apply({ n: 1, slots: [{ slot: "77", publication: 9 }] });
  assert.equal(have.of(9), undefined);
});

test("timestamps compare across the wrap", () => {
  assert.ok(isAtOrAfter(5, 5));
  assert.ok(isAtOrAfter(6, 5));
  assert.ok(!isAtOrAfter(4, 5));
  assert.ok(isAtOrAfter(10, 0xffff_fff0));
  assert.ok(!isAtOrAfter(0xffff_fff0, 10));
  for (let from = 0; from < 2 ** 32; from += 0x0123_4567) {
    assert.ok(isAtOrAfter((from + 90_000) >>> 0, from) && !isAtOrAfter((from - 90_000) >>> 0, from), String(from));
  }
});

test("a publication is visible from its own first frame on", () => {
  const { made, changes } = publication();
  const video = new FakeVideo();
  made.attach(video);
  assert.equal(video.srcObject, null);
  made.bind({ track: new FakeTrack("video"), fromTs: 1000 });
  assert.notEqual(video.srcObject, null);
  video.present(400); // of whoever was in the slot before
  assert.deepEqual([made.visible, video.dataset.visible], [false, "false"]);
  video.present(1000);
  assert.deepEqual([made.visible, video.dataset.visible], [true, "true"]);
  assert.deepEqual(changes, [false, true]);
});

test("a publication without a slot shows nothing", () => {
  const { made } = publication();
  const video = new FakeVideo();
  made.attach(video);
  made.bind({ track: new FakeTrack("video") });
  video.present(1);
  made.bind(null);
  assert.deepEqual([made.visible, made.track, video.srcObject], [false, null, null]);
});

test("another layer in the same slot is no interruption", () => {
  const { made } = publication();
  const video = new FakeVideo();
  const track = new FakeTrack("video");
  made.attach(video);
  made.bind({ track, fromTs: 5, layer: 2 });
  video.present(5);
  const stream = video.srcObject;
  made.bind({ track, fromTs: 5, layer: 0 });
  assert.deepEqual([made.visible, made.layer, video.srcObject === stream], [true, 0, true]);
});

test("a frame that was asked for before the slot changed says nothing", () => {
  const { made } = publication();
  const video = new FakeVideo();
  made.attach(video);
  made.bind({ track: new FakeTrack("video"), fromTs: 5 });
  made.bind(null);
  video.present(6);
  assert.equal(made.visible, false);
});

test("muting hides, and the next frame shows again", () => {
  const { made } = publication();
  const info = { id: 9, participant: "p", kind: "video", source: "camera" };
  const video = new FakeVideo();
  made.attach(video);
  made.bind({ track: new FakeTrack("video"), fromTs: 5 });
  video.present(5);
  assert.ok(made.update({ ...info, muted: true }));
  assert.equal(made.visible, false);
  video.present(6);
  assert.equal(made.visible, false);
  made.update({ ...info, muted: false });
  video.present(7);
  assert.equal(made.visible, true);
});

test("an element that is detached lets go of the stream", () => {
  const { made } = publication();
  const video = new FakeVideo();
  made.attach(video);
  made.bind({ track: new FakeTrack("video") });
  made.detach(video);
  assert.deepEqual([video.srcObject, "visible" in video.dataset], [null, false]);
});

test("a slot that becomes pending is told once, also when it becomes pending with somebody else", () => {
  const have = slots();
  const state = (publication, pending) => have.apply({ n: 1, slots: [{ slot: "5", publication, pending }] });
  assert.deepEqual([state(9, true), state(9, true), state(9, false), state(8, true), state(7, true)], [true, false, false, true, true]);
  assert.equal(have.of(7), undefined);
  assert.equal([...have.all()][1].coming, 7);
});

test("the newest contributing source is the witness", () => {
  const have = new Slots();
  let sources;
  have.add("5", { track: new FakeTrack("video"), getContributingSources: () => sources });
  const [slot] = have.all();
  sources = [];
  assert.equal(slot.witness(), undefined);
  sources = [{ source: 3, timestamp: 10 }, { source: 4, timestamp: 20 }, { source: 5, timestamp: 5 }];
  assert.equal(slot.witness(), 4);
});

test("without time stamps the packets' own word decides", () => {
  const { made } = publication();
  const video = new FakeVideo();
  let source = 8;
  made.attach(video);
  made.bind({ track: new FakeTrack("video"), fromTs: 5, witness: () => source });
  video.present(undefined);
  assert.equal(made.visible, false, "somebody else's frame");
  source = 9;
  video.present(undefined);
  assert.equal(made.visible, true);
});

test("a slot that plays somebody else without the server's word hides the picture until its own comes again", (t) => {
  let now = 1000;
  t.mock.method(performance, "now", () => now);
  const { made } = publication();
  const video = new FakeVideo();
  let source = 9;
  made.attach(video);
  made.bind({ track: new FakeTrack("video"), fromTs: 5, witness: () => source });
  video.present(6);
  source = 8;
  video.present(7);
  assert.equal(made.visible, true, "the list of sources is late: asked a little later");
  now += 300;
  video.present(8);
  assert.equal(made.visible, false);
  video.present(9);
  assert.equal(made.visible, false, "its time stamps prove nothing now");
  source = 9;
  video.present(10);
  assert.equal(made.visible, true);
});

test("a picture that goes on elsewhere stays visible; a new beginning in the same slot does not", () => {
  const { made, changes } = publication();
  const video = new FakeVideo();
  const track = new FakeTrack("video");
  made.attach(video);
  made.bind({ track: new FakeTrack("video"), fromTs: 5, witness: () => 9 });
  video.present(5);
  made.bind({ track, fromTs: 700, witness: () => 9 });
  assert.equal(made.visible, true);
  assert.equal(video.srcObject.tracks[0], track);
  made.bind({ track, fromTs: 900, witness: () => 8 });
  assert.equal(made.visible, false);
  assert.ok(changes.length > 0);
});

test("an element attached again is watched once", () => {
  const { made } = publication();
  const video = new FakeVideo();
  let asked = 0;
  video.requestVideoFrameCallback = (callback) => {
    asked += 1;
    queueMicrotask(() => asked < 20 && callback(0, {}));
  };
  made.attach(video);
  made.bind({ track: new FakeTrack("video") });
  made.bind(null);
  assert.equal(asked, 1);
});
