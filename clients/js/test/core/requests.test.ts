/** What is asked: order, waiting while there is no connection, answers, and that each is settled exactly once. */

import { expect, test, vi } from 'vitest';

import { chance, client, connected, FakeSocket, pass, refused, setUp, settle, watch } from './harness.js';

setUp();

test('a publish is sent as the protocol says and resolved by its reply', async () => {
  const { client: made, socket } = await connected();
  const sent = watch(made.pipe('a').publish('e', { n: 1 }));
  const quiet = watch(made.pipe('a').publish('e', 2, { echo: false }));
  const [first, second] = socket.requests('publish');
  expect(first).toEqual({ type: 'publish', pipe: 'a', event: 'e', data: { n: 1 }, id: first.id });
  expect(second).toEqual({ type: 'publish', pipe: 'a', event: 'e', data: 2, echo: false, id: second.id });
  expect(first.id).not.toBe(second.id);
  socket.say({ type: 'reply', id: second.id, ok: true });
  await settle();
  expect([sent.times, quiet.times]).toEqual([0, 1]);
  socket.say({ type: 'reply', id: first.id, ok: true });
  // A second answer to the same request is nobody's.
  socket.say({ type: 'reply', id: first.id, ok: false, code: 'INTERNAL', error: 'x' });
  await settle();
  expect(sent).toEqual({ times: 1, value: undefined, error: undefined });
});

test('a refusal has the code, a sentence and the delay', async () => {
  const { client: made, socket } = await connected();
  const sent = watch(made.pipe('a').publish('e', 1));
  socket.answer('publish', { ok: false, code: 'RATE_LIMITED', error: 'Too many requests; try again later', retry_after_ms: 250 });
  await settle();
  expect(sent.error).toMatchObject({ name: 'PipewardError', code: 'RATE_LIMITED', message: 'Too many requests; try again later', retryAfterMs: 250 });
});

test('every other request', async () => {
  const { client: made, socket } = await connected();
  const action = watch(made.action('greet', { to: 'ben' }));
  const queued = watch(made.enqueue('jobs', [1]));
  const pushed = watch(made.push({ user: 'ben' }, 'note', 'hi'));
  const members = watch(made.pipe('a').presence());
  expect(socket.sent.map(({ id: _, ...rest }) => rest)).toEqual([
    { type: 'action', name: 'greet', args: { to: 'ben' } },
    { type: 'enqueue', queue: 'jobs', data: [1] },
    { type: 'push', to: { user: 'ben' }, event: 'note', data: 'hi' },
    { type: 'presence', pipe: 'a' },
  ]);
  socket.answer('action', { result: { hello: 'ben' } });
  socket.answer('enqueue');
  socket.answer('push', refused('NOT_CONNECTED'));
  socket.answer('presence', { members: [{ user: 'ann', connections: 2 }, 'nonsense'], total: 1 });
  await settle();
  expect(action.value).toEqual({ hello: 'ben' });
  expect(queued.times).toBe(1);
  expect(pushed.error?.code).toBe('NOT_CONNECTED');
  expect(members.value).toEqual([{ user: 'ann', connections: 2 }]);
});

test('an answer that does not come is a TIMEOUT, once', async () => {
  const { client: made, socket } = await connected({ timeoutMs: 3_000 });
  const sent = watch(made.action('slow'));
  await pass(2_999);
  expect(sent.times).toBe(0);
  await pass(1);
  expect(sent).toMatchObject({ times: 1, error: { code: 'TIMEOUT' } });
  socket.answer('action', { result: 1 });
  socket.end(1006);
  await settle();
  expect(sent.times).toBe(1);
});

test('what is asked offline goes out in order, behind the subscriptions', async () => {
  const { client: made } = client();
  made.pipe('a').on('e', () => undefined);
  const sent = [1, 2, 3].map((n) => watch(made.pipe('a').publish('e', n)));
  void made.action('x').catch(() => undefined);
  await settle();
  const socket = FakeSocket.last.welcome();
  expect(socket.sent.map(({ type, data }) => [type, data])).toEqual([['subscribe', undefined], ['publish', 1], ['publish', 2], ['publish', 3], ['action', undefined]]);
  for (const { id } of socket.requests('publish')) socket.say({ type: 'reply', id, ok: true });
  await settle();
  expect(sent.map(({ times, error }) => [times, error])).toEqual([[1, undefined], [1, undefined], [1, undefined]]);
});

test('what is asked while reconnecting stays in order with what is asked after it', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  socket.end(1006);
  void made.pipe('a').publish('e', 1).catch(() => undefined);
  await pass(1);
  const next = FakeSocket.last.welcome();
  void made.pipe('a').publish('e', 2).catch(() => undefined);
  expect(next.requests('publish').map(({ data }) => data)).toEqual([1, 2]);
});

