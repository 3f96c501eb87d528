// The network of the tests, tested: what the relay says it loses is lost, and nothing else.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { after, test } from 'node:test';

import { flightOf, fragmentsOf, kindOf, nominates, rtpOf, userOf } from './support/datagram.js';
import { Proxy, random } from './support/proxy.js';
import { observeFor, until } from './support/wait.js';

const cleanup = [];
after(async () => {
  for (const end of cleanup.reverse()) await end();
});

async function udp() {
  const socket = createSocket('udp4');
  await new Promise((done) => socket.bind(0, '127.0.0.1', done));
  cleanup.push(() => new Promise((done) => socket.close(done)));
  const received = [];
  socket.on('message', (datagram, from) => received.push({ datagram, from }));
  return { socket, received, port: socket.address().port };
}

/** An echoing server behind a relay, and two clients. */
async function network({ seed = 1 } = {}) {
  const server = await udp();
  server.socket.on('message', (datagram, from) => server.socket.send(datagram, from.port, from.address));
  const proxy = await Proxy.open({ address: '127.0.0.1', target: { address: '127.0.0.1', port: server.port }, seed });
  cleanup.push(() => proxy.close());
  const client = async () => {
    const one = await udp();
    one.send = (datagram) => one.socket.send(datagram, proxy.port, '127.0.0.1');
    return one;
  };
  return { server, proxy, a: await client(), b: await client() };
}

const rtp = (sequence, payloadType = 96) => {
  const packet = Buffer.alloc(40);
  packet[0] = 0x80;
  packet[1] = payloadType;
  packet.writeUInt16BE(sequence, 2);
  packet.writeUInt32BE(7, 8);
  return packet;
};

function stun(user, { nominate = false } = {}) {
  const name = Buffer.from(user);
  const padded = Buffer.alloc(Math.ceil(name.length / 4) * 4);
  name.copy(padded);
  const attributes = [[0x0006, name.length, padded], ...(nominate ? [[0x0025, 0, Buffer.alloc(0)]] : [])].map(([type, length, body]) => {
    const head = Buffer.alloc(4);
    head.writeUInt16BE(type, 0);
    head.writeUInt16BE(length, 2);
    return Buffer.concat([head, body]);
  });
  const body = Buffer.concat(attributes);
  const head = Buffer.alloc(20);
  head.writeUInt16BE(1, 0);
  head.writeUInt16BE(body.length, 2);
  head.writeUInt32BE(0x2112a442, 4);
  return Buffer.concat([head, body]);
}

function record(type, epoch, { handshake, message = 0, offset = 0, length = 20 } = {}) {
  const body = Buffer.alloc(handshake === undefined ? length : 12 + length);
  if (handshake !== undefined) {
    body[0] = handshake;
    body.writeUInt16BE(message, 4);
    body.writeUIntBE(offset, 6, 3);
  }
  const head = Buffer.alloc(13);
  head[0] = type;
  head.writeUInt16BE(0xfefd, 1);
  head.writeUInt16BE(epoch, 3);
  head.writeUInt16BE(body.length, 11);
  return Buffer.concat([head, body]);
}

const FLIGHTS = {
  1: [record(22, 0, { handshake: 1, length: 100 }), record(22, 0, { handshake: 1, offset: 100 })],
  2: [Buffer.concat([record(22, 0, { handshake: 2 }), record(22, 0, { handshake: 11, message: 1 }), record(22, 0, { handshake: 14, message: 2 })])],
  3: [Buffer.concat([record(22, 0, { handshake: 11, message: 1 }), record(22, 0, { handshake: 16, message: 2 }), record(20, 0, { length: 1 })]),
    record(22, 1)],
  4: [Buffer.concat([record(20, 0, { length: 1 }), record(22, 1)])],
};

test('datagrams are told apart', () => {
  assert.equal(kindOf(rtp(1)), 'rtp');
  assert.equal(kindOf(Buffer.from([0x80, 201, 0, 1, 0, 0, 0, 0])), 'rtcp');
  assert.equal(kindOf(stun('server:client')), 'stun');
  assert.equal(kindOf(FLIGHTS[1][0]), 'dtls');
  assert.equal(kindOf(Buffer.from([0xff])), 'other');
  assert.deepEqual(userOf(stun('server:me')), { server: 'server', client: 'me' });
  assert.equal(nominates(stun('server:me')), false);
  assert.equal(nominates(stun('server:me', { nominate: true })), true);
  assert.deepEqual(rtpOf(rtp(65535)), { payloadType: 96, marker: false, sequence: 65535, timestamp: 0, ssrc: 7 });
  for (const [number, datagrams] of Object.entries(FLIGHTS)) {
    for (const datagram of datagrams) assert.equal(flightOf(datagram, number % 2 === 1), Number(number));
  }
  assert.equal(new Set([...FLIGHTS[1], ...FLIGHTS[3]].flatMap(fragmentsOf)).size, 6);
});

test('each client has an address of its own, and answers find their way back', async () => {
  const { server, proxy, a, b } = await network();
  a.send(rtp(1));
  b.send(rtp(2));
  await until('both have their answer', () => a.received.length === 1 && b.received.length === 1);
  assert.equal(rtpOf(a.received[0].datagram).sequence, 1);
  assert.equal(rtpOf(b.received[0].datagram).sequence, 2);
  assert.equal(a.received[0].from.port, proxy.port);
  assert.equal(new Set(server.received.map(({ from }) => from.port)).size, 2);
});

