import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { Carriers } from "../carriers.js";
import { Poll } from "../poll.js";
import { Signal } from "../signal.js";
import { settle, sockets, useClock } from "./fakes.js";

let clock, requests, heard;

beforeEach(() => {
  clock = useClock();
  requests = [];
  heard = { opened: 0, messages: [], closed: [] };
});

afterEach(() => clock.stop());

/** A server that answers when the test says so. */
function request(url, { body, signal, keepalive }) {
  return new Promise((resolve, reject) => {
    const made = {
      url, keepalive, signal, wait: Number(new URL(url).searchParams.get("timeoutms")),
      lines: body.split("\n").map((line) => JSON.parse(line)),
      answered: false,
      async answer(lines = [], status = 200) {
        made.answered = true;
        resolve({ ok: status === 200, status, text: async () => lines.map((line) => `${JSON.stringify(line)}\n`).join("") });
        await settle();
      },
      async fail() {
        made.answered = true;
        reject(new TypeError("Failed to fetch"));
        await settle();
      },
    };
    signal.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    requests.push(made);
  });
}

const open = () => requests.filter(({ answered, signal }) => !answered && !signal.aborted);
const waiting = () => open().find(({ lines, wait }) => wait > 0 && lines.length === 1 && lines[0].t === "poll");

function listen(carrier) {
  carrier.onopen = () => { heard.opened += 1; };
  carrier.onmessage = ({ data }) => heard.messages.push(JSON.parse(data));
  carrier.onclose = ({ code }) => heard.closed.push(code);
  return carrier;
}

/** A carrier of requests that the server knows. */
async function polling(beacon) {
  const poll = listen(new Poll("https://calls.example/v1/poll", request, beacon));
  await settle();
  poll.send('{"t":"hello"}');
  await requests[0].answer([{ t: "carrier", id: "secret" }, { t: "welcome", s: 1 }]);
  return poll;
}

const kinds = () => heard.messages.map(({ t, s }) => (s === undefined ? t : `${t} ${s}`));

test("the first request carries nothing but hello and waits for its answer", async () => {
  await polling();
  assert.equal(heard.opened, 1);
  assert.deepEqual([requests[0].url, requests[0].lines], ["https://calls.example/v1/poll?timeoutms=4000", [{ t: "hello" }]]);
  assert.deepEqual(kinds(), ["welcome 1"]);
  assert.deepEqual([open().length, waiting().lines], [1, [{ t: "poll", id: "secret" }]]);
});

test("a request waits at all times, and what it brings is heard", async () => {
  await polling();
  await waiting().answer([{ t: "room", s: 2 }]);
  await waiting().answer();
  await waiting().answer([{ t: "have", s: 3 }, { t: "have", s: 4 }]);
  assert.deepEqual(kinds(), ["welcome 1", "room 2", "have 3", "have 4"]);
  assert.equal(open().length, 1);
});

test("messages go up one request at a time, in order, beside the one that waits", async () => {
  const poll = await polling();
  poll.send('{"t":"a"}');
  poll.send('{"t":"b"}');
  poll.send('{"t":"c"}');
  assert.equal(open().length, 2);
  const first = requests.at(-1);
  assert.deepEqual([first.wait, first.lines], [0, [{ t: "poll", id: "secret" }, { t: "a" }]]);
  await first.answer();
  assert.deepEqual(requests.at(-1).lines.slice(1), [{ t: "b" }, { t: "c" }]);
  await requests.at(-1).answer();
  assert.equal(open().length, 1);
});

test("a carrier that the server closes says so with its code", async () => {
  await polling();
  await waiting().answer([{ t: "room", s: 2 }, { t: "closed", code: 4000 }]);
  assert.deepEqual([kinds(), heard.closed, open().length], [["welcome 1", "room 2"], [4000], 0]);
});

test("a request that fails, or is not answered in time, is the carrier's end", async () => {
  await polling();
  await waiting().fail();
  assert.deepEqual(heard.closed, [1006]);
  assert.equal(open().length, 0);

  await polling();
  const before = requests.length;
  await clock.pass(8100);
  assert.deepEqual([heard.closed, requests.length, open().length], [[1006, 1006], before, 0]);
});

test("a carrier that the server forgot is lost, not its session", async () => {
  await polling();
  await waiting().answer([{ t: "refuse", reason: "unknown_session" }], 404);
  assert.deepEqual([kinds(), heard.closed], [["welcome 1"], [1006]]);
});

test("a refusal of the first request is heard", async () => {
  const poll = listen(new Poll("https://calls.example/v1/poll", request));
  await settle();
  poll.send('{"t":"hello"}');
  await requests[0].answer([{ t: "refuse", reason: "room_full" }], 404);
  assert.deepEqual([kinds(), heard.closed], [["refuse"], [1006]]);
});

test("a message that is too large is told apart, because it would end every carrier", async () => {
  const poll = await polling();
  poll.send('{"t":"huge"}');
  await requests.at(-1).answer([{ t: "refuse", reason: "message_too_large" }], 413);
  assert.deepEqual([kinds(), heard.closed], [["welcome 1"], [1009]]);
});

