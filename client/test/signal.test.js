import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { MotetError } from "../errors.js";
import { Signal } from "../signal.js";
import { settle, sockets, useClock } from "./fakes.js";

const CONTENT = { room: "r", offer: "o", publish: [] };
const HELLO = Promise.resolve(CONTENT);
const WELCOME = { t: "welcome", s: 1, a: 1, session: "0123456789abcdef", resume: "token 1" };

let clock, net, heard, signal;

beforeEach(() => {
  clock = useClock();
  net = sockets();
  heard = { messages: [], downs: [], resumed: 0, lost: [] };
  signal = new Signal(net.connect, {
    message: (message) => heard.messages.push(message),
    down: (reason) => heard.downs.push(reason),
    resumed: () => { heard.resumed += 1; },
    lost: (error) => heard.lost.push(error.reason),
  });
});

afterEach(() => {
  signal.leave();
  clock.stop();
});

async function joined() {
  const welcome = signal.join(HELLO);
  await settle();
  net.last.open();
  net.last.say(WELCOME);
  await welcome;
  return net.last;
}

/** Breaks the carrier and answers the `resume` on the next. */
async function resumed(a, more = {}) {
  net.last.end();
  await clock.pass(200);
  const socket = net.last;
  socket.open();
  socket.say({ t: "resumed", resume: "token 2", a, ...more });
  return socket;
}

test("hello is the first message and carries number 1", async () => {
  const socket = await joined();
  assert.deepEqual(socket.sent[0], { t: "hello", ...CONTENT, s: 1, a: 0 });
  assert.deepEqual(signal.identity, { session: WELCOME.session, token: "token 1" });
});

test("the carrier opens while hello is in the making, and waits for it", async () => {
  let made;
  const welcome = signal.join(new Promise((resolve) => { made = resolve; }));
  net.last.open();
  await settle();
  assert.deepEqual(net.last.sent, []);
  made(CONTENT);
  await settle();
  assert.deepEqual(net.last.sent, [{ t: "hello", ...CONTENT, s: 1, a: 0 }]);
  net.last.say(WELCOME);
  await welcome;
});

test("what goes wrong while hello is made is the reason", async () => {
  const failed = signal.join(Promise.reject(new MotetError("unsupported_browser")));
  net.last.open();
  await assert.rejects(failed, { reason: "unsupported_browser" });
  assert.deepEqual(net.last.sent, []);
});

test("a refusal rejects with the server's reason and hint", async () => {
  const welcome = signal.join(HELLO);
  await settle();
  net.last.open();
  net.last.say({ t: "refuse", reason: "room_full", hint: "Full.", retryMs: 30 });
  await assert.rejects(welcome, { name: "MotetError", reason: "room_full", hint: "Full.", retryMs: 30 });
});

test("a server that does not answer is unreachable or too slow", async () => {
  const refused = signal.join(HELLO);
  net.last.end();
  await assert.rejects(refused, { reason: "unreachable" });

  signal = new Signal(net.connect, { message() {}, down() {}, resumed() {}, lost() {} });
  const slow = assert.rejects(signal.join(HELLO), { reason: "timeout" });
  net.last.open();
  await clock.pass(8000);
  await slow;
});

test("messages are numbered and acknowledge what was seen", async () => {
  const socket = await joined();
  socket.say({ t: "room", s: 4, a: 1, rev: 2, total: 1 });
  assert.equal(signal.send({ t: "name", name: "Ada" }), 2);
  assert.deepEqual(socket.last("name"), { t: "name", name: "Ada", s: 2, a: 4 });
});

test("what was not acknowledged is sent again in order, with the same numbers", async () => {
  await joined();
  signal.send({ t: "mute", publication: 1, muted: true });
  signal.send({ t: "mute", publication: 1, muted: false });
  signal.send({ t: "name", name: "B" });
  const socket = await resumed(2);
  assert.deepEqual(socket.sent.map(({ t, s }) => [t, s]), [
    ["resume", undefined], ["mute", 3], ["name", 4], ["ack", undefined],
  ]);
  assert.deepEqual(socket.sent[0], { t: "resume", session: WELCOME.session, token: "token 1", a: 1 });
  assert.equal(signal.identity.token, "token 2");
  assert.equal(heard.resumed, 1);
});

test("messages of the time without a carrier wait for the next", async () => {
  await joined();
  net.last.end();
  signal.send({ t: "name", name: "C" });
  await clock.pass(200);
  net.last.open();
  assert.equal(net.last.count("name"), 0);
  net.last.say({ t: "resumed", resume: "x", a: 1 });
  assert.equal(net.last.count("name"), 1);
});

test("of a state only the newest is sent again", async () => {
  await joined();
  for (const n of [1, 2, 3]) signal.send({ t: "want", n });
  const socket = await resumed(1);
  assert.deepEqual(socket.sent.filter(({ t }) => t === "want").map(({ n, s }) => [n, s]), [[3, 4]]);
});

test("what the server sends again is delivered once", async () => {
  const socket = await joined();
  socket.say({ t: "answer", s: 2, a: 1, sdp: "x" });
  socket.say({ t: "have", s: 5, a: 1, slots: [] });
  socket.say({ t: "have", s: 5, a: 1, slots: [] });
  const next = await resumed(1);
  next.say({ t: "answer", s: 2, a: 1, sdp: "x" });
  next.say({ t: "have", s: 5, a: 1, slots: [] });
  next.say({ t: "room", s: 6, a: 1, rev: 2 });
  assert.deepEqual(heard.messages.map(({ s }) => s), [2, 5, 6]);
});

