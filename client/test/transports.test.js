// The connections of a room: slots that begin and grow, layers, stalls, and one connection that takes over from another.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { FakeVideo, call, settle, useClock } from "./fakes.js";

const BEN = "00000000000000bb";
let clock, now, here;

beforeEach(() => {
  clock = useClock();
  now = 0;
  mock.method(performance, "now", () => now);
  here = call();
});

afterEach(() => {
  here.room?.leave();
  clock.stop();
  mock.restoreAll();
});

/** With the time that `performance.now` tells. */
async function pass(ms) {
  for (let left = ms; left > 0; left -= 50) {
    now += Math.min(50, left);
    await clock.pass(Math.min(50, left));
  }
}

const own = { id: 3, participant: "00000000000000aa", kind: "video", source: "camera", muted: false, mid: "1" };

/** Ben has so many cameras, all attached, and they are in the slots from 12 on. */
function crowd(from, count) {
  const ids = Array.from({ length: count }, (_, i) => from + i);
  here.say({
    t: "room", rev: here.rev += 1, total: 2,
    published: ids.map((id) => ({ id, participant: BEN, kind: "video", source: "camera", muted: false })),
  });
  return ids.map((id) => {
    const video = new FakeVideo();
    here.room.participants.get(BEN).publications.get(id).attach(video);
    return video;
  });
}

test("a slot that becomes pending is acknowledged at once", async () => {
  const socket = await here.join();
  const state = (more) => here.say({ t: "have", n: 1, transport: 0, slots: [{ slot: "12", publication: 7, ...more }] });
  state({ pending: true });
  assert.equal(socket.count("ack"), 1);
  state({ pending: true });
  state({ fromTs: 5 });
  assert.equal(socket.count("ack"), 1);
});

test("what slots of another connection carry is ignored", async () => {
  const socket = await here.join();
  here.say({ t: "have", n: 1, transport: 3, slots: [{ slot: "12", publication: 7, pending: true }] });
  here.say({ t: "have", n: 1, transport: 3, slots: [{ slot: "12", publication: 7 }] });
  assert.equal(here.room.participants.get(BEN).camera.track, null);
  assert.equal(socket.count("ack"), 0);
});

test("who speaks is told, the dominant one first", async () => {
  await here.join();
  const ben = here.room.participants.get(BEN);
  here.say({ t: "speakers", speakers: [BEN, "unknown"] });
  assert.deepEqual([here.events.at(-1)[0], here.events.at(-1)[1].speakers, ben.speaking], ["speakerschanged", [ben], true]);
  here.say({ t: "room", rev: 6, total: 3, joined: [{ id: "unknown", name: "Uma" }] });
  assert.equal(here.room.participants.get("unknown").speaking, true, "told before her name was");
  here.say({ t: "room", rev: 7, total: 2, left: [{ id: BEN, reason: "bye" }] });
  assert.deepEqual(here.room.speakers.map(({ name }) => name), ["Uma"]);
  here.say({ t: "speakers", speakers: [] });
  assert.equal(here.room.participants.get("unknown").speaking, false);
});

test("encodings that nobody watches are switched off, also before the publication has its number", async () => {
  await here.join({ camera: true });
  const sender = here.env.peers[0].sender(1);
  const flags = () => sender.encodings.map(({ active }) => active);
  here.say({ t: "layers", publications: { 3: [1] } });
  await settle();
  assert.deepEqual(flags(), [true, true, true]);
  here.say({ t: "room", rev: 6, total: 2, published: [own] });
  await settle();
  assert.deepEqual(flags(), [false, true, false]);
  here.say({ t: "layers", publications: {} });
  await settle();
  assert.deepEqual(flags(), [true, true, true]);
});

test("a room may choose its voices and the cameras of the last speakers", async () => {
  const socket = await here.join();
  here.room.want({ audio: [here.room.participants.get(BEN).camera, 9], lastSpeakers: 4 });
  await pass(50);
  assert.deepEqual([socket.last("want").audio, socket.last("want").video], [[7, 9], { last: 4 }]);
  here.room.want({ audio: "loudest" });
  await pass(50);
  assert.deepEqual([socket.last("want").audio, socket.last("want").video], ["loudest", undefined]);
});

