// Every failure that a program or a person can act on: one class, a stable reason, a sentence.

/**
 * What each of the client's own reasons tells a person. The server's refusals bring their own sentence.
 * @type {Record<string, string>}
 */
const HINTS = {
  unreachable: "The call server does not answer. Check your connection and try again.",
  timeout: "The call server took too long to answer. Try again.",
  unsupported_browser: "This browser cannot take part in calls (it has no WebRTC).",
  insecure_context: "Browsers give the camera and the microphone to secure pages only: open the page with https.",
  permission_denied: "The browser has no permission. Allow it in the page's settings and try again.",
  device_not_found: "No such device was found. Plug one in and try again.",
  device_in_use: "The device is in use by another program. Close that one and try again.",
  device_failed: "The device could not be started.",
  device_ended: "The device stopped: it was unplugged or its permission was withdrawn.",
  connection_failed: "No media connection to the call server could be made. A firewall may block UDP.",
  closed: "You left the call.",
  replaced: "You joined this call from another window.",
  unknown_session: "The call server no longer knew this session.",
  protocol: "The call server sent something that this client does not understand.",
};

/** The only error class of this library. `reason` is stable and made for programs, `hint` for people. */
export class MotetError extends Error {
  /**
   * @param {string} reason the client's own (see HINTS) or the server's
   * @param {{ hint?: string, cause?: unknown, retryMs?: number }} [more] `retryMs`: when trying again makes sense
   */
  constructor(reason, more = {}) {
    const hint = more.hint || HINTS[reason] || `The call failed (${reason}).`;
    super(`${reason}: ${hint}`, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = "MotetError";
    /** @readonly */
    this.reason = reason;
    /** @readonly */
    this.hint = hint;
    /** @readonly @type {number | undefined} in ms */
    this.retryMs = more.retryMs;
  }
}

/**
 * @param {unknown} thrown
 * @param {string} [reason] for whatever is not yet a MotetError
 * @returns {MotetError}
 */
export function asMotetError(thrown, reason = "protocol") {
  return thrown instanceof MotetError ? thrown : new MotetError(reason, { cause: thrown });
}

/**
 * The names of `getUserMedia`'s failures differ between browsers and years; these are the causes behind them.
 * @param {unknown} thrown
 * @returns {MotetError}
 */
export function deviceError(thrown) {
  if (thrown instanceof MotetError) return thrown;
  const name = thrown instanceof Error || thrown instanceof DOMException ? thrown.name : "";
  /** @type {Record<string, string>} */
  const reasons = {
    NotAllowedError: "permission_denied",
    SecurityError: "permission_denied",
    NotFoundError: "device_not_found",
    OverconstrainedError: "device_not_found",
    NotReadableError: "device_in_use",
    AbortError: "device_failed",
  };
  return new MotetError(reasons[name] ?? "device_failed", { cause: thrown });
}
