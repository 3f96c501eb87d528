import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { Room } from "../room.js";
import { FakeTrack, FakeVideo, environment, settle, useClock } from "./fakes.js";

const ME = "00000000000000aa";
const BEN = "00000000000000bb";
const EVENTS = [
  "participantjoined", "participantleft", "participantchanged", "publicationadded", "publicationchanged",
  "publicationremoved", "speakerschanged", "reconnecting", "reconnected", "playbackblocked", "error", "closed",
];

let clock, env, room, events;

beforeEach(() => {
  clock = useClock();
  env = environment();
});

afterEach(() => {
  room?.leave();
  clock.stop();
});

function welcome(more = {}) {
  return {
    t: "welcome", s: 1, a: 1, caps: [], session: "5e5510n000000000", epoch: 1, resume: "token", you: ME, answer: "answer",
    room: { rev: 5, total: 2 },
    participants: [{ id: BEN, name: "Ben" }, { id: ME, name: "Ada" }],
    publications: [{ id: 7, participant: BEN, kind: "video", source: "camera", muted: false }],
    have: { n: 1, slots: [] }, limits: {}, ...more,
  };
}

/** The sections: 0 microphone, 1 camera, 2 screen, 3 screen audio, 4–11 voices, 12–20 pictures. */
async function join(options = {}, more = {}) {
  room = new Room("https://calls.example/", { room: "garden", name: "Ada", ...options }, env);
  events = [];
  for (const type of EVENTS) room.addEventListener(type, (event) => events.push([type, event.detail]));
  const joined = room.join(options);
  await settle();
  env.net.last.open();
  env.net.last.say(welcome(more));
  await joined;
  return env.net.last;
}

let number = 1;
/** A numbered message of the server's. */
function say(message) {
  number += 1;
  env.net.last.say({ a: 0, ...message, s: 1000 + number });
}

const names = () => events.map(([type]) => type);

test("hello offers all sections and publishes what is on", async () => {
  const socket = await join({ camera: true, microphone: new FakeTrack("audio") });
  const hello = socket.sent[0];
  assert.deepEqual([hello.room, hello.name, hello.offer], ["garden", "Ada", "offer 1"]);
  assert.deepEqual(hello.publish, [
    { mid: "0", kind: "audio", source: "microphone", muted: false },
    { mid: "1", kind: "video", source: "camera", muted: false },
  ]);
  const [peer] = env.peers;
  assert.deepEqual(peer.transceivers.map(({ kind, direction }) => `${direction} ${kind}`), [
    "sendonly audio", "sendonly video", "sendonly video", "sendonly audio",
    ...Array(8).fill("recvonly audio"), ...Array(9).fill("recvonly video"),
  ]);
  assert.deepEqual(peer.sender(1).encodings.map(({ rid, scaleResolutionDownBy = 1, active }) => [rid, scaleResolutionDownBy, active]),
    [["f", 1, true], ["h", 2, true], ["q", 4, true]]);
  assert.ok(!peer.sender(2).active && !peer.sender(3).active, "unused sections are inactive");
  assert.deepEqual(peer.remote, ["answer"]);
  assert.equal(room.state, "connected");
});

test("the roster of welcome is there when join returns", async () => {
  await join();
  assert.deepEqual([...room.participants.values()].map(({ name, isMe }) => [name, isMe]), [["Ada", true], ["Ben", false]]);
  assert.equal(room.participants.get(BEN).camera.id, 7);
  assert.equal(room.total, 2);
});

test("a device that does not open does not stop the join", async () => {
  env.deviceFailure = Object.assign(new Error("x"), { reason: "permission_denied", hint: "?" });
  await join({ camera: true });
  await clock.pass(50);
  assert.deepEqual([room.camera.state, room.camera.error.reason], ["off", "permission_denied"]);
  assert.deepEqual(events.filter(([type]) => type === "error").map(([, { error }]) => error.reason), ["permission_denied"]);
});

test("deltas are applied in order and those of the snapshot not again", async () => {
  await join();
  say({ t: "room", rev: 5, left: [{ id: BEN, reason: "bye" }], total: 1 });
  assert.ok(room.participants.has(BEN), "rev 5 was in the snapshot");
  say({
    t: "room", rev: 6, total: 3, joined: [{ id: "c", name: "Cleo" }],
    published: [{ id: 9, participant: "c", kind: "audio", source: "microphone", muted: true }],
  });
  assert.equal(room.participants.get("c").microphone.muted, true);
  say({ t: "room", rev: 7, total: 3, published: [{ id: 9, participant: "c", kind: "audio", source: "microphone", muted: false }] });
  assert.equal(room.participants.get("c").microphone.muted, false);
  say({ t: "room", rev: 8, total: 3, changed: [{ id: "c", name: "Cleo", away: true }] });
  assert.equal(room.participants.get("c").away, true);
  say({ t: "room", rev: 9, total: 3, unpublished: [9] });
  assert.equal(room.participants.get("c").microphone, null);
  events.length = 0;
  say({ t: "room", rev: 10, total: 1, left: [{ id: BEN, reason: "silent" }] });
  assert.deepEqual(names(), ["publicationremoved", "participantleft"]);
  assert.equal(events[1][1].reason, "silent");
  assert.equal(room.total, 1);
});

