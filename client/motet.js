// The whole public interface: `join` enters a room, `openDevices` shows oneself before, MotetError says what failed.

import { openDevices, openTrack } from "./devices.js";
import { MotetError } from "./errors.js";
import { Room } from "./room.js";

/** @import { JoinOptions } from "./types.d.ts" */

export { MotetError, openDevices };

/**
 * Enters a room.
 * @param {string | URL} url the server's address
 * @param {JoinOptions} options
 * @returns {Promise<import("./types.d.ts").Room>} rejects with a MotetError, or with the signal's reason when aborted
 */
export async function join(url, options) {
  const room = new Room(url, options, {
    openSocket: (address) => new WebSocket(address),
    request: (address, init) => fetch(address, init),
    beacon: (address, body) => globalThis.navigator?.sendBeacon?.(address, body) ?? false,
    createPeer: (configuration) => new RTCPeerConnection(configuration),
    createAudio: () => new Audio(),
    openTrack,
    openDevices,
    window: globalThis.window,
    document: globalThis.document,
    ResizeObserver: globalThis.ResizeObserver,
    pixelRatio: () => globalThis.devicePixelRatio ?? 1,
    network: /** @type {any} */ (globalThis.navigator)?.connection,
  });
  await room.join(options);
  return room;
}