test('at most 100 wait, the next is told at once', async () => {
  const { client: made } = client();
  const sent = Array.from({ length: 101 }, (_, n) => watch(made.pipe('a').publish('e', n)));
  await settle();
  expect(sent.filter(({ times }) => times > 0)).toHaveLength(1);
  expect(sent[100]).toMatchObject({ times: 1, error: { code: 'OFFLINE' } });
  const socket = FakeSocket.last.welcome();
  expect(socket.requests('publish').map(({ data }) => data)).toEqual(Array.from({ length: 100 }, (_, n) => n));
});

test('they wait for 30 s each, and one that is late is not sent', async () => {
  chance(0);
  const { client: made } = client();
  const first = watch(made.pipe('a').publish('e', 1));
  await pass(10_000);
  const second = watch(made.pipe('a').publish('e', 2));
  await pass(19_999);
  expect(first.times).toBe(0);
  await pass(1);
  expect(first).toMatchObject({ times: 1, error: { code: 'OFFLINE' } });
  expect(second.times).toBe(0);
  await pass(10);
  expect(FakeSocket.last.welcome().requests('publish').map(({ data }) => data)).toEqual([2]);
});

test('the bounds of waiting can be set', async () => {
  const { client: made } = client({ offline: { max: 1, ttlMs: 50 } });
  const [first, second] = [watch(made.pipe('a').publish('e', 1)), watch(made.pipe('a').publish('e', 2))];
  await settle();
  expect([first.times, second.times]).toEqual([0, 1]);
  await pass(50);
  expect(first.error?.code).toBe('OFFLINE');
});

test('what was sent and not answered when the connection ends has an unknown fate, and is not sent again', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  const sent = watch(made.pipe('a').publish('e', 1));
  socket.end(1006);
  await pass(1);
  expect(sent).toMatchObject({ times: 1, error: { code: 'INTERRUPTED' } });
  expect(FakeSocket.last.welcome().requests('publish')).toEqual([]);
});

test('a socket that is closing takes nothing: it waits for the next', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  socket.readyState = 2;
  const sent = watch(made.pipe('a').publish('e', 1));
  socket.end(1006);
  await pass(1);
  expect(sent.times).toBe(0);
  expect(FakeSocket.last.welcome().requests('publish')).toHaveLength(1);
});

test('close() rejects all that waits, sent or not', async () => {
  const { client: made, socket } = await connected();
  const inFlight = watch(made.action('a'));
  socket.readyState = 2;
  const waiting = watch(made.action('b'));
  made.close();
  await settle();
  expect(inFlight).toMatchObject({ times: 1, error: { code: 'INTERRUPTED' } });
  expect(waiting).toMatchObject({ times: 1, error: { code: 'CLOSED' } });
  const later = watch(made.action('c'));
  await settle();
  expect(later).toMatchObject({ times: 1, error: { code: 'CLOSED' } });
});

test('throttled: requests wait for the stated time and then go in order', async () => {
  const throttled = vi.fn();
  const { client: made, socket } = await connected({ onThrottled: throttled });
  socket.say({ type: 'system', event: 'throttled', retry_after_ms: 400 });
  expect(throttled).toHaveBeenCalledWith(400);
  void made.pipe('a').publish('e', 1).catch(() => undefined);
  void made.pipe('a').publish('e', 2).catch(() => undefined);
  await pass(399);
  expect(socket.requests('publish')).toEqual([]);
  await pass(1);
  expect(socket.requests('publish').map(({ data }) => data)).toEqual([1, 2]);
});

test('throttled again while throttled: the longer wait counts, and a new connection begins without', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  socket.say({ type: 'system', event: 'throttled', retry_after_ms: 400 });
  await pass(300);
  socket.say({ type: 'system', event: 'throttled', retry_after_ms: 9_000 });
  const sent = watch(made.pipe('a').publish('e', 1));
  await pass(399);
  expect(socket.requests('publish')).toEqual([]);
  socket.end(1006);
  await pass(1);
  FakeSocket.last.welcome();
  expect(FakeSocket.last.requests('publish')).toHaveLength(1);
  expect(sent.times).toBe(0);
});

test('no more than 1,024 are under way; what follows waits for answers', async () => {
  const { client: made, socket } = await connected();
  const sent = Array.from({ length: 1_030 }, (_, n) => watch(made.pipe('a').publish('e', n)));
  expect(socket.requests('publish')).toHaveLength(1_024);
  for (const { id } of socket.requests('publish').slice(0, 10)) socket.say({ type: 'reply', id, ok: true });
  expect(socket.requests('publish').map(({ data }) => data)).toEqual(Array.from({ length: 1_030 }, (_, n) => n));
  await settle();
  expect(sent.filter(({ times }) => times === 1)).toHaveLength(10);
});

test('those that are never answered make room when their time is over, and at the end of the connection', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  for (let n = 0; n < 1_024; n += 1) void made.pipe('a').publish('e', n).catch(() => undefined);
  await pass(1_000);
  const next = watch(made.pipe('a').publish('e', 'next'));
  await pass(14_000);
  expect(socket.requests('publish').at(-1).data).toBe('next');
  expect(next.times).toBe(0);
  for (let n = 0; n < 1_023; n += 1) void made.pipe('a').publish('e', n).catch(() => undefined);
  socket.end(1006);
  await pass(1);
  FakeSocket.last.welcome();
  void made.pipe('a').publish('e', 'after').catch(() => undefined);
  expect(FakeSocket.last.requests('publish').map(({ data }) => data)).toEqual(['after']);
});