test("a participant who comes back in one delta is a new one", async () => {
  await join();
  const before = room.participants.get(BEN);
  say({ t: "room", rev: 6, total: 2, left: [{ id: BEN, reason: "replaced" }], joined: [{ id: BEN, name: "Ben" }] });
  assert.notEqual(room.participants.get(BEN), before);
});

test("a snapshot replaces everything that it does not name", async () => {
  await join();
  say({
    t: "snapshot", room: { rev: 40, total: 2 }, participants: [{ id: ME, name: "Ada" }, { id: "d", name: "Dan" }],
    publications: [],
  });
  assert.deepEqual([...room.participants.keys()].sort(), [ME, "d"].sort());
  say({ t: "room", rev: 40, total: 9, left: [{ id: "d", reason: "bye" }] });
  assert.ok(room.participants.has("d"));
});

test("what a slot carries is shown by the publication that it belongs to, and a voice is played", async () => {
  await join();
  const video = new FakeVideo();
  const { camera } = room.participants.get(BEN);
  camera.attach(video);
  say({ t: "have", n: 1, slots: [{ slot: "12", publication: 7, pending: true }] });
  assert.equal(video.srcObject, null);
  say({ t: "have", n: 1, slots: [{ slot: "12", publication: 7, fromTs: 90_000, layer: 2 }, { slot: "4", publication: 8 }] });
  assert.equal(camera.track, env.peers[0].transceivers[12].receiver.track);
  video.present(90_000);
  assert.ok(camera.visible);
  assert.equal(env.audio.length, 1);
  assert.equal(env.audio[0].srcObject.tracks[0], env.peers[0].transceivers[4].receiver.track);
});

test("a slot may be told before the publication that it carries", async () => {
  await join();
  say({ t: "have", n: 1, slots: [{ slot: "13", publication: 50 }] });
  say({ t: "room", rev: 6, total: 2, published: [{ id: 50, participant: BEN, kind: "video", source: "screen", muted: false }] });
  assert.equal(room.participants.get(BEN).screen.track, env.peers[0].transceivers[13].receiver.track);
});

test("a camera turned on later is published on its section, without an offer", async () => {
  const socket = await join();
  await room.setCamera(true);
  assert.deepEqual(socket.last("publish").publish, [{ mid: "1", kind: "video", source: "camera", muted: false }]);
  await room.setCamera(false);
  assert.equal(socket.count("mute"), 0, "the server has not named it yet");
  say({ t: "room", rev: 6, total: 2, published: [{ id: 20, participant: ME, kind: "video", source: "camera", muted: false, mid: "1" }] });
  assert.deepEqual([socket.last("mute").publication, socket.last("mute").muted], [20, true]);
  assert.equal(room.me.camera.muted, true, "the button is ahead of the echo");
  await room.setCamera(true);
  assert.equal(socket.last("mute").muted, false);
  assert.equal(room.me.camera.track, room.camera.track);
  assert.equal(socket.count("publish"), 1);
  assert.equal(socket.count("offer"), 0);
});

test("a publish that was refused is asked for again by the next click", async () => {
  const socket = await join();
  await room.setCamera(true);
  say({ t: "error", id: socket.last("publish").s, reason: "too_many_publications", hint: "" });
  await room.setCamera(false);
  await room.setCamera(true);
  assert.deepEqual([socket.count("publish"), socket.count("mute")], [2, 0]);
});

test("a second mishap while the first is being mended is mended, too", async () => {
  await join();
  env.net.last.end(4003);
  while (env.net.opened.length < 2) await clock.pass(50);
  const socket = env.net.last;
  socket.open();
  // The answer and the end of the session arrive together: the join anew is not over yet.
  socket.say(welcome({ session: "second0000000000" }));
  socket.end(4003);
  while (env.net.opened.length < 3) await clock.pass(50);
  env.net.last.open();
  assert.equal(env.net.last.sent[0].session, "second0000000000");
  env.net.last.say(welcome());
  await settle();
  assert.equal(room.state, "connected");
  env.net.last.end(4003);
  await clock.pass(500);
  assert.equal(env.net.opened.length, 4, "and a third one later");
});