test('loss is seeded, counted, and only where it was asked for', async () => {
  const lost = async (seed) => {
    const { server, proxy, a } = await network({ seed });
    proxy.set('up', { loss: 0.3 });
    for (let i = 0; i < 200; i += 1) a.send(rtp(i));
    const flow = await until('all were seen', () => [...proxy.flows.values()].find((one) => one.up.datagrams === 200));
    await until('the rest arrived', () => server.received.length === 200 - flow.up.dropped && a.received.length === server.received.length);
    assert.equal(flow.down.dropped, 0);
    return server.received.map(({ datagram }) => rtpOf(datagram).sequence);
  };
  const first = await lost(5);
  assert.ok(first.length > 110 && first.length < 170, `${first.length} of 200 passed`);
  assert.deepEqual(await lost(5), first);
  assert.notDeepEqual(await lost(6), first);
  const next = random(1);
  const mean = Array.from({ length: 10_000 }, next).reduce((sum, x) => sum + x, 0) / 10_000;
  assert.ok(Math.abs(mean - 0.5) < 0.02);
});

test('one client of several can be made to lose, found by its ICE user name', async () => {
  const { proxy, a, b } = await network();
  a.send(stun('server:anna'));
  b.send(stun('server:bert', { nominate: true }));
  await until('both are known', () => proxy.flowOf('anna') && proxy.flowOf('bert'));
  await until('both were answered', () => a.received.length && b.received.length);
  assert.equal(proxy.flowOf('bert').nominations, 1);
  proxy.flowOf('anna').policy.down = { loss: 1, only: (datagram) => kindOf(datagram) === 'rtp' };
  a.send(rtp(1));
  b.send(rtp(1));
  a.send(stun('server:anna'));
  await until('what may pass has passed', () => a.received.length === 2 && b.received.length === 2);
  assert.equal(proxy.flowOf('anna').down.dropped, 1);
});

test('darkness loses everything and ends', async () => {
  const { server, proxy, a } = await network();
  a.send(stun('server:anna'));
  const flow = await until('the client is known', () => proxy.flowOf('anna'));
  await until('it was answered', () => a.received.length === 1);
  flow.darken();
  a.send(rtp(1));
  await until('it was lost', () => flow.up.dropped === 1);
  flow.darken(false);
  a.send(rtp(2));
  await until('it was answered again', () => a.received.length === 2);
  assert.deepEqual(server.received.slice(1).map(({ datagram }) => rtpOf(datagram).sequence), [2]);
});

test('rebinding changes the port at once and forgets the old one', async () => {
  const { server, proxy, a } = await network();
  a.send(stun('server:anna'));
  await until('it was answered', () => a.received.length === 1);
  const flow = proxy.flowOf('anna');
  const { before, after: now } = await flow.rebind();
  assert.notEqual(before, now);
  server.socket.send(rtp(1), before, '127.0.0.1');
  await until('the stray is seen', () => flow.strays === 1);
  a.send(rtp(2));
  await until('the new port is answered', () => a.received.length === 2);
  assert.equal(server.received.at(-1).from.port, now);
});

test('delay keeps the order', async () => {
  const { proxy, a } = await network();
  proxy.set('up', { delay: 40 });
  const start = performance.now();
  for (let i = 0; i < 20; i += 1) a.send(rtp(i));
  await until('all are back', () => a.received.length === 20, { every: 2 });
  assert.ok(performance.now() - start >= 39);
  assert.deepEqual(a.received.map(({ datagram }) => rtpOf(datagram).sequence), Array.from({ length: 20 }, (_, i) => i));
});

test('the next datagram of a kind can be lost, and only that', async () => {
  const { server, proxy, a } = await network();
  const rule = proxy.dropNext('up', (datagram) => rtpOf(datagram)?.payloadType === 97, { skip: 1, times: 2 });
  for (let i = 0; i < 5; i += 1) {
    a.send(rtp(i, 97));
    a.send(rtp(i, 96));
  }
  await until('all is through', () => server.received.length === 8);
  assert.equal(rule.dropped, 2);
  assert.equal(rule.done, true);
  const left = server.received.filter(({ datagram }) => rtpOf(datagram).payloadType === 97).map(({ datagram }) => rtpOf(datagram).sequence);
  assert.deepEqual(left, [0, 3, 4]);
});

test('a flight is lost whole and once', async () => {
  for (const number of [1, 3]) {
    const { server, proxy, a } = await network();
    // The echo returns the client's own flights, so they are the other side's too; only the way up is looked at.
    const rule = proxy.dropFlight(number);
    const up = [];
    proxy.tap((way, _, datagram, gone) => { if (way === 'up') up.push([flightOf(datagram, true), gone]); });
    for (const datagram of [...FLIGHTS[1], ...FLIGHTS[3]]) a.send(datagram);
    await until('the flights were seen', () => up.length === 4);
    for (const datagram of FLIGHTS[number]) a.send(datagram);
    await until('the repetition was seen', () => up.length === 6);
    assert.deepEqual(up.filter(([flight]) => flight === number).map(([, gone]) => gone), [true, true, false, false]);
    assert.ok(up.filter(([flight]) => flight !== number).every(([, gone]) => !gone));
    assert.equal(rule.dropped, 2);
    assert.equal(rule.done, true);
    assert.ok(server.received.length > 0);
  }
});

test('the server answers nothing after the relay closed', async () => {
  const { server, proxy, a } = await network();
  a.send(rtp(1));
  await until('it was answered', () => a.received.length === 1);
  await proxy.close();
  a.send(rtp(2));
  await observeFor(30);
  assert.equal(server.received.length, 1);
});
