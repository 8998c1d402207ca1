/** A connection that died without a word: silence, a laptop that slept, a network that went and came. */

import { beforeEach, expect, test, vi } from 'vitest';

import { chance, client, connected, FakeSocket, pass, setUp, settle } from './harness.js';

setUp();

let scope: EventTarget;
let page: EventTarget & { visibilityState: string };
beforeEach(() => {
  FakeSocket.silent = true;
  scope = new EventTarget();
  page = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  vi.stubGlobal('addEventListener', scope.addEventListener.bind(scope));
  vi.stubGlobal('removeEventListener', scope.removeEventListener.bind(scope));
  vi.stubGlobal('document', page);
});

const pings = (socket: FakeSocket) => socket.requests('ping').length;

test('after ping_s of silence it asks, and an answer is enough', async () => {
  const { client: made, socket } = await connected({}, { ping_s: 10 });
  await pass(9_999);
  expect(pings(socket)).toBe(0);
  await pass(1);
  expect(pings(socket)).toBe(1);
  socket.say({ type: 'pong' });
  await pass(9_999);
  expect(pings(socket)).toBe(1);
  await pass(1);
  expect(pings(socket)).toBe(2);
  expect(made.status).toBe('connected');
});

test.each([1e300, -5, 0, null, '25'])('a ping_s of %s is no reason to ask without end', async (ping_s) => {
  const { socket } = await connected({}, { ping_s });
  await pass(900);
  expect(pings(socket)).toBe(0);
});

test('whatever arrives counts as a sign of life, even what is not understood', async () => {
  const { socket } = await connected({}, { ping_s: 10 });
  for (let n = 0; n < 10; n += 1) {
    await pass(5_000);
    socket.raw('{');
  }
  expect(pings(socket)).toBe(0);
  await pass(10_000);
  expect(pings(socket)).toBe(1);
});

test('no answer: it gives the connection up and makes another', async () => {
  chance(0);
  const { client: made, told, socket } = await connected({}, { ping_s: 10 });
  await pass(10_000);
  await pass(7_999);
  expect(made.status).toBe('connected');
  await pass(1);
  expect(told.statuses.at(-1)).toMatchObject({ status: 'reconnecting', detail: { closeCode: 1006 } });
  expect(socket.closedWith).toBe(1000);
  await pass(1);
  FakeSocket.last.welcome();
  expect(made.status).toBe('connected');
  // The old one may come to itself; nobody listens any more.
  socket.end(4402);
  expect(made.status).toBe('connected');
});

test('a laptop that slept asks as soon as its timer comes late', async () => {
  const { socket } = await connected({}, { ping_s: 25 });
  await pass(10_000);
  socket.say({ type: 'pong' });
  // The clock jumps, the timers did not run meanwhile.
  vi.setSystemTime(Date.now() + 3_600_000);
  await pass(15_000);
  expect(pings(socket)).toBe(1);
});

test('a short sleep shows in a timer that comes late', async () => {
  const { socket } = await connected({}, { ping_s: 25 });
  await pass(20_000);
  socket.say({ type: 'pong' });
  vi.setSystemTime(Date.now() + 10_000);
  await pass(5_000);
  expect(pings(socket)).toBe(1);
});

test('a laptop that slept over its question asks again instead of giving up', async () => {
  const { client: made, socket } = await connected({}, { ping_s: 10 });
  await pass(10_000);
  vi.setSystemTime(Date.now() + 3_600_000);
  await pass(8_000);
  expect(made.status).toBe('connected');
  expect(pings(socket)).toBe(2);
  await pass(8_000);
  expect(made.status).toBe('reconnecting');
});

test('a clock that is set back does not silence it for hours', async () => {
  const { socket } = await connected({}, { ping_s: 10 });
  vi.setSystemTime(Date.now() - 3_600_000);
  await pass(10_000);
  expect(pings(socket)).toBe(1);
});

test.each([
  ['online', () => scope.dispatchEvent(new Event('online'))],
  ['offline', () => scope.dispatchEvent(new Event('offline'))],
  ['pageshow', () => scope.dispatchEvent(new Event('pageshow'))],
  ['visible again', () => page.dispatchEvent(new Event('visibilitychange'))],
  ['resume', () => page.dispatchEvent(new Event('resume'))],
])('%s makes it ask at once, and once', async (_, happen) => {
  const { socket } = await connected();
  happen();
  happen();
  expect(pings(socket)).toBe(1);
});

test('a page that is hidden is no reason to ask', async () => {
  const { socket } = await connected();
  page.visibilityState = 'hidden';
  page.dispatchEvent(new Event('visibilitychange'));
  expect(pings(socket)).toBe(0);
});

test('online ends a long backoff, within a second and not all at once', async () => {
  chance(0.5);
  const { client: made } = client();
  made.connect();
  for (let n = 0; n < 8; n += 1) {
    await settle();
    FakeSocket.last.end(1006);
    if (n < 7) await pass(15_001);
  }
  const before = FakeSocket.all.length;
  scope.dispatchEvent(new Event('online'));
  await pass(499);
  expect(FakeSocket.all).toHaveLength(before);
  await pass(1);
  expect(FakeSocket.all).toHaveLength(before + 1);
});

test('online does not put off an attempt that is due sooner', async () => {
  chance(0.1);
  const { socket } = await connected();
  socket.end(1006);
  chance(0.9);
  scope.dispatchEvent(new Event('online'));
  await pass(101);
  expect(FakeSocket.all).toHaveLength(2);
});

test('online also in a page that nobody looks at', async () => {
  chance(0.5);
  page.visibilityState = 'hidden';
  const { socket } = await connected();
  socket.end(1006);
  scope.dispatchEvent(new Event('online'));
  await pass(501);
  expect(FakeSocket.all).toHaveLength(2);
});

test('online does not bring forward what the server has asked for', async () => {
  const { socket } = await connected();
  socket.end(4429, 'retry_after_ms=20000');
  scope.dispatchEvent(new Event('online'));
  await pass(19_999);
  expect(FakeSocket.all).toHaveLength(1);
  await pass(2_100);
  expect(FakeSocket.all).toHaveLength(2);
});

test('online during an attempt does not make a second one', async () => {
  const { client: made } = client({ getToken: () => new Promise(() => undefined) });
  made.connect();
  scope.dispatchEvent(new Event('online'));
  await pass(1_500);
  expect(made.status).toBe('connecting');
  expect(FakeSocket.all).toHaveLength(0);
});

test('offline is no reason to try', async () => {
  chance(0.999);
  const { socket } = await connected();
  socket.end(4413);
  scope.dispatchEvent(new Event('offline'));
  await pass(1_500);
  expect(FakeSocket.all).toHaveLength(1);
});

test('after waking a renewal that is overdue is made up for at once', async () => {
  chance(0);
  const getToken = vi.fn(() => 't');
  const { socket } = await connected({ getToken }, { expires_at: Date.now() + 3_600_000 });
  vi.setSystemTime(Date.now() + 3_000_000);
  page.dispatchEvent(new Event('visibilitychange'));
  await settle();
  expect(socket.requests('refresh')).toHaveLength(1);
});

test('it listens to the page while it is used, and no longer', async () => {
  const removed = vi.spyOn(page, 'removeEventListener');
  const { client: made, socket } = await connected();
  made.close();
  expect(removed).toHaveBeenCalledTimes(2);
  scope.dispatchEvent(new Event('online'));
  expect(pings(socket)).toBe(0);
});