test("everybody can be listed, page by page", async () => {
  const socket = await here.join({}, { room: { rev: 5, total: 4 } });
  const pages = { undefined: { participants: [{ id: BEN, name: "Ben" }, { id: "c", name: "Cleo" }], next: "c" },
    c: { participants: [{ id: "d", name: "Dan", away: true }] } };
  const found = [];
  const listed = (async () => {
    for await (const person of here.room.people()) found.push(person);
  })();
  for (const after of [undefined, "c"]) {
    await settle();
    assert.equal(socket.last("who").after, after);
    here.say({ t: "who", room: { rev: 5, total: 4 }, ...pages[after] });
  }
  await listed;
  assert.equal(found[0], here.room.participants.get(BEN));
  assert.deepEqual(found.slice(1), [{ id: "c", name: "Cleo", away: false }, { id: "d", name: "Dan", away: true }]);
  here.say({ t: "room", rev: 6, total: 3, left: [{ id: "d", reason: "bye" }], changed: [{ id: "c", name: "C.", away: true }] });
  assert.deepEqual([here.room.total, here.room.participants.size], [3, 2], "nobody appears by changing or leaving");
  const last = here.room.people().next();
  here.room.leave();
  await assert.rejects(last, { reason: "closed" });
});

test("more pictures than slots: one offer with sections up to the next step", async () => {
  const socket = await here.join();
  const [peer] = here.env.peers;
  crowd(100, 9);
  await pass(200);
  assert.equal(socket.count("offer"), 0);
  crowd(200, 3);
  await pass(50);
  crowd(300, 3);
  await pass(200);
  assert.equal(socket.count("offer"), 1);
  assert.equal(peer.transceivers.length, 12 + 16);
  assert.deepEqual([socket.last("offer").transport, peer.restarts], [0, 0]);
  here.say({ t: "have", n: 2, transport: 0, slots: [{ slot: "27", publication: 300, fromTs: 1 }] });
  assert.equal(here.room.participants.get(BEN).publications.get(300).track, peer.transceivers[27].receiver.track);
  // More come while the offer is in flight: it is answered first.
  crowd(400, 20);
  await pass(200);
  assert.equal(socket.count("offer"), 1);
  here.say({ t: "answer", transport: 0, sdp: "answer 2" });
  await settle();
  assert.equal(socket.count("offer"), 2);
  assert.equal(peer.transceivers.length, 12 + 49);
  here.say({ t: "answer", transport: 0, sdp: "answer 3" });
  crowd(500, 40);
  await pass(200);
  assert.equal(socket.count("offer"), 2, "beyond the last step one pages");
});

test("a muted picture needs no slot", async () => {
  const socket = await here.join();
  crowd(100, 9);
  here.say({ t: "room", rev: here.rev += 1, total: 2, published: [{ id: 50, participant: BEN, kind: "video", source: "screen", muted: true }] });
  here.room.participants.get(BEN).screen.attach(new FakeVideo());
  await pass(200);
  assert.equal(socket.count("offer"), 0);
  here.say({ t: "room", rev: here.rev += 1, total: 2, published: [{ id: 50, participant: BEN, kind: "video", source: "screen", muted: false }] });
  await pass(200);
  assert.equal(socket.count("offer"), 1);
});

test("growth and a restart of ICE share an offer, and one is in flight at a time", async () => {
  await here.join();
  const [peer] = here.env.peers;
  crowd(100, 12);
  await pass(200);
  crowd(200, 10);
  here.env.window.dispatchEvent(new Event("online"));
  await pass(150);
  here.env.net.last.open();
  here.env.net.last.say({ t: "resumed", resume: "x", a: 1 });
  const socket = here.env.net.last;
  assert.deepEqual([socket.count("offer"), peer.restarts], [1, 0], "the first, sent again");
  here.say({ t: "answer", transport: 0, sdp: "answer 2" });
  await settle();
  assert.deepEqual([socket.count("offer"), peer.restarts, peer.transceivers.length], [2, 1, 12 + 25]);
});