test("repeating a wish tells the server nothing", async () => {
  const socket = await join({ microphone: true }, {
    publications: [{ id: 3, participant: ME, kind: "audio", source: "microphone", muted: false, mid: "0" }],
  });
  await room.setMicrophone(false);
  await room.setMicrophone(false);
  assert.equal(socket.count("mute"), 1);
});

test("a lost carrier is resumed without touching the media", async () => {
  await join({ camera: true });
  env.net.last.end();
  assert.equal(room.state, "reconnecting");
  await clock.pass(150);
  env.net.last.open();
  env.net.last.say({ t: "resumed", resume: "next", a: 1 });
  assert.equal(room.state, "connected");
  assert.deepEqual(names().slice(-2), ["reconnecting", "reconnected"]);
  assert.equal(env.peers.length, 1);
  assert.ok(!env.peers[0].closed);
});

test("a session that cannot be resumed is joined anew, as the same participant and with the same tracks", async () => {
  await join({ camera: true, microphone: true });
  const [ben, track] = [room.participants.get(BEN), room.camera.track];
  await room.setMicrophone(false);
  env.net.last.end();
  await clock.pass(150);
  env.net.last.open();
  env.net.last.say({ t: "refuse", reason: "unknown_session", hint: "" });
  await clock.pass(300);
  const socket = env.net.last;
  socket.open();
  const hello = socket.sent[0];
  assert.deepEqual([hello.t, hello.s, hello.session, hello.token], ["hello", 1, "5e5510n000000000", "token"]);
  assert.deepEqual(hello.publish.map(({ source, muted }) => [source, muted]), [["microphone", true], ["camera", false]]);
  assert.ok(env.peers[0].closed);
  assert.equal(env.peers[1].sender(1).track, track);
  socket.say(welcome({ you: "00000000000000cc", participants: [{ id: "00000000000000cc", name: "Ada" }, { id: BEN, name: "Ben" }] }));
  await settle();
  assert.equal(room.state, "connected");
  assert.equal(room.participants.get(BEN), ben, "nobody was seen to leave");
  assert.equal(room.participants.get("00000000000000cc"), room.me);
  assert.ok(!room.participants.has(ME));
});

test("joining anew is tried until it is refused for good", async () => {
  await join();
  env.net.last.end(4003);
  for (let i = 2; i < 6; i += 1) {
    while (env.net.opened.length < i) await clock.pass(50);
    env.net.last.end();
    await settle();
    assert.equal(room.state, "reconnecting");
  }
  while (env.net.opened.length < 6) await clock.pass(50);
  env.net.last.open();
  env.net.last.say({ t: "refuse", reason: "room_full", hint: "Full." });
  await settle();
  assert.equal(room.state, "closed");
  assert.equal(events.at(-1)[1].error.reason, "room_full");
});

test("a call taken over by another window ends and does not fight back", async () => {
  await join();
  env.net.last.end(4000);
  await clock.pass(5000);
  assert.deepEqual([room.state, events.at(-1)[1].error.reason, env.net.opened.length], ["closed", "replaced", 1]);
});

test("two seconds without a packet restart ICE by one offer", async () => {
  const socket = await join();
  const [peer] = env.peers;
  peer.packets = 1;
  peer.become("connected");
  for (let i = 0; i < 6; i += 1) {
    peer.packets += 1;
    await clock.pass(1000);
  }
  assert.equal(socket.count("offer"), 0);
  await clock.pass(2000);
  assert.deepEqual([socket.count("offer"), peer.restarts, room.state], [1, 1, "reconnecting"], "however young the path was");
  assert.equal(socket.last("offer").transport, 0);
  await clock.pass(1000);
  assert.equal(socket.count("offer"), 1, "one in flight");
  say({ t: "answer", transport: 0, sdp: "answer 2" });
  await clock.pass(1000);
  assert.equal(socket.count("offer"), 1, "the new path gets its time");
  peer.packets += 1;
  await clock.pass(1000);
  assert.equal(room.state, "connected");
  assert.deepEqual(peer.remote, ["answer", "answer 2"]);
});

test("the network coming back takes a new carrier and a new path", async () => {
  const socket = await join();
  env.window.dispatchEvent(new Event("online"));
  await clock.pass(150);
  assert.equal(env.net.opened.length, 2);
  env.net.last.open();
  env.net.last.say({ t: "resumed", resume: "x", a: 1 });
  assert.equal(env.net.last.count("offer"), 1);
  assert.equal(socket.count("offer"), 0);
});

