import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { rendezvous } from "../rendezvous.js";
import { settle, useClock } from "./fakes.js";

let clock, asked, answers, real;

beforeEach(() => {
  clock = useClock();
  asked = [];
  answers = [];
  real = globalThis.fetch;
  globalThis.fetch = (url, { method, body, signal }) => {
    asked.push({ url: String(url), method, body });
    return new Promise((done, fail) => {
      signal?.addEventListener("abort", () => fail(signal.reason));
      answers.push({ done, fail });
    });
  };
});

afterEach(() => {
  globalThis.fetch = real;
  clock.stop();
});

const answer = async (status, body = null) => {
  answers.shift().done(new Response(body, { status }));
  await settle();
};

test("a text is left, or waits to be read", async () => {
  const there = rendezvous("https://calls.example/app/");
  const left = there.send("ada & ben", "hello");
  await answer(204);
  assert.equal(await left, true);
  assert.deepEqual(asked[0], { url: "https://calls.example/app/sig?set=ada+%26+ben&timeoutms=0", method: "POST", body: "hello" });
  const waits = there.send("ada", "hello", { timeoutMs: 5000 });
  await answer(504);
  assert.equal(await waits, false, "nobody came");
  assert.match(asked[1].url, /timeoutms=5000$/);
});

test("a refusal has the server's reason and sentence", async () => {
  const sent = rendezvous("https://calls.example").send("ada", "x");
  await answer(429, JSON.stringify({ reason: "rendezvous_full", hint: "Later." }));
  await assert.rejects(sent, { reason: "rendezvous_full", hint: "Later." });
});

test("whatever comes is read in order, through pauses and failures, until it is stopped", async () => {
  const texts = [];
  const errors = [];
  const stop = rendezvous("https://calls.example").onMessage("ada", (text) => texts.push(text), { onError: ({ reason }) => errors.push(reason) });
  await answer(200, "one");
  await answer(204);
  await answer(200, "");
  assert.deepEqual(texts, ["one", ""]);
  answers.shift().fail(new TypeError("offline"));
  await settle();
  assert.deepEqual([errors, asked.length], [["unreachable"], 4]);
  await clock.pass(450);
  assert.equal(asked.length, 4);
  await clock.pass(50);
  assert.equal(asked.length, 5);
  await answer(200, "two");
  assert.deepEqual(texts, ["one", "", "two"]);
  stop();
  await settle();
  await clock.pass(60_000);
  assert.deepEqual([asked.length, errors.length], [6, 1], "the last request was given up");
});