test("growth that came too soon is offered again; one that is refused is given up, and restarts still work", async () => {
  const socket = await here.join();
  const [peer] = here.env.peers;
  crowd(100, 12);
  await pass(200);
  here.say({ t: "error", id: socket.last("offer").s, reason: "rate_limited", hint: "", retryMs: 500 });
  await pass(600);
  assert.deepEqual([socket.count("offer"), peer.transceivers.length], [2, 12 + 16]);
  here.say({ t: "error", id: socket.last("offer").s, reason: "sdp_too_many_sections", hint: "" });
  await settle();
  assert.equal(peer.transceivers.filter(({ stopped }) => stopped).length, 7);
  crowd(200, 10);
  await pass(200);
  assert.equal(socket.count("offer"), 2);
  here.env.window.dispatchEvent(new Event("online"));
  await pass(150);
  here.env.net.last.open();
  here.env.net.last.say({ t: "resumed", resume: "x", a: socket.last("offer").s });
  await settle();
  assert.equal(here.env.net.last.count("offer"), 1);
});

test("a picture that stands still is told to the server, but not one that is muted, away, hidden or not wanted", async () => {
  const socket = await here.join();
  const [peer] = here.env.peers;
  const seconds = async (count) => {
    for (let i = 0; i < count; i += 1) {
      peer.packets += 1;
      await pass(1000);
    }
  };
  const { camera } = here.room.participants.get(BEN);
  const video = new FakeVideo();
  camera.attach(video);
  here.say({ t: "have", n: 1, transport: 0, slots: [{ slot: "12", publication: 7, fromTs: 1 }] });
  peer.frames.set(12, 5);
  await seconds(4);
  assert.deepEqual([socket.count("stall"), socket.last("stall").slot], [1, "12"]);
  peer.frames.set(12, 6);
  await seconds(2);
  assert.equal(socket.count("stall"), 1);
  const count = async (change, back) => {
    change();
    await seconds(5);
    const stalls = socket.count("stall");
    back();
    peer.frames.set(12, peer.frames.get(12) + 1);
    await seconds(1);
    return stalls;
  };
  const mute = (muted) => here.say({ t: "room", rev: here.rev += 1, total: 2, published: [{ ...own, id: 7, mid: undefined, participant: BEN, muted }] });
  const away = (is) => here.say({ t: "room", rev: here.rev += 1, total: 2, changed: [{ id: BEN, name: "Ben", away: is }] });
  assert.equal(await count(() => mute(true), () => mute(false)), 1);
  assert.equal(await count(() => away(true), () => away(false)), 1);
  assert.equal(await count(() => here.env.document.hide(true), () => here.env.document.hide(false)), 1);
  assert.equal(await count(() => camera.detach(video), () => camera.attach(video)), 1);
  await seconds(3);
  assert.equal(socket.count("stall"), 2);
});

/** A call whose path dies, and the second connection that is then offered. */
async function dying() {
  const socket = await here.join({ camera: true, microphone: true }, { publications: [own,
    { id: 7, participant: BEN, kind: "video", source: "camera", muted: false }] });
  const [old] = here.env.peers;
  old.packets = 1;
  old.become("connected");
  const video = new FakeVideo();
  const { camera } = here.room.participants.get(BEN);
  camera.attach(video);
  here.say({ t: "have", n: 1, transport: 0, slots: [{ slot: "12", publication: 7, fromTs: 1 }, { slot: "4", publication: 8 }] });
  video.present(2);
  await pass(3100);
  assert.deepEqual([socket.count("offer"), old.restarts], [1, 1], "first a restart of ICE");
  here.say({ t: "answer", transport: 0, sdp: "answer 2" });
  await pass(5000);
  return { socket, old, next: here.env.peers[1], video, camera };
}