test("the last words are said although the page goes away; a carrier that is given up says none", async () => {
  const beacons = [];
  const poll = await polling((url, body) => {
    beacons.push([url, ...body.split("\n").map((line) => JSON.parse(line).t)]);
    return true;
  });
  poll.send('{"t":"a"}');
  poll.send('{"t":"bye"}');
  poll.close(1000);
  assert.deepEqual(beacons, [["https://calls.example/v1/poll?timeoutms=0", "poll", "a", "bye"]], "also what was on its way");
  assert.equal(open().length, 1, "nothing waits");
  requests.length = 0;
  const other = await polling();
  other.send('{"t":"a"}');
  other.close(4000);
  assert.deepEqual([open().length, heard.closed], [0, []]);
});

test("without a beacon, the last words are a request that outlives the page", async () => {
  const poll = await polling();
  poll.send('{"t":"a"}');
  poll.send('{"t":"bye"}');
  poll.close(1000);
  const last = open().at(-1);
  assert.deepEqual([last.lines.map(({ t }) => t), last.keepalive], [["poll", "a", "bye"], true]);
});

test("a carrier that was cut the moment before still brings a goodbye", async () => {
  const beacons = [];
  const poll = await polling((url, body) => beacons.push(body.split("\n").map((line) => JSON.parse(line).t)) > 0);
  await waiting().fail();
  assert.deepEqual(heard.closed, [1006]);
  poll.farewell('{"t":"bye"}');
  assert.deepEqual(beacons, [["poll", "bye"]]);
});

function choose(more = {}) {
  const net = sockets();
  const carriers = new Carriers("https://calls.example/x/page.html", { openSocket: (url) => Object.assign(net.connect(), { url }), request, ...more });
  return { net, carriers };
}

test("a WebSocket that opens is the carrier, below the server's address", async () => {
  const { net, carriers } = choose();
  listen(carriers.open());
  net.last.open();
  net.last.say({ t: "welcome", s: 1 });
  net.last.end(4003);
  await clock.pass(5000);
  assert.equal(net.last.url, "wss://calls.example/x/v1/ws");
  assert.deepEqual([heard.opened, kinds(), heard.closed, net.opened.length, requests.length], [1, ["welcome 1"], [4003], 1, 0]);
});

test("WebSockets that close before they open, twice, are replaced by requests, also the next time", async () => {
  const { net, carriers } = choose();
  const carrier = listen(carriers.open());
  net.last.end();
  net.last.end();
  await settle();
  assert.deepEqual([heard.opened, heard.closed, net.opened.length, carrier.proves], [1, [], 2, true]);
  carrier.send('{"t":"hello"}');
  assert.equal(requests[0].url, "https://calls.example/x/v1/poll?timeoutms=4000");
  await requests[0].answer([{ t: "carrier", id: "secret" }, { t: "welcome", s: 1 }]);
  assert.deepEqual(kinds(), ["welcome 1"]);
  carrier.close(4000);
  listen(carriers.open());
  await settle();
  assert.deepEqual([net.opened.length, heard.opened], [2, 2]);
});

test("so are those that are forbidden, and those that do not open within three seconds", async () => {
  const { carriers } = choose({ openSocket() { throw new Error("SecurityError"); } });
  listen(carriers.open());
  await settle();
  assert.equal(heard.opened, 1);

  const slow = choose();
  listen(slow.carriers.open());
  await clock.pass(2900);
  assert.equal(heard.opened, 1);
  await clock.pass(200);
  assert.equal(heard.opened, 2);
  slow.net.last.open();
  assert.equal(heard.opened, 2, "too late");
});

test("where requests are not answered either, WebSockets are tried again", async () => {
  const { net, carriers } = choose();
  const carrier = listen(carriers.open());
  net.last.end();
  net.last.end();
  await settle();
  carrier.send('{"t":"resume"}');
  await requests[0].fail();
  assert.deepEqual(heard.closed, [1006]);
  carriers.open();
  assert.equal(net.opened.length, 3);
});

test("a session lives on requests alone: no pings, and a lost one is resumed", async () => {
  const { carriers } = choose({ openSocket() { throw new Error("SecurityError"); } });
  const events = [];
  const signal = new Signal(() => carriers.open(), {
    message: ({ t }) => events.push(t), down: (reason) => events.push(reason), resumed: () => events.push("resumed"), lost: ({ reason }) => events.push(reason),
  });
  const joined = signal.join(Promise.resolve({ room: "r", offer: "o" }));
  await settle();
  await requests[0].answer([{ t: "carrier", id: "one" }, { t: "welcome", s: 1, a: 1, session: "5", resume: "token" }]);
  await joined;
  for (let i = 0; i < 4; i += 1) {
    await clock.pass(3900);
    for (const up of open().filter(({ wait }) => wait === 0)) await up.answer();
    await waiting().answer();
  }
  assert.ok(requests.every(({ lines }) => lines.every(({ t }) => t !== "ping")));
  signal.send({ t: "name", name: "Ada" });
  await requests.at(-1).fail();
  await clock.pass(200);
  assert.deepEqual(requests.at(-1).lines.map(({ t, session }) => [t, session]), [["resume", "5"]]);
  await requests.at(-1).answer([{ t: "carrier", id: "two" }, { t: "resumed", resume: "next", a: 1 }]);
  assert.deepEqual(events, ["unreachable", "resumed"]);
  const up = requests.filter(({ lines }) => lines[0].id === "two" && lines.length > 1).flatMap(({ lines }) => lines.slice(1));
  assert.deepEqual(up.map(({ t }) => t)[0], "name");
  signal.leave();
});
