// Two pages connected to each other without a server, signalled by the test: proves the instruments, and the relay between
// real browsers.

const MIDS = { picture: '0', tone: '1' };

async function offer(options) {
  const { instruments } = window;
  const pc = new RTCPeerConnection();
  window.direct = pc;
  const { picture, tone } = options;
  if (picture) pc.addTransceiver(instruments.picture(picture), { direction: 'sendonly' });
  if (tone) pc.addTransceiver(await instruments.tone(tone), { direction: 'sendonly' });
  await pc.setLocalDescription();
  await gathered(pc);
  return pc.localDescription.sdp;

  function gathered(connection) {
    if (connection.iceGatheringState === 'complete') return Promise.resolve();
    return new Promise((done) => connection.addEventListener('icegatheringstatechange', () => {
      if (connection.iceGatheringState === 'complete') done();
    }));
  }
}

async function answer(sdp) {
  const { instruments } = window;
  const pc = new RTCPeerConnection();
  window.direct = pc;
  pc.addEventListener('track', ({ track, transceiver }) => {
    if (track.kind === 'video') instruments.watch(`raw:${transceiver.mid}`, track);
    else instruments.listen(`raw:${transceiver.mid}`, track);
  });
  await pc.setRemoteDescription({ type: 'offer', sdp });
  await pc.setLocalDescription();
  if (pc.iceGatheringState !== 'complete') {
    await new Promise((done) => pc.addEventListener('icegatheringstatechange', () => pc.iceGatheringState === 'complete' && done()));
  }
  return pc.localDescription.sdp;
}

const candidatesOf = (sdp) => [...sdp.matchAll(/^a=candidate:(.*)$/gm)].map(([, line]) => {
  const [, component, protocol, , address, port, , type] = line.split(' ');
  return { component, protocol: protocol.toLowerCase(), address, port: Number(port), type };
});

/** One UDP host candidate of an IPv4 address that is not loopback. */
export function hostCandidate(sdp) {
  return candidatesOf(sdp).find(({ component, protocol, address, type }) => component === '1' && protocol === 'udp' && type === 'host'
    && /^\d+\.\d+\.\d+\.\d+$/.test(address) && !address.startsWith('127.'));
}

const without = (sdp) => sdp.replace(/^a=candidate:.*\r\n/gm, '').replace(/^a=end-of-candidates\r\n/gm, '');

function only(sdp, { address, port }) {
  const line = `a=candidate:1 1 udp 2130706431 ${address} ${port} typ host\r\n`;
  return without(sdp).replace(/(^m=[^\n]*\n(?:[^\n]*\n)*?)(a=ice-ufrag)/m, `$1${line}$2`);
}

/**
 * `from` sends its picture and tone to `to`. With a relay, the sender knows only the relay's address and the receiver no address at all, as
 * a server in the receiver's place would.
 */
export async function connect(from, to, { picture, tone, proxy } = {}) {
  const offered = await from.evaluate(offer, { picture, tone });
  const answered = await to.evaluate(answer, proxy ? without(offered) : offered);
  let final = answered;
  if (proxy) {
    const candidate = hostCandidate(answered);
    if (!candidate) throw new Error(`${to} has no usable candidate:\n${answered}`);
    proxy.aim(candidate);
    final = only(answered, proxy);
  }
  await from.evaluate((sdp) => window.direct.setRemoteDescription({ type: 'answer', sdp }), final);
  return { mids: MIDS, ufrag: /a=ice-ufrag:(\S+)/.exec(offered)[1] };
}

export async function disconnect(...pages) {
  for (const page of pages) await page.evaluate(() => window.direct?.close());
}