test("an acknowledgement is sent alone after 32 messages or 2 s", async () => {
  const socket = await joined();
  for (let s = 2; s <= 33; s += 1) socket.say({ t: "room", s, a: 1, rev: s });
  assert.equal(socket.count("ack"), 1);
  assert.equal(socket.last("ack").a, 32, "welcome was the first of the 32");
  await clock.pass(2000);
  assert.equal(socket.last("ack").a, 33);
  await clock.pass(2500);
  assert.equal(socket.count("ack"), 2);
});

test("a ping without an answer takes a new carrier, and the old one is heard no more", async () => {
  const socket = await joined();
  await clock.pass(5000);
  assert.equal(socket.count("ping"), 1);
  socket.say({ t: "pong", a: 1 });
  await clock.pass(5000);
  assert.equal(socket.count("ping"), 2);
  await clock.pass(4000);
  assert.deepEqual(heard.downs, ["silent"]);
  assert.equal(socket.closed, 4000, "not a code that means leaving");
  assert.equal(socket.onmessage, null);
  await clock.pass(200);
  assert.equal(net.opened.length, 2);
});

test("attempts are spaced, and given up after 30 s", async () => {
  await joined();
  net.last.end();
  for (let i = 0; i < 700 && heard.lost.length === 0; i += 1) {
    await clock.pass(50);
    net.last.end();
  }
  assert.deepEqual(heard.lost, ["unreachable"]);
  assert.ok(net.opened.length > 10 && net.opened.length < 40, `${net.opened.length} attempts`);
  assert.equal(heard.downs.length, 1, "told once");
});

test("a session that the server forgot is lost at once", async () => {
  await joined();
  net.last.end();
  await clock.pass(200);
  net.last.open();
  net.last.say({ t: "refuse", reason: "unknown_session", hint: "" });
  assert.deepEqual(heard.lost, ["unknown_session"]);
});

test("the close codes of the server mean what they mean", async () => {
  await joined();
  net.last.end(4000);
  assert.deepEqual(heard.lost, ["replaced"]);
});

test("a session that the server ended is lost", async () => {
  await joined();
  net.last.end(4003);
  assert.deepEqual(heard.lost, ["unknown_session"]);
});

test("a frame that is too large is not sent for ever", async () => {
  await joined();
  signal.send({ t: "name", name: "x".repeat(100) });
  signal.send({ t: "mute", publication: 1, muted: true });
  net.last.end(1009);
  await clock.pass(200);
  net.last.open();
  net.last.say({ t: "resumed", resume: "x", a: 1 });
  assert.deepEqual([net.last.count("name"), net.last.count("mute")], [0, 1]);
});

test("a stopping server is left alone for as long as it asks", async () => {
  const socket = await joined();
  socket.say({ t: "goaway", s: 2, a: 1, inMs: 5000, reason: "shutting_down" });
  socket.end(1001);
  await clock.pass(4900);
  assert.equal(net.opened.length, 1);
  await clock.pass(2200);
  assert.equal(net.opened.length, 2);
});

test("a network change takes a new carrier without waiting for silence", async () => {
  await joined();
  signal.renew();
  await clock.pass(100);
  assert.equal(net.opened.length, 2);
});

test("leaving says bye and closes with the code that means it", async () => {
  const socket = await joined();
  signal.leave();
  assert.equal(socket.sent.at(-1).t, "bye");
  assert.equal(socket.closed, 1000);
  await clock.pass(10_000);
  assert.equal(net.opened.length, 1);
});

test("leaving while the carrier is lost says so by the former one, where that can still be done", async () => {
  const socket = await joined();
  const words = [];
  socket.farewell = (text) => words.push(JSON.parse(text));
  signal.send({ t: "name", name: "Ada" });
  socket.end();
  signal.leave();
  assert.deepEqual(words, [{ t: "bye", s: 3, a: 1 }]);
});

test("leaving during the join rejects it", async () => {
  const welcome = signal.join(HELLO);
  signal.leave();
  await assert.rejects(welcome, { reason: "closed" });
});

test("what is not a message is ignored", async () => {
  const socket = await joined();
  const warn = console.warn;
  console.warn = () => {};
  for (const data of ["", "null", "[]", "{}", "{\"t\":3}", "x"]) socket.onmessage({ data });
  console.warn = warn;
  await settle();
  assert.deepEqual(heard.messages, []);
});

test("any loss pattern delivers each event exactly once and in order", async () => {
  // A server that loses carriers at seeded moments and answers as the protocol says.
  let seed = 1;
  const random = () => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed / 2147483648;
  };
  await joined();
  const received = [];
  let seen = 1;
  let read = net.last.sent.length;
  const serve = () => {
    for (const message of net.last.sent.slice(read)) {
      if (message.s === undefined || message.s <= seen) continue;
      seen = message.s;
      received.push(message.name);
    }
    read = net.last.sent.length;
  };
  for (let i = 0; i < 200; i += 1) {
    signal.send({ t: "name", name: i });
    if (random() < 0.3) serve();
    if (random() < 0.3) net.last.say({ t: "ack", a: seen });
    if (random() < 0.2) {
      net.last.end();
      await clock.pass(150);
      net.last.open();
      read = 0;
      if (random() < 0.2) continue; // lost again before it was answered
      net.last.say({ t: "resumed", resume: `t${i}`, a: seen });
    }
  }
  net.last.end();
  await clock.pass(3500);
  net.last.open();
  read = 0;
  net.last.say({ t: "resumed", resume: "end", a: seen });
  serve();
  assert.deepEqual(received, Array.from({ length: 200 }, (_, i) => i));
});
