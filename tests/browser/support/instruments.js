// Runs in every page before anything else (an init script, so no imports): the eyes and ears of the tests.
//
// It draws a picture and sounds a tone that say whose they are, and recognises the pictures and tones of
// others. It also keeps every RTCPeerConnection, WebSocket and captured track that the page makes, so that a
// test can look below the client's public API and not only through it.
//
// A picture: the upper half is the member's colour; the lower half is a code of 2 × 10 black or white blocks:
// 4 bits member, 10 bits frame number, 6 bits check. A block is a tenth of the width and a fifth of the
// height, so that it survives the smallest simulcast layer (80 × 45) at the lowest quality.
(() => {
  'use strict';
  if (window.instruments) return;

  // Far apart in hue, so that chroma subsampling and coarse quantisation cannot turn one into another.
  const COLOURS = [
    [215, 40, 40], [40, 170, 60], [45, 70, 215], [215, 200, 40],
    [200, 45, 200], [40, 190, 200], [120, 120, 120], [235, 130, 30],
  ];
  // Whole multiples of nothing in common, 200 Hz apart: the transform below tells 12 Hz apart.
  const frequencyOf = (member) => 400 + 200 * member;
  const COLUMNS = 10;
  const CODE_TOP = 0.55;
  const ROW_HEIGHT = 0.2;
  const FRAMES = 1024;

  // -- what the page makes ------------------------------------------------------------------------------

  const connections = [];
  const sockets = [];
  const captured = [];
  const timeline = [];
  const note = (what, detail) => {
    if (timeline.length < 2000) timeline.push({ at: Math.round(performance.now()), what, ...detail });
  };

  const NativeConnection = window.RTCPeerConnection;
  window.RTCPeerConnection = class RTCPeerConnection extends NativeConnection {
    constructor(...settings) {
      super(...settings);
      const n = connections.push(this) - 1;
      note('connection', { n });
      for (const kind of ['iceconnectionstate', 'connectionstate', 'signalingstate']) {
        const field = { iceconnectionstate: 'iceConnectionState', connectionstate: 'connectionState',
          signalingstate: 'signalingState' }[kind];
        this.addEventListener(`${kind}change`, () => note(kind, { n, state: this[field] }));
      }
      this.addEventListener('track', (event) => {
        const { track } = event;
        for (const kind of ['mute', 'unmute', 'ended']) {
          track.addEventListener(kind, () => note(`track-${kind}`, { n, mid: event.transceiver.mid, kind: track.kind }));
        }
      });
    }

    async setLocalDescription(description) {
      await super.setLocalDescription(description);
      note('offer', { n: connections.indexOf(this), ufrag: ufragOf(this.localDescription?.sdp) });
    }
  };

  const NativeSocket = window.WebSocket;
  window.WebSocket = class WebSocket extends NativeSocket {
    constructor(...settings) {
      super(...settings);
      const n = sockets.push(this) - 1;
      note('socket', { n });
      this.addEventListener('open', () => note('socket-open', { n }));
      this.addEventListener('close', (event) => note('socket-close', { n, code: event.code, clean: event.wasClean }));
      this.addEventListener('message', (event) => {
        if (typeof event.data === 'string') note('received', { n, t: /"t":"([\w-]+)"/.exec(event.data)?.[1] });
      });
    }

    send(data) {
      if (typeof data === 'string') note('sent', { n: sockets.indexOf(this), t: /"t":"([\w-]+)"/.exec(data)?.[1] });
      super.send(data);
    }
  };

  const devices = navigator.mediaDevices; // absent where the origin is not secure
  if (devices) {
    for (const method of ['getUserMedia', 'getDisplayMedia']) {
      const native = devices[method]?.bind(devices);
      if (!native) continue;
      devices[method] = async (wish) => {
        const stream = await native(wish);
        for (const track of stream.getTracks()) {
          captured.push(track);
          note('captured', { kind: track.kind, from: method });
        }
        return stream;
      };
    }
  }

  function ufragOf(sdp) {
    return /a=ice-ufrag:(\S+)/.exec(sdp ?? '')?.[1] ?? null;
  }

  // -- showing ------------------------------------------------------------------------------------------

  const bitsOf = (value, n) => Array.from({ length: n }, (_, i) => (value >> (n - 1 - i)) & 1);
  const valueOf = (bits) => bits.reduce((value, bit) => value * 2 + bit, 0);
  // Six bits in which a single wrong block always shows, and most combinations of wrong ones.
  const checkOf = (member, frame) => (member * 37 + frame * 11 + (frame >> 6) * 5 + 21) & 63;

  function draw(context, member, frame) {
    const { width, height } = context.canvas;
    const [r, g, b] = COLOURS[member % COLOURS.length];
    context.fillStyle = `rgb(${r},${g},${b})`;
    context.fillRect(0, 0, width, height);
    const bits = [...bitsOf(member, 4), ...bitsOf(frame % FRAMES, 10), ...bitsOf(checkOf(member, frame % FRAMES), 6)];
    bits.forEach((bit, i) => {
      context.fillStyle = bit ? '#fff' : '#000';
      const left = Math.round(((i % COLUMNS) / COLUMNS) * width);
      const right = Math.round(((i % COLUMNS + 1) / COLUMNS) * width);
      const top = Math.round((CODE_TOP + Math.floor(i / COLUMNS) * ROW_HEIGHT) * height);
      const bottom = Math.round((CODE_TOP + (Math.floor(i / COLUMNS) + 1) * ROW_HEIGHT) * height);
      context.fillRect(left, top, right - left, bottom - top);
    });
  }

  const shown = new Map();

  /** Something that no codec can make small, beside what is read back: a strip of the picture, other in each frame. */
  function noiseOf(width, height) {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width: Math.round(width / 4), height });
    const context = canvas.getContext('2d', { alpha: false });
    for (let x = 0; x < canvas.width; x += 4) {
      for (let y = 0; y < canvas.height; y += 4) {
        context.fillStyle = `hsl(${Math.floor(Math.random() * 360)} 70% ${20 + Math.floor(Math.random() * 60)}%)`;
        context.fillRect(x, y, 4, 4);
      }
    }
    return (target) => {
      const from = Math.floor(Math.random() * (height / 2));
      target.drawImage(canvas, 0, from, canvas.width, height / 2, 0, 0, canvas.width, height / 2);
    };
  }

  /** A track that shows `member`'s numbered picture until it is stopped. `detail`: with enough in it to fill many packets. */
  function picture({ member, width = 320, height = 180, fps = 10, detail = false }) {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    canvas.style.cssText = 'width:160px;height:90px';
    root().append(canvas);
    const context = canvas.getContext('2d', { alpha: false });
    let frame = 0;
    const noise = detail ? noiseOf(width, height) : () => {};
    draw(context, member, frame);
    const [track] = canvas.captureStream(fps).getVideoTracks();
    const timer = setInterval(() => {
      frame += 1;
      draw(context, member, frame);
      noise(context);
      if (track.readyState === 'ended') { clearInterval(timer); canvas.remove(); }
    }, 1000 / fps);
    shown.set(track.id, { frame: () => frame });
    return track;
  }

  let sharedAudio;
  function audio() {
    sharedAudio ??= new AudioContext({ sampleRate: 48000 });
    if (sharedAudio.state !== 'running') sharedAudio.resume().catch(() => {});
    return sharedAudio;
  }

  // Firefox runs no AudioContext on a machine without a sound device; its media elements do play there, and what they
  // play can be captured, recorded and decoded off line.
  const soundless = 'mozCaptureStream' in HTMLMediaElement.prototype;

  /** A WAV file with `seconds` of one tone: whole periods only, so that it can be looped. */
  function wave(frequency, seconds, gain, rate = 48000) {
    const samples = seconds * rate;
    const file = new DataView(new ArrayBuffer(44 + samples * 2));
    const text = (at, s) => [...s].forEach((c, i) => file.setUint8(at + i, c.charCodeAt(0)));
    text(0, 'RIFF');
    file.setUint32(4, 36 + samples * 2, true);
    text(8, 'WAVEfmt ');
    file.setUint32(16, 16, true);
    file.setUint16(20, 1, true);
    file.setUint16(22, 1, true);
    file.setUint32(24, rate, true);
    file.setUint32(28, rate * 2, true);
    file.setUint16(32, 2, true);
    file.setUint16(34, 16, true);
    text(36, 'data');
    file.setUint32(40, samples * 2, true);
    for (let i = 0; i < samples; i += 1) {
      file.setInt16(44 + i * 2, Math.round(Math.sin((2 * Math.PI * frequency * i) / rate) * gain * 32767), true);
    }
    return new Blob([file], { type: 'audio/wav' });
  }

  /** A track that sounds `member`'s tone until it is stopped. */
  async function tone({ member, gain = 0.25 }) {
    const frequency = frequencyOf(member);
    if (soundless) {
      const element = new Audio(URL.createObjectURL(wave(frequency, 30, gain)));
      element.loop = true;
      const stream = element.mozCaptureStream();
      const added = new Promise((done) => stream.addEventListener('addtrack', (event) => done(event.track), { once: true }));
      await element.play();
      const track = stream.getAudioTracks()[0] ?? await added;
      shown.set(track.id, { element, stream });
      return track;
    }
    const context = audio();
    const oscillator = context.createOscillator();
    oscillator.frequency.value = frequency;
    const volume = context.createGain();
    volume.gain.value = gain;
    const destination = context.createMediaStreamDestination();
    oscillator.connect(volume).connect(destination);
    oscillator.start();
    const [track] = destination.stream.getAudioTracks();
    // Nothing else holds the graph: the browser may collect it while the track still sends.
    shown.set(track.id, { oscillator, volume, destination });
    return track;
  }

  // -- recognising --------------------------------------------------------------------------------------

  const scratch = document.createElement('canvas');
  const pen = scratch.getContext('2d', { alpha: false, willReadFrequently: true });

  function mean(data, width, left, top, right, bottom) {
    let r = 0, g = 0, b = 0, n = 0;
    for (let y = top; y < bottom; y += 1) {
      for (let x = left; x < right; x += 1) {
        const at = (y * width + x) * 4;
        r += data[at]; g += data[at + 1]; b += data[at + 2]; n += 1;
      }
    }
    return n ? [r / n, g / n, b / n] : [0, 0, 0];
  }

  function middleOf(data, width, height, left, top, right, bottom) {
    // The middle 40 % each way: edges are where a codec blurs.
    const x = (from) => Math.round((left + (right - left) * from) * width);
    const y = (from) => Math.round((top + (bottom - top) * from) * height);
    return mean(data, width, x(0.3), y(0.3), Math.max(x(0.7), x(0.3) + 1), Math.max(y(0.7), y(0.3) + 1));
  }

  /** What an image shows: `{ member, frame, colour, margin, … }`, with `member` null where there is no valid code. */
  function read(image, width, height) {
    if (!width || !height) return { member: null, why: 'no picture yet' };
    scratch.width = width;
    scratch.height = height;
    pen.drawImage(image, 0, 0, width, height);
    const { data } = pen.getImageData(0, 0, width, height);
    const rgb = middleOf(data, width, height, 0, 0, 1, CODE_TOP).map(Math.round);
    const distance = ([r, g, b]) => Math.hypot(r - rgb[0], g - rgb[1], b - rgb[2]);
    const ranked = COLOURS.map((colour, k) => ({ k, d: distance(colour) })).sort((a, b) => a.d - b.d);
    let margin = 255;
    const bits = Array.from({ length: 2 * COLUMNS }, (_, i) => {
      const left = (i % COLUMNS) / COLUMNS;
      const top = CODE_TOP + Math.floor(i / COLUMNS) * ROW_HEIGHT;
      const [r, g, b] = middleOf(data, width, height, left, top, left + 1 / COLUMNS, top + ROW_HEIGHT);
      const light = 0.3 * r + 0.59 * g + 0.11 * b;
      margin = Math.min(margin, Math.abs(light - 127.5));
      return light > 127.5 ? 1 : 0;
    });
    const member = valueOf(bits.slice(0, 4));
    const frame = valueOf(bits.slice(4, 14));
    const valid = checkOf(member, frame) === valueOf(bits.slice(14)) && margin > 40;
    return {
      member: valid ? member : null,
      frame: valid ? frame : null,
      // Half the distance between the two nearest colours of the list is 55; further away it is nobody's.
      colour: ranked[0].d < 60 ? ranked[0].k : null,
      rgb, margin: Math.round(margin), width, height,
      ...(valid ? {} : { why: 'no valid code' }),
    };
  }

  const watched = new Map();
  const listened = new Map();

  /**
   * Counts and reads the frames of a video under `key`: of an element that shows it already, or of a track, in an element made
   * for it.
   */
  function watch(key, source) {
    const old = watched.get(key);
    if (old?.source === source) return;
    unwatch(key);
    const own = source instanceof MediaStreamTrack;
    const video = own ? document.createElement('video') : source;
    if (own) {
      Object.assign(video, { muted: true, autoplay: true, playsInline: true, srcObject: new MediaStream([source]) });
      video.style.cssText = 'width:160px;height:90px;object-fit:fill';
      root().append(video);
      video.play().catch(() => {});
    }
    const entry = { source, own, video, frames: 0, first: null, last: null, gap: 0, sizes: new Set(), since: performance.now() };
    const onFrame = (now) => {
      if (watched.get(key) !== entry) return;
      entry.frames += 1;
      entry.first ??= now;
      if (entry.last !== null) entry.gap = Math.max(entry.gap, now - entry.last);
      entry.last = now;
      entry.sizes.add(`${video.videoWidth}x${video.videoHeight}`);
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
    watched.set(key, entry);
  }

  function unwatch(key) {
    const entry = watched.get(key);
    watched.delete(key);
    if (!entry?.own) return;
    entry.video.srcObject = null;
    entry.video.remove();
  }

  /** What the picture under `key` shows now. */
  function look(key) {
    const entry = watched.get(key);
    if (!entry) return { member: null, why: 'not watched' };
    return { ...read(entry.video, entry.video.videoWidth, entry.video.videoHeight), frames: entry.frames };
  }

  /** Frames shown since `mark(key)`, and the longest time between two of them in ms, the time since the last included. */
  function frames(key) {
    const entry = watched.get(key);
    if (!entry) return null;
    const open = performance.now() - (entry.last ?? entry.since);
    return { frames: entry.frames, gap: Math.round(Math.max(entry.gap, open)), sizes: [...entry.sizes],
      seconds: (performance.now() - entry.since) / 1000 };
  }

  function mark(key) {
    const entry = watched.get(key);
    if (!entry) return;
    const now = performance.now();
    Object.assign(entry, { frames: 0, gap: 0, first: null, last: now, since: now, sizes: new Set() });
  }

  /** Listens to an audio track under `key`. */
  function listen(key, track) {
    if (listened.get(key)?.track === track) return;
    unlisten(key);
    const stream = new MediaStream([track]);
    // Both browsers decode a remote track only while an element plays it, be it silently.
    const element = new Audio();
    Object.assign(element, { muted: true, autoplay: true, srcObject: stream });
    element.play().catch(() => {});
    const entry = { track, stream, element };
    if (!soundless) {
      entry.source = audio().createMediaStreamSource(stream);
      entry.analyser = audio().createAnalyser();
      entry.analyser.fftSize = SAMPLES;
      entry.source.connect(entry.analyser);
    }
    listened.set(key, entry);
  }

  function unlisten(key) {
    const entry = listened.get(key);
    listened.delete(key);
    if (!entry) return;
    entry.source?.disconnect();
    entry.element.srcObject = null;
  }

  const SAMPLES = 8192;
  const RATE = 48000;

  /** The newest `SAMPLES` of what a track sounds, mono at `RATE`; empty where nothing could be had. */
  async function samplesOf({ analyser, track }) {
    if (analyser) {
      const samples = new Float32Array(SAMPLES);
      analyser.getFloatTimeDomainData(samples);
      return samples;
    }
    const recorder = new MediaRecorder(new MediaStream([track]), { mimeType: 'audio/ogg;codecs=opus', audioBitsPerSecond: 96_000 });
    const parts = [];
    recorder.ondataavailable = (event) => parts.push(event.data);
    const stopped = new Promise((done) => { recorder.onstop = done; });
    const started = new Promise((done) => { recorder.onstart = done; });
    recorder.start();
    await Promise.race([started, stopped]);
    await new Promise((done) => setTimeout(done, 350));
    if (recorder.state !== 'inactive') recorder.stop();
    await stopped;
    const file = await new Blob(parts).arrayBuffer();
    if (!file.byteLength) return new Float32Array(0);
    const decoded = await new OfflineAudioContext(1, RATE, RATE).decodeAudioData(file).catch(() => null);
    return decoded ? decoded.getChannelData(0).slice(-SAMPLES) : new Float32Array(0);
  }

  /** Levels in dB of each bin, by a Blackman window and a radix-2 transform. */
  function spectrumOf(samples) {
    const n = SAMPLES;
    const re = new Float64Array(n);
    const im = new Float64Array(n);
    const bits = Math.log2(n);
    for (let i = 0; i < samples.length; i += 1) {
      const x = (2 * Math.PI * i) / (samples.length - 1);
      let to = 0;
      for (let b = 0; b < bits; b += 1) to |= ((i >> b) & 1) << (bits - 1 - b);
      re[to] = samples[i] * (0.42 - 0.5 * Math.cos(x) + 0.08 * Math.cos(2 * x));
    }
    for (let size = 2; size <= n; size *= 2) {
      for (let k = 0; k < size / 2; k += 1) {
        const angle = (-2 * Math.PI * k) / size;
        const c = Math.cos(angle);
        const s = Math.sin(angle);
        for (let i = k; i < n; i += size) {
          const j = i + size / 2;
          const tr = re[j] * c - im[j] * s;
          const ti = re[j] * s + im[j] * c;
          re[j] = re[i] - tr;
          im[j] = im[i] - ti;
          re[i] += tr;
          im[i] += ti;
        }
      }
    }
    // 0 dB is a full-scale sine: half the samples times the window's mean.
    const full = samples.length * 0.42 / 2;
    return Float64Array.from({ length: n / 2 }, (_, i) => 20 * Math.log10(Math.max(Math.hypot(re[i], im[i]) / full, 1e-10)));
  }

  /**
   * What sounds under `key` now: `{ member, frequency, level, members }`; `member` is null in silence or where the
   * loudest tone is nobody's; `members` are all whose tones are heard at once. Level in dB below full scale.
   */
  async function hear(key) {
    const entry = listened.get(key);
    if (!entry) return { member: null, members: [], why: 'not listened to' };
    return recognise(await samplesOf(entry));
  }

  /** Whose tones are in these samples. */
  function recognise(samples) {
    if (samples.length < SAMPLES / 2) return { member: null, members: [], why: `${samples.length} samples` };
    const spectrum = spectrumOf(samples);
    const width = RATE / SAMPLES;
    // Below 150 Hz there is only what codecs and windows leave of a constant.
    let loudest = Math.ceil(150 / width);
    for (let i = loudest; i < spectrum.length; i += 1) if (spectrum[i] > spectrum[loudest]) loudest = i;
    const level = spectrum[loudest];
    const around = (frequency) => {
      const i = Math.round(frequency / width);
      return Math.max(...spectrum.subarray(i - 2, i + 3));
    };
    const members = [];
    for (let k = 0; k < COLOURS.length; k += 1) {
      // A tone stands well above the floor half-way to its neighbours, or it is not there.
      const floor = Math.max(around(frequencyOf(k) - 100), around(frequencyOf(k) + 100));
      const own = around(frequencyOf(k));
      if (own > -60 && own > level - 30 && own > floor + 15) members.push(k);
    }
    const frequency = Math.round(loudest * width);
    const near = COLOURS.findIndex((_, k) => Math.abs(frequency - frequencyOf(k)) <= 15);
    // The loudest must be a clear tone, too: in the moment in which one begins it is smeared over its neighbours.
    return { member: members.includes(near) ? near : null, members, frequency, level: Math.round(level), samples: samples.length };
  }

  // -- below the client ---------------------------------------------------------------------------------

  /**
   * Watches and listens to every receiving section of the newest connection, whatever the client does with it,
   * under `raw:<mid>`.
   */
  function watchAll(n = connections.length - 1) {
    const keys = [];
    for (const transceiver of connections[n]?.getTransceivers() ?? []) {
      if (!/recv/.test(transceiver.currentDirection ?? '')) continue;
      const { track } = transceiver.receiver;
      const key = `raw:${transceiver.mid}`;
      if (track.kind === 'video') watch(key, track); else listen(key, track);
      keys.push({ key, mid: transceiver.mid, kind: track.kind });
    }
    return keys;
  }

  const PICK = {
    'inbound-rtp': ['kind', 'mid', 'ssrc', 'packetsReceived', 'packetsLost', 'bytesReceived', 'retransmittedPacketsReceived', 'nackCount',
      'pliCount', 'firCount', 'framesReceived', 'framesDecoded', 'framesDropped', 'keyFramesDecoded', 'freezeCount',
      'totalFreezesDuration', 'frameWidth', 'frameHeight', 'concealedSamples', 'totalSamplesReceived', 'concealmentEvents',
      'jitterBufferDelay', 'jitterBufferEmittedCount', 'audioLevel'],
    'outbound-rtp': ['kind', 'mid', 'rid', 'ssrc', 'active', 'packetsSent', 'bytesSent', 'retransmittedPacketsSent', 'retransmittedBytesSent',
      'nackCount', 'pliCount', 'firCount', 'framesEncoded', 'keyFramesEncoded', 'frameWidth', 'frameHeight', 'framesPerSecond',
      'targetBitrate', 'qualityLimitationReason'],
  };

  /** RTP streams of one direction, as plain objects; `n` counts the page's connections from 0. */
  async function streams(type, n = connections.length - 1) {
    const result = [];
    if (!connections[n]) return result;
    for (const stats of (await connections[n].getStats()).values()) {
      if (stats.type !== type) continue;
      const entry = {};
      for (const field of PICK[type]) if (stats[field] !== undefined) entry[field] = stats[field];
      result.push(entry);
    }
    return result;
  }

  /** The sources of a receiving section, as the server's answer names them: `{ media, rtx }`. */
  function sources(mid, n = connections.length - 1) {
    const section = connections[n].remoteDescription.sdp.split(/^m=/m).find((text) => text.includes(`a=mid:${mid}\r\n`));
    const [, media, rtx] = /a=ssrc-group:FID (\d+) (\d+)/.exec(section) ?? [];
    return { media: Number(media), rtx: Number(rtx) };
  }

  /** Everything that getStats says of every connection, for the artifacts. */
  async function everything() {
    const all = [];
    for (const [n, connection] of connections.entries()) {
      const entry = { n, connection: connection.connectionState, ice: connection.iceConnectionState, signaling: connection.signalingState };
      if (connection.signalingState !== 'closed') {
        entry.stats = [...(await connection.getStats()).values()];
        entry.local = connection.localDescription?.sdp;
        entry.remote = connection.remoteDescription?.sdp;
      }
      all.push(entry);
    }
    return JSON.stringify({ origin: performance.timeOrigin, connections: all, timeline, visibility: document.visibilityState }, null, 1);
  }

  /** The state of one connection, its ICE user name and how often it offered a new one. */
  function connection(n = connections.length - 1) {
    const pc = connections[n];
    if (!pc) return null;
    const ufrags = [...new Set(timeline.filter((e) => e.what === 'offer' && e.n === n && e.ufrag).map((e) => e.ufrag))];
    return { n, state: pc.connectionState, ice: pc.iceConnectionState, signaling: pc.signalingState,
      ufrag: ufragOf(pc.localDescription?.sdp), restarts: Math.max(0, ufrags.length - 1), ufrags };
  }

  function root() {
    let element = document.getElementById('instruments');
    if (!element) {
      element = document.createElement('div');
      element.id = 'instruments';
      element.style.cssText = 'display:flex;flex-wrap:wrap;gap:4px';
      (document.body ?? document.documentElement).append(element);
    }
    return element;
  }

  window.instruments = {
    picture, tone, frequencyOf, recognise, watch, unwatch, look, frames, mark, listen, unlisten, hear, watchAll, read, draw,
    streams, sources, everything, connection, connections, sockets, captured, timeline, shown,
    time: () => performance.now(),
  };
})();