test("when a restart of ICE brings nothing within five seconds, a second connection is made beside the first", async () => {
  const { socket, old, next, camera } = await dying();
  assert.equal(here.env.peers.length, 2);
  const offer = socket.last("offer");
  assert.deepEqual([offer.transport, offer.publish.map(({ source, mid }) => [source, mid])], [1, [["microphone", "0"], ["camera", "1"]]]);
  assert.ok(!old.closed);
  assert.equal(next.sender(1).track, old.sender(1).track, "sent on both");
  assert.deepEqual([camera.visible, camera.track], [true, old.transceivers[12].receiver.track]);
});

test("it takes over when it plays what is seen, without a blink", async () => {
  const { old, next, video, camera } = await dying();
  here.events.length = 0;
  here.say({ t: "answer", transport: 1, sdp: "answer of 1" });
  await settle();
  next.become("connected");
  here.say({ t: "have", n: 1, transport: 1, slots: [{ slot: "13", publication: 7, fromTs: 9 }, { slot: "5", publication: 8 }] });
  await pass(1000);
  assert.equal(camera.track, old.transceivers[12].receiver.track, "nothing decoded yet");
  next.transceivers[13].receiver.sources = [{ source: 7, timestamp: 1 }];
  await pass(100);
  assert.deepEqual([camera.track, old.closed, camera.visible], [next.transceivers[13].receiver.track, true, true]);
  assert.equal(video.srcObject.tracks[0], camera.track);
  assert.equal(here.env.audio.at(-1).srcObject.tracks[0], next.transceivers[5].receiver.track);
  assert.equal(here.room.state, "connected");
  assert.ok(!here.events.some(([type, detail]) => type === "publicationchanged" && !detail.publication.visible));
  next.packets += 1;
  await pass(2000);
  assert.equal(here.env.peers.length, 2);
});

test("it takes over after three seconds whatever it shows", async () => {
  const { old, next, camera } = await dying();
  here.say({ t: "answer", transport: 1, sdp: "answer of 1" });
  await settle();
  next.become("connected");
  await pass(2900);
  assert.ok(!old.closed);
  await pass(200);
  assert.ok(old.closed);
  assert.deepEqual([camera.visible, camera.track], [false, null]);
});

test("devices that change meanwhile change on both connections", async () => {
  const { old, next } = await dying();
  await here.room.setCamera(false);
  assert.deepEqual([old, next].map((peer) => [peer.sender(1).track, peer.sender(1).active]), [[null, false], [null, false]]);
  await here.room.setCamera(true);
  assert.ok([old, next].every((peer) => peer.sender(1).track === here.room.camera.track && peer.sender(1).active));
});

test("a second connection that is not made within ten seconds is followed by a join anew, as the same participant", async () => {
  const { old, next } = await dying();
  await pass(10_000);
  assert.ok(next.closed && old.closed);
  while (here.env.net.opened.length < 2) await pass(50);
  here.env.net.last.open();
  await settle();
  assert.deepEqual([here.env.net.last.sent[0].t, here.env.net.last.sent[0].session], ["hello", "5e5510n000000000"]);
});

test("a first connection that lives again meanwhile is kept", async () => {
  const { old, next } = await dying();
  for (let i = 0; i < 12; i += 1) {
    old.packets += 1;
    await pass(1000);
  }
  assert.deepEqual([next.closed, old.closed, here.room.state, here.env.net.opened.length], [true, false, "connected", 1]);
});

test("a second connection that the server refuses is followed by a join anew", async () => {
  const { socket, next } = await dying();
  here.say({ t: "error", id: socket.last("offer").s, reason: "wrong_state", hint: "" });
  await settle();
  assert.ok(next.closed);
  await pass(300);
  assert.equal(here.env.net.opened.length, 2);
});

test("a connection that never was is not repeated: whoever cannot be reached joins anew", async () => {
  await here.join();
  await pass(12_500);
  assert.deepEqual([here.env.net.opened.length > 1, here.env.peers[0].closed], [true, true]);
});
