/** Every way in which a connection ends, and what follows: docs/protocol.md, "Close codes". */

import { expect, test, vi } from 'vitest';

import { chance, client, connected, FakeSocket, pass, setUp, settle } from './harness.js';

setUp();

const last = (told: { statuses: { status: string; detail: object }[] }) => told.statuses.at(-1);

// What the client does after each code at once after a stable connection: [least, most] milliseconds until it tries again.
test.each([
  [1001, '', 0, 1_000, 'UNAVAILABLE'],
  [1005, '', 0, 1_000, 'UNAVAILABLE'],
  [1006, '', 0, 1_000, 'UNAVAILABLE'],
  [1011, '', 0, 4_000, 'UNAVAILABLE'],
  [1012, '', 0, 1_000, 'UNAVAILABLE'],
  [4401, 'expired', 0, 1_000, 'UNAUTHENTICATED'],
  [4408, 'no answer to ping', 0, 1_000, 'TIMEOUT'],
  [4413, 'too slow', 0, 4_000, 'OVERLOADED'],
  [4429, 'retry_after_ms=8000', 8_000, 8_800, 'RATE_LIMITED'],
  [4429, 'nonsense', 10_000, 11_000, 'RATE_LIMITED'],
  [4503, 'retry_after_ms=30000', 0, 30_000, 'DRAINING'],
  [4503, '', 0, 5_000, 'DRAINING'],
  [4999, 'of the future', 0, 1_000, 'UNAVAILABLE'],
])('%i %s: again after %i to %i ms', async (code, reason, least, most, errorCode) => {
  for (const [share, inMs] of [[0, least], [0.999999, most]] as const) {
    FakeSocket.all = [];
    chance(share);
    const { client: made, told, socket } = await connected();
    await pass(6_000);
    socket.end(code, reason);
    expect(last(told)).toMatchObject({ status: 'reconnecting', detail: { closeCode: code, error: { code: errorCode, status: code } } });
    const { retryInMs } = last(told)!.detail as { retryInMs: number };
    expect(retryInMs).toBeGreaterThanOrEqual(inMs * 0.9999 - 1);
    expect(retryInMs).toBeLessThanOrEqual(inMs);
    await pass(Math.max(0, retryInMs - 1));
    if (retryInMs >= 1) expect(FakeSocket.all).toHaveLength(1);
    await pass(2);
    expect(FakeSocket.all).toHaveLength(2);
    made.close();
  }
});

test.each([
  [1000, 'CLOSED'],
  [1002, 'INVALID'],
  [1003, 'INVALID'],
  [1007, 'INVALID'],
  [1009, 'PAYLOAD_TOO_LARGE'],
  [4402, 'REVOKED'],
  [4403, 'FORBIDDEN'],
])('%i: never again by itself, whatever happens', async (code, errorCode) => {
  const page = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  const scope = new EventTarget();
  vi.stubGlobal('document', page);
  vi.stubGlobal('addEventListener', scope.addEventListener.bind(scope));
  vi.stubGlobal('removeEventListener', scope.removeEventListener.bind(scope));
  const getToken = vi.fn(() => 't');
  const { client: made, told, socket } = await connected({ getToken });
  made.pipe('a').on('e', () => undefined);
  socket.end(code, 'x');
  expect(last(told)).toMatchObject({ status: 'disconnected', detail: { closeCode: code, error: { code: errorCode } } });
  scope.dispatchEvent(new Event('online'));
  page.dispatchEvent(new Event('visibilitychange'));
  made.pipe('b').on('e', () => undefined);
  made.onPush('e', () => undefined);
  await expect(made.pipe('a').publish('e', 1)).rejects.toMatchObject({ code: 'CLOSED' });
  await expect(made.refreshPipeAuth()).rejects.toMatchObject({ code: 'CLOSED' });
  await pass(3_600_000);
  expect(FakeSocket.all).toHaveLength(1);
  expect(getToken).toHaveBeenCalledTimes(1);
  expect(vi.getTimerCount()).toBe(0);
  // Only when the application says so.
  made.connect();
  await settle();
  FakeSocket.last.welcome();
  expect(made.status).toBe('connected');
  expect(FakeSocket.last.requests('subscribe')[0].pipes).toEqual(['a', 'b']);
});

test('the backoff is full jitter, doubles to 30 s, and begins anew only after a connection that lasted', async () => {
  chance(0.999999);
  const { client: made, told } = client();
  made.connect();
  const waits: number[] = [];
  for (let attempt = 0; attempt < 8; attempt += 1) {
    await settle();
    FakeSocket.last.end(1006);
    const { retryInMs } = last(told)!.detail as { retryInMs: number };
    waits.push(Math.round(retryInMs));
    await pass(retryInMs + 1);
  }
  expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  // A welcome alone proves little: one that is closed at once goes on waiting longer.
  FakeSocket.last.welcome().end(1006);
  expect(last(told)?.detail).toMatchObject({ retryInMs: expect.closeTo(30_000, -1) });
  await pass(30_001);
  FakeSocket.last.welcome();
  await pass(5_000);
  FakeSocket.last.end(1006);
  expect(last(told)?.detail).toMatchObject({ retryInMs: expect.closeTo(1_000, -1) });
});

