import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { Chat } from "../chat.js";
import { settle } from "./fakes.js";

const ME = "00000000000000aa";
const BEN = "00000000000000bb";

let chat, sent, heard, mentioned, inside, me, last;

beforeEach(() => {
  sent = [];
  heard = [];
  mentioned = [];
  inside = true;
  me = ME;
  last = 0;
  chat = new Chat({
    send(message) {
      if (!inside) return undefined;
      sent.push(message);
      return sent.length;
    },
    mention: (message) => mentioned.push(message),
    me: () => me,
    said: ({ text, mine }) => heard.push(mine ? `${text} (mine)` : text),
  });
});

const said = (text, more = {}) => ({ id: ++last, from: BEN, name: "Ben", at: 1_795_000_000_000, text, ...more });

test("a message is said when the room has heard it", async () => {
  const promise = chat.send("hello", { to: { id: BEN } });
  assert.deepEqual(sent.map(({ t, text, to }) => [t, text, to]), [["chat", "hello", BEN]]);
  chat.received(said("other"));
  chat.received(said("hello", { from: ME, name: "Ada", to: BEN, key: sent[0].key }));
  const message = await promise;
  assert.deepEqual([message.id, message.to, message.mine, message.at.getTime()], [2, BEN, true, 1_795_000_000_000]);
  assert.deepEqual(heard, ["other", "hello (mine)"]);
  assert.equal(chat.messages.length, 2);
});

test("what the server refuses is refused to whoever said it, and to nobody else", async () => {
  const [first, second] = [chat.send("one"), chat.send("two")];
  assert.equal(chat.refused({ id: 99, reason: "x", hint: "" }), false);
  assert.equal(chat.refused({ id: 2, reason: "rate_limited", hint: "Slowly.", retryMs: 100 }), true);
  await assert.rejects(second, { reason: "rate_limited", hint: "Slowly.", retryMs: 100 });
  chat.received(said("one", { from: ME, key: sent[0].key }));
  assert.equal((await first).text, "one");
});

test("in another session, what did not arrive is said again under its key, and what did is not", async () => {
  const [arrived, lost] = [chat.send("one"), chat.send("two")];
  inside = false;
  const waits = chat.send("three");
  assert.equal(sent.length, 2);
  inside = true;
  me = "00000000000000cc";
  chat.entered([said("zero"), said("one", { from: ME, key: sent[0].key })]);
  assert.equal((await arrived).mine, true, "though one is somebody else now");
  assert.deepEqual(sent.slice(2).map(({ text, key }) => [text, key === sent[1].key]), [["two", true], ["three", false]]);
  chat.received(said("two", { from: me, key: sent[1].key }));
  chat.received(said("three", { from: me, key: sent[3].key }));
  await Promise.all([lost, waits]);
  // Told again by the next welcome.
  chat.entered([{ ...said("x"), id: 1, text: "zero" }, { ...said("y"), id: 4, text: "three" }]);
  assert.deepEqual(heard, ["zero", "one (mine)", "two (mine)", "three (mine)"]);
});

test("a room that was made anew numbers anew", () => {
  chat.entered([said("old"), said("older")]);
  last = 0;
  chat.entered([said("new")]);
  assert.deepEqual(heard, ["old", "older", "new"]);
  chat.received({ ...said("sealed"), text: undefined, sealed: "eHk=" });
  assert.equal(chat.messages.length, 3, "what cannot be read is not shown");
});

test("writing is mentioned every three seconds, and leaving ends what waits", async () => {
  for (let n = 0; n < 5; n += 1) chat.typing();
  assert.deepEqual(mentioned, [{ t: "typing", to: undefined }]);
  const waits = chat.send("x");
  chat.close();
  await assert.rejects(waits, { reason: "closed" });
  await assert.rejects(chat.send("y"), { reason: "closed" });
  await settle();
});