test('a message over the limit of the server is not sent: it would end the connection', async () => {
  const { client: made, socket } = await connected({}, { limits: { message_bytes: 200 } });
  // Three bytes each in UTF-8, one unit of the string.
  const long = watch(made.pipe('a').publish('e', '€'.repeat(60)));
  const short = watch(made.pipe('a').publish('e', 'x'.repeat(60)));
  await settle();
  expect(long).toMatchObject({ times: 1, error: { code: 'PAYLOAD_TOO_LARGE' } });
  expect(short.times).toBe(0);
  expect(socket.requests('publish')).toHaveLength(1);
});

test('what is no JSON is refused here', async () => {
  const { client: made, socket } = await connected();
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  for (const data of [circle, { n: 1n }]) await expect(made.pipe('a').publish('e', data)).rejects.toMatchObject({ code: 'INVALID' });
  expect(socket.sent).toEqual([]);
});

test('what is asked is what it was when it was asked', async () => {
  const { client: made } = client();
  const data = { text: 'before' };
  void made.pipe('a').publish('e', data).catch(() => undefined);
  data.text = 'after';
  await settle();
  expect(FakeSocket.last.welcome().requests('publish')[0].data).toEqual({ text: 'before' });
});

test('every promise is settled exactly once, whatever order things happen in', async () => {
  // A small generator of its own: a failure is the same at every run.
  for (let seed = 1; seed <= 60; seed += 1) {
    let state = seed * 2_654_435_761;
    const pick = (below: number) => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) % below;
    FakeSocket.all = [];
    const { client: made } = client({ getToken: () => (pick(8) ? 't' : Promise.reject(new Error('down'))), offline: { max: 5, ttlMs: 2_000 }, timeoutMs: 1_500 });
    const seen: ReturnType<typeof watch>[] = [];
    for (let step = 0; step < 80; step += 1) {
      const socket = FakeSocket.all.at(-1);
      const deed = pick(12);
      if (deed === 0) seen.push(watch<unknown>(made.pipe('a').publish('e', step)));
      else if (deed === 1) seen.push(watch<unknown>(made.action('x')));
      else if (deed === 2) seen.push(watch<unknown>(made.refreshPipeAuth()));
      else if (deed === 3) seen.push(watch<unknown>(made.pipe('a').presence()));
      else if (deed === 4) socket?.welcome({ expires_at: Date.now() + pick(20_000) });
      else if (deed === 5) socket?.end([1006, 4401, 4429, 4503, 1011][pick(5)]!);
      else if (deed === 6) made.connect();
      else if (deed === 7 && pick(4) === 0) made.close();
      else if (deed === 8 && socket && socket.sent.length > 0) socket.say({ type: 'reply', id: socket.sent[pick(socket.sent.length)].id, ok: pick(2) === 0, code: 'RATE_LIMITED', error: '' });
      else if (deed === 9) socket?.say({ type: 'system', event: 'throttled', retry_after_ms: pick(3_000) });
      else if (deed === 10) made.pipe(`p${pick(3)}`).on('e', () => undefined);
      else await pass(pick(3_000));
    }
    made.close();
    await pass(60_000);
    expect(seen.map(({ times }) => times), `seed ${seed}`).toEqual(seen.map(() => 1));
    expect(vi.getTimerCount(), `seed ${seed}`).toBe(0);
  }
});

test('a machine that slept stops timers too: what waited longer than it may is not sent', async () => {
  chance(0);
  const { client: made } = client();
  const late = watch(made.pipe('a').publish('e', 'before the sleep'));
  await pass(1_000);
  vi.setSystemTime(Date.now() + 3_600_000);
  const fresh = watch(made.pipe('a').publish('e', 'after'));
  const socket = FakeSocket.last.welcome();
  expect(socket.requests('publish').map(({ data }) => data)).toEqual(['after']);
  await settle();
  expect(late).toMatchObject({ times: 1, error: { code: 'OFFLINE' } });
  expect(fresh.times).toBe(0);
  await pass(30_000);
  expect(late.times).toBe(1);
});

test('what a handler asks as an answer makes room does not overtake what waits', async () => {
  const { client: made, socket } = await connected();
  made.pipe('a').onStatus((status) => status === 'subscribed' && void made.pipe('b').publish('e', 'last').catch(() => undefined));
  made.pipe('a').on('e', () => undefined);
  await settle();
  for (let n = 0; n < 1_024; n += 1) void made.pipe('b').publish('e', n).catch(() => undefined);
  socket.subscribed();
  expect(socket.requests('publish').map(({ data }) => data)).toEqual(Array.from({ length: 1_024 }, (_, n) => n));
});
