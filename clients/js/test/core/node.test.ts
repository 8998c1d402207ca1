/** `pipeward/node` against a server that speaks bytes: RFC 6455 as far as a client needs it, and refusals in full. */

import { createHash } from 'node:crypto';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';

import { afterEach, expect, test, vi } from 'vitest';

import { NodeWebSocket } from '../../src/node/index.js';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** What is answered to a handshake; the rest of the conversation is the test's. */
async function serve(answer: (socket: Socket, head: string) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', (bytes) => answer(socket, bytes.toString()));
  });
  servers.push(server);
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return `ws://127.0.0.1:${(server.address() as AddressInfo).port}/v1/connect`;
}

function accept(socket: Socket, head: string, more = 'Sec-WebSocket-Protocol: pipeward.v1\r\n'): void {
  const key = /sec-websocket-key: (.+)\r\n/i.exec(head)![1]!;
  const accepted = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accepted}\r\n${more}\r\n`);
}

const frame = (first: number, payload: Buffer | string): Buffer => {
  const bytes = Buffer.from(payload);
  const head = bytes.length < 126 ? Buffer.from([first, bytes.length]) : bytes.length < 65_536 ? Buffer.from([first, 126, 0, 0]) : Buffer.from([first, 127, 0, 0, 0, 0, 0, 0, 0, 0]);
  if (head.length === 4) head.writeUInt16BE(bytes.length, 2);
  if (head.length === 10) head.writeBigUInt64BE(BigInt(bytes.length), 2);
  return Buffer.concat([head, bytes]);
};

/** A frame of a client: masked, as it must be. */
function unmask(bytes: Buffer): { first: number; payload: Buffer } {
  expect(bytes[1]! & 128, 'masked').toBe(128);
  const short = bytes[1]! & 127;
  const [at, length] = short === 127 ? [10, Number(bytes.readBigUInt64BE(2))] : short === 126 ? [4, bytes.readUInt16BE(2)] : [2, short];
  const mask = bytes.subarray(at, at + 4);
  return { first: bytes[0]!, payload: Buffer.from(bytes.subarray(at + 4, at + 4 + length).map((byte, place) => byte ^ mask[place % 4]!)) };
}

/** A socket, and everything that it has told. */
function open(url: string) {
  const socket = new NodeWebSocket(url, ['pipeward.v1', 'pipeward.token.abc']);
  const told = { opened: 0, messages: [] as string[], errors: [] as string[], closed: [] as { code: number; reason: string; refusal?: unknown }[] };
  socket.onopen = () => (told.opened += 1);
  socket.onmessage = ({ data }) => told.messages.push(data);
  socket.onerror = ({ message }) => told.errors.push(message);
  socket.onclose = (event) => told.closed.push(event);
  return { socket, told, closed: () => vi.waitFor(() => expect(told.closed).toHaveLength(1)) };
}

test('the handshake offers what it was given, and the token is in no address', async () => {
  let head = '';
  const url = await serve((socket, received) => accept(socket, (head = received)));
  const { socket, told } = open(url);
  await vi.waitFor(() => expect(told.opened).toBe(1));
  expect(socket.protocol).toBe('pipeward.v1');
  expect(head).toMatch(/^GET \/v1\/connect HTTP\/1\.1\r\n/);
  expect(head).toMatch(/sec-websocket-protocol: pipeward\.v1, pipeward\.token\.abc\r\n/i);
  expect(head).toMatch(/sec-websocket-version: 13\r\n/i);
  socket.close();
});

test('messages of every length, in pieces, whole, and several at once', async () => {
  const texts = ['', 'x', 'é'.repeat(62), 'y'.repeat(126), 'z'.repeat(65_536)];
  const url = await serve((socket, head) => {
    accept(socket, head);
    const all = Buffer.concat([...texts.map((text) => frame(0x81, text)), frame(0x01, 'in '), frame(0x89, 'ping'), frame(0x00, 'three '), frame(0x80, 'parts')]);
    socket.write(all);
    // Once more, byte by byte where heads are.
    for (let at = 0; at < 500; at += 1) socket.write(all.subarray(at, at + 1));
    socket.write(all.subarray(500));
  });
  const { socket, told } = open(url);
  await vi.waitFor(() => expect(told.messages).toHaveLength(12));
  expect(told.messages).toEqual([...texts, 'in three parts', ...texts, 'in three parts']);
  socket.close();
});

test('what it sends is masked and whole, and a ping is answered with its payload', async () => {
  const received: Buffer[] = [];
  const url = await serve((socket, head) => {
    accept(socket, head);
    socket.on('data', (bytes) => received.push(bytes));
    socket.write(frame(0x89, 'are you there'));
  });
  const { socket, told } = open(url);
  await vi.waitFor(() => expect(told.opened).toBe(1));
  await vi.waitFor(() => expect(received).toHaveLength(1));
  expect(unmask(received[0]!)).toEqual({ first: 0x8a, payload: Buffer.from('are you there') });
  for (const length of [1, 200, 70_000]) {
    received.length = 0;
    socket.send('é'.repeat(length));
    await vi.waitFor(() => expect(Buffer.concat(received).length).toBeGreaterThanOrEqual(2 * length + 6));
    expect(unmask(Buffer.concat(received))).toEqual({ first: 0x81, payload: Buffer.from('é'.repeat(length)) });
  }
  socket.close();
});

test('a close of the server is told with code and reason, and answered', async () => {
  const received: Buffer[] = [];
  const url = await serve((socket, head) => {
    accept(socket, head);
    socket.on('data', (bytes) => received.push(bytes));
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(4429);
    socket.write(frame(0x88, Buffer.concat([payload, Buffer.from('retry_after_ms=1500')])));
    socket.on('end', () => socket.end());
  });
  const { told, closed } = open(url);
  await closed();
  expect(told.closed).toMatchObject([{ code: 4429, reason: 'retry_after_ms=1500', wasClean: true }]);
  expect(unmask(received[0]!)).toEqual({ first: 0x88, payload: Buffer.from([0x11, 0x4d]) });
});

test('its own close is answered and told once', async () => {
  const url = await serve((socket, head) => {
    accept(socket, head);
    socket.on('data', (bytes) => {
      socket.write(frame(0x88, unmask(bytes).payload));
      socket.end();
    });
  });
  const { socket, told, closed } = open(url);
  await vi.waitFor(() => expect(told.opened).toBe(1));
  socket.close(1000);
  socket.close(1000);
  socket.send('too late');
  await closed();
  expect(told.closed).toMatchObject([{ code: 1000 }]);
});

test('a connection that just ends is 1006', async () => {
  const url = await serve((socket, head) => {
    accept(socket, head);
    socket.destroy();
  });
  const { told, closed } = open(url);
  await closed();
  expect(told.closed).toMatchObject([{ code: 1006, wasClean: false }]);
});

test.each([
  ['429 Too Many', 'Retry-After: 7\r\n', '{"code":"TOO_MANY_CONNECTIONS","error":"x"}', { status: 429, code: 'TOO_MANY_CONNECTIONS', stop: false, retryAfterMs: 7_000 }],
  ['503 Unavailable', 'Retry-After: 2\r\n', '{"code":"DRAINING","error":"x"}', { status: 503, code: 'DRAINING', stop: false, retryAfterMs: 2_000 }],
  ['401 Unauthorized', '', '{"code":"UNAUTHENTICATED"}', { status: 401, code: 'UNAUTHENTICATED', stop: false }],
  ['401 Unauthorized', '', '{"code":"REVOKED"}', { status: 401, code: 'REVOKED', stop: true }],
  ['403 Forbidden', '', 'no json', { status: 403, code: 'FORBIDDEN', stop: true }],
  ['400 Bad', '', '', { status: 400, code: 'INVALID', stop: true }],
  ['431 Too Large', '', '{"code":7}', { status: 431, code: 'INVALID', stop: true }],
  ['502 Bad Gateway', 'Retry-After: soon\r\n', '<html>', { status: 502, code: 'UNAVAILABLE', stop: false, retryAfterMs: undefined }],
  ['200 OK', '', 'hello', { status: 200, code: 'UNAVAILABLE', stop: false }],
])('refused with %s %s%s', async (status, headers, body, refusal) => {
  const url = await serve((socket) => socket.end(`HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\n${headers}\r\n${body}`));
  const { told, closed } = open(url);
  await closed();
  expect(told.opened).toBe(0);
  expect(told.closed).toMatchObject([{ code: 1006, refusal }]);
});

test('a refusal that never ends is cut off', async () => {
  const url = await serve((socket) => {
    socket.write('HTTP/1.1 503 Unavailable\r\nContent-Length: 999999999\r\n\r\n');
    const more = setInterval(() => socket.write('x'.repeat(32_768)), 1);
    socket.on('close', () => clearInterval(more));
  });
  const { told, closed } = open(url);
  await closed();
  expect(told.closed).toMatchObject([{ refusal: { status: 503 } }]);
});

test.each([
  ['another key', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n'],
  ['no HTTP at all', 'hello\r\n\r\n'],
])('%s in the answer is no WebSocket', async (_, answer) => {
  const url = await serve((socket) => socket.write(answer));
  const { told, closed } = open(url);
  await closed();
  expect(told).toMatchObject({ opened: 0, closed: [{ code: 1006 }] });
});

test('a subprotocol that was not offered is refused', async () => {
  const url = await serve((socket, head) => accept(socket, head, 'Sec-WebSocket-Protocol: other\r\n'));
  const { told, closed } = open(url);
  await closed();
  expect(told.opened).toBe(0);
});

test.each([
  ['reserved bits', frame(0xc1, 'x'), 1002],
  ['a masked frame', Buffer.from([0x81, 0x81, 0, 0, 0, 0, 0x78]), 1002],
  ['an unknown opcode', frame(0x83, 'x'), 1002],
  ['a control frame in parts', frame(0x09, 'x'), 1002],
  ['a long control frame', frame(0x89, 'x'.repeat(126)), 1002],
  ['a continuation of nothing', frame(0x80, 'x'), 1002],
  ['a text in the middle of one', Buffer.concat([frame(0x01, 'x'), frame(0x81, 'y')]), 1002],
  ['bytes', frame(0x82, 'x'), 1003],
  ['text that is not UTF-8', frame(0x81, Buffer.from([0xff])), 1007],
  ['a length beyond all bounds', Buffer.from([0x81, 127, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), 1009],
])('%s ends the connection', async (_, bytes, code) => {
  const url = await serve((socket, head) => {
    accept(socket, head);
    socket.write(bytes);
    socket.on('end', () => socket.end());
    socket.resume();
  });
  const { told, closed } = open(url);
  await closed();
  expect(told.closed).toMatchObject([{ code }]);
  expect(told.messages).toEqual([]);
});

test('nobody there, and closing while connecting, are told once', async () => {
  const nobody = open('ws://127.0.0.1:1/');
  await nobody.closed();
  expect(nobody.told.errors).toHaveLength(1);
  const url = await serve(() => undefined);
  const early = open(url);
  early.socket.close();
  await early.closed();
  expect(early.told.closed).toMatchObject([{ code: 1006 }]);
});

test.each(['http://x/', 'nonsense'])('the address %s throws at once', (url) => {
  expect(() => new NodeWebSocket(url)).toThrow();
});

test('a token that cannot be sent throws at once', () => {
  expect(() => new NodeWebSocket('ws://127.0.0.1:1/', ['pipeward.v1', 'pipeward.token.a b\r\n'])).toThrow();
});