test("an offer that came too often is made again when the server says so", async () => {
  const socket = await join();
  env.window.dispatchEvent(new Event("online"));
  await clock.pass(150);
  env.net.last.open();
  env.net.last.say({ t: "resumed", resume: "x", a: 1 });
  const { s } = env.net.last.last("offer");
  say({ t: "error", id: s, reason: "rate_limited", hint: "", retryMs: 500 });
  await settle();
  assert.equal(env.peers[0].signalingState, "stable");
  await clock.pass(550);
  assert.equal(env.net.last.count("offer"), 2);
  assert.equal(socket.count("offer"), 0);
});

test("restart makes a new connection in the same session, with everything that is published", async () => {
  const socket = await join({ camera: true }, {
    publications: [{ id: 3, participant: ME, kind: "video", source: "camera", muted: false, mid: "1" }],
  });
  say({ t: "restart", reason: "dtls_failed" });
  await settle();
  assert.ok(env.peers[0].closed);
  const offer = socket.last("offer");
  assert.deepEqual([offer.transport, offer.publish], [1, [{ mid: "1", kind: "video", source: "camera", muted: false }]]);
  say({ t: "answer", transport: 0, sdp: "late" });
  say({ t: "answer", transport: 1, sdp: "answer of 1" });
  await settle();
  assert.deepEqual(env.peers[1].remote, ["answer of 1"]);
  await room.setCamera(false);
  assert.equal(socket.last("mute").publication, 3, "the publication kept its id");
  assert.equal(env.peers[1].sender(1).active, false);
});

test("an answer that the browser refuses ends the call", async () => {
  await join();
  say({ t: "restart", reason: "dtls_failed" });
  await settle();
  say({ t: "answer", transport: 1, sdp: "bad" });
  await settle();
  assert.deepEqual([room.state, events.at(-1)[1].error.reason], ["closed", "protocol"]);
});

test("blocked playback is told once and ends with a click", async () => {
  await join();
  let blocked = true;
  env.createAudio = () => Object.assign(new FakeVideo(), {
    async play() {
      if (blocked) throw Object.assign(new Error(""), { name: "NotAllowedError" });
    },
  });
  room.leave();
  await join();
  say({ t: "have", n: 1, slots: [{ slot: "4", publication: 8 }, { slot: "5", publication: 9 }] });
  await settle();
  assert.equal(names().filter((name) => name === "playbackblocked").length, 1);
  await assert.rejects(room.resumePlayback());
  blocked = false;
  await room.resumePlayback();
});

test("leaving closes everything that was opened", async () => {
  const socket = await join({ camera: true, microphone: true });
  const tracks = [room.camera.track, room.microphone.track];
  room.leave();
  assert.equal(socket.sent.at(-1).t, "bye");
  assert.ok(env.peers[0].closed);
  assert.deepEqual(tracks.map(({ readyState }) => readyState), ["ended", "ended"]);
  assert.deepEqual([names().at(-1), events.at(-1)[1].error], ["closed", null]);
  await assert.rejects(room.setCamera(true), { reason: "closed" });
});

test("a page that goes away says so", async () => {
  const socket = await join();
  env.window.dispatchEvent(new Event("pagehide"));
  assert.equal(socket.sent.at(-1).t, "bye");
});

test("an aborted join rejects with the signal's reason and leaves nothing behind", async () => {
  const controller = new AbortController();
  const made = new Room("https://calls.example/", { room: "r" }, env);
  const joined = made.join({ room: "r", camera: true, signal: controller.signal });
  await settle();
  controller.abort(new Error("changed my mind"));
  await assert.rejects(joined, /changed my mind/);
  assert.deepEqual([made.state, env.opened[0].readyState, env.peers[0].closed], ["closed", "ended", true]);
});

test("aborting later leaves the room", async () => {
  const controller = new AbortController();
  await join({ signal: controller.signal });
  controller.abort();
  assert.equal(room.state, "closed");
});

test("a refused join rejects and gives the devices back", async () => {
  const made = new Room("https://calls.example/sub/page.html", { room: "r" }, env);
  const joined = made.join({ room: "r", camera: true });
  await settle();
  env.net.last.open();
  env.net.last.say({ t: "refuse", reason: "room_id", hint: "Bad room." });
  await assert.rejects(joined, { reason: "room_id", hint: "Bad room." });
  assert.equal(env.opened[0].readyState, "ended");
});

test("messages of kinds that are not known yet do no harm", async () => {
  await join();
  say({ t: "weather", x: 1 });
  say({ t: "error", reason: "unknown_publication", hint: "Gone." });
  assert.equal(room.state, "connected");
  assert.equal(events.at(-1)[1].error.hint, "Gone.");
});
