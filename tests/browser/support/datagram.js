// What a datagram between a browser and the server is, as far as it can be seen from outside: enough to lose exactly
// one of a kind.

export const HANDSHAKE = {
  clientHello: 1, serverHello: 2, helloVerifyRequest: 3, certificate: 11, serverKeyExchange: 12, certificateRequest: 13, serverHelloDone: 14,
  certificateVerify: 15, clientKeyExchange: 16, finished: 20,
};
const CHANGE_CIPHER_SPEC = 20;
const ALERT = 21;
const HANDSHAKE_RECORD = 22;

/** 'stun', 'dtls', 'rtcp', 'rtp' or 'other': the first byte (RFC 7983), and the second for RTCP (RFC 5761). */
export function kindOf(datagram) {
  const first = datagram[0];
  if (first <= 3 && datagram.length >= 20) return 'stun';
  if (first >= 20 && first <= 63) return 'dtls';
  if (first >= 128 && first <= 191 && datagram.length >= 8) {
    return datagram[1] >= 192 && datagram[1] <= 223 ? 'rtcp' : 'rtp';
  }
  return 'other';
}

/** The two halves of a binding request's USERNAME, `{ server, client }`, or null. */
export function userOf(datagram) {
  if (kindOf(datagram) !== 'stun' || datagram.readUInt16BE(0) !== 1) return null;
  for (let at = 20; at + 4 <= datagram.length;) {
    const type = datagram.readUInt16BE(at);
    const length = datagram.readUInt16BE(at + 2);
    if (type === 0x0006) {
      const [server, client] = datagram.subarray(at + 4, at + 4 + length).toString('latin1').split(':');
      return { server, client };
    }
    at += 4 + length + ((4 - (length % 4)) % 4);
  }
  return null;
}

/** Whether a STUN binding request nominates its pair. */
export function nominates(datagram) {
  if (kindOf(datagram) !== 'stun' || datagram.readUInt16BE(0) !== 1) return false;
  for (let at = 20; at + 4 <= datagram.length;) {
    if (datagram.readUInt16BE(at) === 0x0025) return true;
    const length = datagram.readUInt16BE(at + 2);
    at += 4 + length + ((4 - (length % 4)) % 4);
  }
  return false;
}

/** An RTP packet's plain fields, or null. */
export function rtpOf(datagram) {
  if (kindOf(datagram) !== 'rtp' || datagram.length < 12) return null;
  return { payloadType: datagram[1] & 0x7f, marker: datagram[1] >= 128, sequence: datagram.readUInt16BE(2),
    timestamp: datagram.readUInt32BE(4), ssrc: datagram.readUInt32BE(8) };
}

/** The records of a DTLS 1.2 datagram: `{ type, epoch, handshake, message, offset }`, the last three only where they are clear. */
export function recordsOf(datagram) {
  const records = [];
  for (let at = 0; at + 13 <= datagram.length;) {
    const type = datagram[at];
    const epoch = datagram.readUInt16BE(at + 3);
    const length = datagram.readUInt16BE(at + 11);
    const record = { type, epoch };
    if (type === HANDSHAKE_RECORD && epoch === 0 && at + 13 + 12 <= datagram.length) {
      record.handshake = datagram[at + 13];
      record.message = datagram.readUInt16BE(at + 17);
      record.offset = datagram.readUIntBE(at + 19, 3);
    }
    records.push(record);
    at += 13 + length;
  }
  return records;
}

/**
 * The flight of a handshake without a cookie round (RFC 6347 §4.2.4) that a datagram belongs to, or null: 1 ClientHello; 2 ServerHello to
 * ServerHelloDone; 3 from the client's certificate to its Finished; 4 the server's ChangeCipherSpec and Finished. `fromClient`: whether the
 * side that sent it is the DTLS client.
 */
export function flightOf(datagram, fromClient) {
  if (kindOf(datagram) !== 'dtls') return null;
  for (const { type, epoch, handshake } of recordsOf(datagram)) {
    if (handshake === HANDSHAKE.clientHello) return 1;
    if (handshake === HANDSHAKE.serverHello || handshake === HANDSHAKE.serverKeyExchange || handshake === HANDSHAKE.serverHelloDone
      || handshake === HANDSHAKE.certificateRequest) return 2;
    if (handshake === HANDSHAKE.certificate) return fromClient ? 3 : 2;
    if (handshake === HANDSHAKE.clientKeyExchange || handshake === HANDSHAKE.certificateVerify) return 3;
    if (type === CHANGE_CIPHER_SPEC || (type === HANDSHAKE_RECORD && epoch > 0)) return fromClient ? 3 : 4;
    if (type === ALERT) return null;
  }
  return null;
}

/** What tells one datagram of a flight from its repetition: the handshake fragments and other records it holds. */
export function fragmentsOf(datagram) {
  return recordsOf(datagram).map(({ type, epoch, message, offset }) => `${type}/${epoch}/${message ?? '-'}/${offset ?? '-'}`);
}
