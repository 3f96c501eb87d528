// Cameras, microphones and screens: opening them, and saying in words why one did not open.

import { MotetError, deviceError } from "./errors.js";

/** @import { DeviceChoice, OpenedDevices } from "./types.d.ts" */
/** @import { Source } from "./protocol.d.ts" */

/**
 * What is asked of a device unless the caller says otherwise. 720p is what the three layers are made for.
 * @type {Record<"camera" | "microphone", MediaTrackConstraints>}
 */
const DEFAULTS = {
  camera: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
  microphone: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
};

/** @returns {MediaDevices} @throws {MotetError} */
function mediaDevices() {
  const devices = globalThis.navigator?.mediaDevices;
  if (devices) return devices;
  throw new MotetError(globalThis.isSecureContext === false ? "insecure_context" : "unsupported_browser");
}

/**
 * @param {DeviceChoice | undefined} choice
 * @param {"camera" | "microphone"} source
 * @returns {MediaTrackConstraints | false}
 */
function constraintsOf(choice, source) {
  if (!choice || isTrack(choice)) return false;
  return choice === true ? DEFAULTS[source] : { ...DEFAULTS[source], ...choice };
}

/**
 * @param {unknown} value
 * @returns {value is MediaStreamTrack}
 */
export function isTrack(value) {
  return typeof value === "object" && value !== null && "kind" in value && "readyState" in value;
}

/**
 * Opens the camera, the microphone or both; both with a single question to the person where both are wanted.
 * Never rejects: what could not be opened is in `errors`.
 * @param {{ camera?: DeviceChoice, microphone?: DeviceChoice }} choice
 * @returns {Promise<OpenedDevices>}
 */
export async function openDevices(choice) {
  /** @type {OpenedDevices} */
  const opened = { camera: null, microphone: null, errors: {} };
  if (isTrack(choice.camera)) opened.camera = choice.camera;
  if (isTrack(choice.microphone)) opened.microphone = choice.microphone;
  const video = constraintsOf(choice.camera, "camera");
  const audio = constraintsOf(choice.microphone, "microphone");
  if (video && audio) {
    try {
      const stream = await mediaDevices().getUserMedia({ audio, video });
      opened.camera = stream.getVideoTracks()[0] ?? null;
      opened.microphone = stream.getAudioTracks()[0] ?? null;
      return opened;
    } catch (error) {
      // One of the two is missing or refused: the other may still open, and the reasons are found out below. But whoever
      // has just said no is not asked twice more.
      const refused = deviceError(error);
      if (refused.reason === "permission_denied" && !(await oneIsBlocked())) {
        opened.errors = { camera: refused, microphone: refused };
        return opened;
      }
    }
  }
  if (audio) {
    await openTrack("microphone", choice.microphone).then(
      (track) => { opened.microphone = track; },
      (error) => { opened.errors.microphone = error; },
    );
  }
  if (video) {
    await openTrack("camera", choice.camera).then(
      (track) => { opened.camera = track; },
      (error) => { opened.errors.camera = error; },
    );
  }
  return opened;
}

/** @returns {Promise<boolean>} whether camera and microphone are not treated alike by the browser's settings */
async function oneIsBlocked() {
  /** @param {"camera" | "microphone"} name */
  const state = async (name) => {
    try {
      return (await navigator.permissions.query({ name: /** @type {PermissionName} */ (name) })).state;
    } catch {
      return "unknown"; // older browsers do not tell
    }
  };
  return (await state("camera")) !== (await state("microphone"));
}

/**
 * @param {Source} source
 * @param {DeviceChoice} [choice]
 * @returns {Promise<MediaStreamTrack>} rejects with a MotetError
 */
export async function openTrack(source, choice = true) {
  if (isTrack(choice)) return choice;
  try {
    if (source === "camera") {
      const stream = await mediaDevices().getUserMedia({ video: constraintsOf(choice, "camera") });
      return first(stream.getVideoTracks());
    }
    if (source === "microphone") {
      const stream = await mediaDevices().getUserMedia({ audio: constraintsOf(choice, "microphone") });
      return first(stream.getAudioTracks());
    }
    throw new MotetError("device_not_found");
  } catch (error) {
    throw deviceError(error);
  }
}

/** @param {MediaStreamTrack[]} tracks */
function first(tracks) {
  const [track] = tracks;
  if (!track) throw new MotetError("device_not_found");
  return track;
}
