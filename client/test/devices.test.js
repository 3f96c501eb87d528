import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { openDevices, openTrack } from "../devices.js";
import { FakeTrack } from "./fakes.js";

let asked, failures, permissions;

beforeEach(() => {
  asked = [];
  failures = {};
  permissions = { camera: "prompt", microphone: "prompt" };
  const navigator = {
    permissions: { query: async ({ name }) => ({ state: permissions[name] }) },
    mediaDevices: {
      async getUserMedia({ audio, video }) {
        asked.push([audio && "audio", video && "video"].filter(Boolean).join("+"));
        const name = (audio && failures.audio) || (video && failures.video);
        if (name) throw new DOMException("x", name);
        return {
          getAudioTracks: () => (audio ? [new FakeTrack("audio")] : []),
          getVideoTracks: () => (video ? [new FakeTrack("video")] : []),
        };
      },
    },
  };
  Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
});

afterEach(() => {
  delete globalThis.navigator;
});

test("both devices are asked for by one question", async () => {
  const { camera, microphone, errors } = await openDevices({ camera: true, microphone: true });
  assert.deepEqual([asked, camera.kind, microphone.kind, errors], [["audio+video"], "video", "audio", {}]);
});

test("nobody who said no is asked again", async () => {
  failures = { audio: "NotAllowedError", video: "NotAllowedError" };
  const { camera, errors } = await openDevices({ camera: true, microphone: true });
  assert.deepEqual([asked.length, camera, errors.camera.reason, errors.microphone.reason],
    [1, null, "permission_denied", "permission_denied"]);
});

test("a blocked camera does not cost the microphone", async () => {
  failures = { video: "NotAllowedError" };
  permissions = { camera: "denied", microphone: "granted" };
  const { camera, microphone, errors } = await openDevices({ camera: true, microphone: true });
  assert.deepEqual([camera, microphone.kind, errors.camera.reason, errors.microphone], [null, "audio", "permission_denied", undefined]);
});

test("a missing camera does not cost the microphone", async () => {
  failures = { video: "NotFoundError" };
  const { microphone, errors } = await openDevices({ camera: true, microphone: true });
  assert.deepEqual([microphone.kind, errors.camera.reason], ["audio", "device_not_found"]);
});

test("tracks are taken as they are", async () => {
  const track = new FakeTrack("video");
  const { camera } = await openDevices({ camera: track });
  assert.deepEqual([camera === track, asked], [true, []]);
});

test("each failure has its reason", async () => {
  for (const [name, reason] of Object.entries({
    NotAllowedError: "permission_denied", SecurityError: "permission_denied", NotFoundError: "device_not_found",
    OverconstrainedError: "device_not_found", NotReadableError: "device_in_use", AbortError: "device_failed", Odd: "device_failed",
  })) {
    failures = { video: name };
    await assert.rejects(openTrack("camera"), { name: "MotetError", reason });
  }
});

test("a page without a secure context is told so", async () => {
  Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  globalThis.isSecureContext = false;
  await assert.rejects(openTrack("camera"), { reason: "insecure_context" });
  delete globalThis.isSecureContext;
  await assert.rejects(openTrack("camera"), { reason: "unsupported_browser" });
});