test('full jitter means from zero', async () => {
  chance(0);
  const { client: made, told } = client();
  made.connect();
  await settle();
  FakeSocket.last.end(1006);
  expect(last(told)?.detail).toMatchObject({ retryInMs: 0 });
});

test('4401 comes back with a new token', async () => {
  chance(0);
  let count = 0;
  const { socket } = await connected({ getToken: () => `t${(count += 1)}` });
  socket.end(4401, 'expired');
  await pass(1);
  expect(FakeSocket.last.protocols[1]).toBe('pipeward.token.t2');
});

test('what draining said holds where the close says nothing, also for a connection that just breaks', async () => {
  chance(0.5);
  for (const code of [4503, 1006]) {
    const { told, socket } = await connected();
    socket.say({ type: 'system', event: 'draining', reconnect_in_ms: 20_000 });
    socket.end(code);
    expect(last(told)?.detail).toMatchObject({ retryInMs: 10_000 });
  }
});

test('what draining said is over with its connection', async () => {
  chance(0.5);
  const { told, socket } = await connected();
  socket.say({ type: 'system', event: 'draining', reconnect_in_ms: 20_000 });
  socket.end(4503);
  await pass(10_001);
  FakeSocket.last.end(1006);
  expect((last(told)!.detail as { retryInMs: number }).retryInMs).toBeLessThanOrEqual(2_000);
});

test('an absurd delay is bounded by what a timer can hold', async () => {
  const { told, socket } = await connected();
  socket.end(4429, 'retry_after_ms=99999999999999');
  expect((last(told)!.detail as { retryInMs: number }).retryInMs).toBeLessThan(2 ** 31);
  await pass(1_000_000);
  expect(FakeSocket.all).toHaveLength(1);
});

test('connect() while it waits changes nothing, close() ends the wait', async () => {
  const { client: made, socket } = await connected();
  socket.end(4429, 'retry_after_ms=8000');
  made.connect();
  await pass(7_999);
  expect(FakeSocket.all).toHaveLength(1);
  made.close();
  await pass(60_000);
  expect(FakeSocket.all).toHaveLength(1);
});

// Where the WebSocket class tells of a refused handshake (pipeward/node).
test.each([
  [429, 'TOO_MANY_CONNECTIONS', false, 9_000, 9_000, 9_900],
  [503, 'DRAINING', false, 3_000, 3_000, 3_300],
  [401, 'UNAUTHENTICATED', false, undefined, 0, 1_000],
])('a handshake refused with %i is tried again after Retry-After', async (status, code, stop, retryAfterMs, least, most) => {
  for (const [share, inMs] of [[0, least], [0.999999, most]] as const) {
    chance(share);
    const { client: made, told } = client({ getToken: () => 't' });
    made.connect();
    await settle();
    FakeSocket.last.end(1006, '', { status, code, message: 'no', stop, retryAfterMs });
    expect(last(told)).toMatchObject({ status: 'reconnecting', detail: { error: { code, status } } });
    expect((last(told)!.detail as { retryInMs: number }).retryInMs).toBeCloseTo(inMs, -1);
    made.close();
  }
});

test.each([
  [403, 'FORBIDDEN', true],
  [401, 'REVOKED', true],
  [400, 'INVALID', true],
])('a handshake refused with %i %s is not tried again', async (status, code, stop) => {
  const { client: made, told } = client({ getToken: () => 't' });
  made.connect();
  await settle();
  FakeSocket.last.end(1006, '', { status, code, message: 'no', stop });
  expect(last(told)).toMatchObject({ status: 'disconnected', detail: { error: { code, status } } });
  await pass(600_000);
  expect(FakeSocket.all).toHaveLength(1);
});

test('401 without a source of tokens stays 401', async () => {
  const { client: made } = client();
  made.connect();
  await settle();
  FakeSocket.last.end(1006, '', { status: 401, code: 'UNAUTHENTICATED', message: 'no', stop: false });
  expect(made.status).toBe('disconnected');
});

test('what an ended connection still says is not heard', async () => {
  chance(0);
  const { client: made, told, socket } = await connected();
  socket.end(1006);
  socket.end(4402);
  socket.say({ type: 'system', event: 'all_pipes_revoked' });
  expect(told.allRevoked).toBe(0);
  expect(made.status).toBe('reconnecting');
  await pass(1);
  expect(FakeSocket.all).toHaveLength(2);
});
