/** Pipes: which are subscribed to, what the application is told, and what comes back by itself. */

import { expect, test, vi } from 'vitest';

import { chance, client, connected, FakeSocket, pass, refused, setUp, settle, watch } from './harness.js';

setUp();

const event = (pipe: string, name = 'e', data: unknown = 1) => ({ type: 'event', pipe, event: name, data, sender: 'ben', ts: 5 });

test('the first handler subscribes, the last one to go unsubscribes', async () => {
  const { client: made, socket } = await connected();
  const [one, other] = [made.pipe('a'), made.pipe('a')];
  const off = one.on('e', () => undefined);
  const offOther = other.onAny(() => undefined);
  await settle();
  expect(socket.requests('subscribe')).toMatchObject([{ pipes: ['a'] }]);
  socket.subscribed();
  off();
  off();
  await settle();
  expect(socket.requests('unsubscribe')).toEqual([]);
  offOther();
  expect(one.status).toBe('idle');
  await settle();
  expect(socket.requests('unsubscribe')).toMatchObject([{ pipes: ['a'] }]);
});

test('handlers get the event as one object, in the order in which they were added', async () => {
  const { client: made, socket } = await connected();
  const heard: unknown[] = [];
  made.pipe('a').on('e', (message) => heard.push(['first', message]));
  made.pipe('a').on('f', () => heard.push('wrong'));
  made.pipe('a').onAny((message) => heard.push(['any', message.event]));
  await settle();
  socket.subscribed();
  socket.say({ ...event('a'), future: true });
  socket.say(event('b'));
  expect(heard).toEqual([['first', { pipe: 'a', event: 'e', data: 1, sender: 'ben', ts: 5 }], ['any', 'e']]);
});

test('one handler added twice is called twice, and each addition ends by itself', async () => {
  const { client: made, socket } = await connected();
  const handler = vi.fn();
  const off = made.pipe('a').on('e', handler);
  made.pipe('a').on('e', handler);
  await settle();
  socket.subscribed();
  socket.say(event('a'));
  expect(handler).toHaveBeenCalledTimes(2);
  off();
  socket.say(event('a'));
  expect(handler).toHaveBeenCalledTimes(3);
});

test('a handler that is taken off by one before it is not called', async () => {
  const { client: made, socket } = await connected();
  const late = vi.fn();
  made.pipe('a').on('e', () => off());
  const off = made.pipe('a').on('e', late);
  await settle();
  socket.subscribed();
  socket.say(event('a'));
  expect(late).not.toHaveBeenCalled();
});

test('leave() takes off the handlers of that handle only', async () => {
  const { client: made, socket } = await connected();
  const [mine, theirs] = [made.pipe('a'), made.pipe('a')];
  mine.on('e', () => undefined);
  mine.onPresence(() => undefined);
  theirs.on('e', () => undefined);
  await settle();
  socket.subscribed();
  mine.leave();
  await settle();
  expect(socket.requests('unsubscribe')).toEqual([]);
  // Presence was only this handle's.
  socket.subscribed();
  theirs.leave();
  await settle();
  expect(socket.requests('unsubscribe')).toHaveLength(1);
});

test('leaving and coming back within one turn costs nothing and stays subscribed', async () => {
  const { client: made, socket } = await connected();
  const pipe = made.pipe('a');
  const off = pipe.on('e', () => undefined);
  await settle();
  socket.subscribed();
  off();
  pipe.on('e', () => undefined);
  await settle();
  expect(socket.sent).toHaveLength(1);
  expect(pipe.status).toBe('subscribed');
  await pipe.subscribed;
});

test('coming back while the leaving is under way subscribes again after it', async () => {
  const { client: made, socket } = await connected();
  const pipe = made.pipe('a');
  const off = pipe.on('e', () => undefined);
  await settle();
  socket.subscribed();
  off();
  await settle();
  pipe.on('e', () => undefined);
  await settle();
  expect(pipe.status).toBe('subscribing');
  expect(socket.requests('subscribe')).toHaveLength(1);
  socket.answer('unsubscribe', { results: { a: { ok: true } } });
  await settle();
  expect(socket.requests('subscribe')).toHaveLength(2);
  socket.subscribed();
  expect(pipe.status).toBe('subscribed');
});

test('leaving while the subscribing is under way unsubscribes after it', async () => {
  const { client: made, socket } = await connected();
  const statuses = vi.fn();
  made.pipe('a').onStatus(statuses);
  const off = made.pipe('a').on('e', () => undefined);
  await settle();
  off();
  await settle();
  expect(socket.requests('unsubscribe')).toEqual([]);
  socket.subscribed();
  await settle();
  expect(socket.requests('unsubscribe')).toHaveLength(1);
  expect(statuses.mock.calls.map(([status]) => status)).toEqual(['subscribing', 'idle']);
});

test('ending the same thing twice does not end what came after it', async () => {
  const { client: made, socket } = await connected();
  const heard = vi.fn();
  const off = made.pipe('a').on('e', () => undefined);
  off();
  made.pipe('a').on('e', heard);
  off();
  await settle();
  socket.subscribed();
  socket.say(event('a'));
  expect(heard).toHaveBeenCalledTimes(1);
});

test('after a reconnect all are subscribed to again in one message', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  const names = Array.from({ length: 200 }, (_, n) => `pipe-${n}`);
  for (const name of names) made.pipe(name).on('e', () => undefined);
  await settle();
  expect(socket.requests('subscribe')).toMatchObject([{ pipes: names }]);
  socket.subscribed();
  socket.end(1006);
  expect(made.pipe('pipe-7').status).toBe('subscribing');
  await pass(1);
  const next = FakeSocket.last.welcome();
  expect(next.sent).toMatchObject([{ type: 'subscribe', pipes: names }]);
  next.subscribed();
  expect(made.pipe('pipe-7').status).toBe('subscribed');
});

test('256 pipes to a message, fewer where messages must be short, and those left meanwhile are not asked for', async () => {
  const { client: made } = client();
  const offs = Array.from({ length: 301 }, (_, n) => made.pipe(`pipe-${n}`).on('e', () => undefined));
  offs[0]!();
  await settle();
  const many = FakeSocket.last.welcome();
  expect(many.requests('subscribe').map(({ pipes }) => pipes.length).sort()).toEqual([256, 44]);
  expect(new Set(many.requests('subscribe').flatMap(({ pipes }) => pipes)).size).toBe(300);
  const { client: other } = client();
  for (let n = 0; n < 30; n += 1) other.pipe('x'.repeat(198) + String(n).padStart(2, '0')).on('e', () => undefined);
  await settle();
  const few = FakeSocket.last.welcome({ limits: { message_bytes: 4_096 } });
  expect(few.requests('subscribe').length).toBeGreaterThan(1);
  for (const message of few.sent) expect(JSON.stringify(message).length).toBeLessThanOrEqual(4_096);
});

test('subscribed is resolved by the confirmation and rejected by the refusal, without being looked at', async () => {
  const { client: made, socket, told } = await connected();
  const [good, bad] = [made.pipe('good'), made.pipe('bad')];
  const early = watch(good.subscribed);
  good.on('e', () => undefined);
  bad.on('e', () => undefined);
  const [goodSeen, badSeen] = [watch(good.subscribed), watch(bad.subscribed)];
  const unseen = made.pipe('bad').subscribed;
  await settle();
  expect([goodSeen.times, badSeen.times]).toEqual([0, 0]);
  socket.subscribed({ bad: refused('FORBIDDEN', { error: 'Access denied' }) });
  await settle();
  expect([early.times, goodSeen.times]).toEqual([1, 1]);
  expect(badSeen).toMatchObject({ times: 1, error: { code: 'FORBIDDEN' } });
  expect(bad).toMatchObject({ status: 'denied', error: { code: 'FORBIDDEN' } });
  expect(told.errors.map(({ code, message }) => [code, message.includes('"bad"')])).toEqual([['FORBIDDEN', true]]);
  await expect(unseen).rejects.toThrow();
});

test('a refusal that nobody looks at is no unhandled rejection', async () => {
  const unhandled = vi.fn();
  process.on('unhandledRejection', unhandled);
  const { client: made, socket } = await connected();
  made.pipe('a').on('e', () => undefined);
  void made.pipe('a').subscribed;
  await settle();
  socket.subscribed({ a: refused('FORBIDDEN') });
  await settle();
  await new Promise((next) => setImmediate(next));
  process.off('unhandledRejection', unhandled);
  expect(unhandled).not.toHaveBeenCalled();
});

test('subscribed does not hang: not when nobody listens any more, not when the client is closed', async () => {
  const { client: made } = await connected();
  const pipe = made.pipe('a');
  const off = pipe.on('e', () => undefined);
  const left = watch(pipe.subscribed);
  off();
  const other = made.pipe('b');
  other.on('e', () => undefined);
  const closed = watch(other.subscribed);
  await settle();
  made.close();
  await settle();
  expect(left).toMatchObject({ times: 1, error: { code: 'CLOSED' } });
  expect(closed).toMatchObject({ times: 1, error: { code: 'CLOSED' } });
  made.connect();
  const again = watch(other.subscribed);
  await settle();
  FakeSocket.last.welcome().subscribed();
  await settle();
  expect(again).toEqual({ times: 1, value: undefined, error: undefined });
});

test('onStatus tells how a pipe stands, and does not subscribe', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  const seen: unknown[] = [];
  made.pipe('a').onStatus((status, error) => seen.push(error ? [status, error.code] : status));
  await settle();
  expect(socket.sent).toEqual([]);
  const off = made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed();
  socket.say({ type: 'system', event: 'pipe_revoked', pipe: 'a' });
  socket.say({ type: 'system', event: 'pipe_restored', pipe: 'a' });
  await settle();
  socket.subscribed();
  socket.end(1006);
  await pass(1);
  FakeSocket.last.welcome().subscribed({ a: refused('FORBIDDEN') });
  off();
  expect(seen).toEqual(['subscribing', 'subscribed', ['revoked', 'REVOKED'], 'subscribed', 'subscribing', ['denied', 'FORBIDDEN'], 'idle']);
});

test('what is denied is not asked again by itself, but after a reconnect, when the grants change, and when asked anew', async () => {
  chance(0);
  const { client: made, socket, told } = await connected();
  const pipe = made.pipe('a');
  pipe.on('e', () => undefined);
  await settle();
  socket.subscribed({ a: refused('FORBIDDEN') });
  await pass(10_000);
  expect(socket.requests('subscribe')).toHaveLength(1);
  socket.say({ type: 'system', event: 'grants_changed', pipes: {}, added: ['a'], removed: [] });
  await settle();
  expect(socket.requests('subscribe')).toHaveLength(2);
  socket.subscribed({ a: refused('FORBIDDEN') });
  const off = pipe.on('f', () => undefined);
  await settle();
  expect(socket.requests('subscribe')).toHaveLength(3);
  socket.subscribed({ a: refused('FORBIDDEN') });
  off();
  pipe.onStatus(() => undefined);
  await settle();
  expect(socket.requests('subscribe')).toHaveLength(3);
  socket.end(1006);
  await pass(1);
  FakeSocket.last.welcome().subscribed();
  expect(pipe.status).toBe('subscribed');
  // The same refusal again is no news, unless somebody has asked anew.
  expect(told.errors).toHaveLength(2);
});

test.each(['RATE_LIMITED', 'OVERLOADED', 'DRAINING', 'UNAVAILABLE', 'TIMEOUT', 'INTERNAL'])('%s says nothing about the right: it is tried again', async (code) => {
  chance(1);
  const { client: made, socket, told } = await connected();
  const pipe = made.pipe('a');
  pipe.on('e', () => undefined);
  await settle();
  socket.subscribed({ a: refused(code, { retry_after_ms: 500 }) });
  expect(pipe.status).toBe('subscribing');
  await pass(1_499);
  expect(socket.requests('subscribe')).toHaveLength(1);
  await pass(1);
  expect(socket.requests('subscribe')).toHaveLength(2);
  socket.subscribed();
  expect(pipe.status).toBe('subscribed');
  expect(told.errors).toEqual([]);
});

test('a refusal of the whole message holds for all of it', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  made.pipe('a').on('e', () => undefined);
  made.pipe('b').on('e', () => undefined);
  await settle();
  socket.answer('subscribe', refused('RATE_LIMITED', { retry_after_ms: 700 }));
  await pass(700);
  expect(socket.requests('subscribe').at(-1).pipes).toEqual(['a', 'b']);
  socket.answer('subscribe', refused('UNAUTHENTICATED'));
  expect([made.pipe('a').status, made.pipe('b').status]).toEqual(['denied', 'denied']);
});

test('a subscribe that is not answered in time is asked again', async () => {
  chance(0);
  const { client: made, socket } = await connected({ timeoutMs: 1_000 });
  made.pipe('a').on('e', () => undefined);
  await pass(1_001);
  expect(socket.requests('subscribe')).toHaveLength(2);
  socket.subscribed();
  expect(made.pipe('a').status).toBe('subscribed');
});

test('an absurd delay is not an endless loop', async () => {
  const { client: made, socket } = await connected();
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed({ a: refused('RATE_LIMITED', { retry_after_ms: 1e300 }) });
  await pass(100_000);
  expect(socket.requests('subscribe')).toHaveLength(1);
});

test('a wait that an earlier connection asked for is over with it', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed({ a: refused('RATE_LIMITED', { retry_after_ms: 500 }) });
  socket.end(1006);
  await pass(1);
  const next = FakeSocket.last.welcome();
  await pass(600);
  expect(next.requests('subscribe')).toHaveLength(1);
});

test('a name that cannot be one is refused here and does not spoil the others', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  for (const name of ['', 'a b', 'team-*', 'x'.repeat(201), 'ü', '{a}']) {
    const pipe = made.pipe(name);
    pipe.on('e', () => undefined);
    expect(pipe, name).toMatchObject({ status: 'denied', error: { code: 'INVALID' } });
  }
  made.pipe('good').on('e', () => undefined);
  await settle();
  expect(socket.requests('subscribe')).toMatchObject([{ pipes: ['good'] }]);
  socket.subscribed();
  socket.say({ type: 'system', event: 'all_pipes_revoked' });
  expect(made.pipe('a b').status).toBe('denied');
  socket.say({ type: 'system', event: 'pipe_restored', pipe: '**' });
  socket.end(1006);
  await pass(1);
  expect(FakeSocket.last.welcome().requests('subscribe')).toMatchObject([{ pipes: ['good'] }]);
});

// ---- revocation (HP-8, HP-9) -----------------------------------------------------------------------------------------

test('a revoked pipe is told once, waits, and comes back with the restore', async () => {
  const { client: made, socket, told } = await connected();
  const heard = vi.fn();
  made.pipe('a').on('e', heard);
  made.pipe('b').on('e', () => undefined);
  await settle();
  socket.subscribed();
  socket.say({ type: 'system', event: 'pipe_revoked', pipe: 'a' });
  expect(told.revoked).toEqual(['a']);
  expect(made.pipe('a')).toMatchObject({ status: 'revoked', error: { code: 'REVOKED' } });
  expect(made.pipe('b').status).toBe('subscribed');
  await pass(10_000);
  expect(socket.requests('subscribe')).toHaveLength(1);
  // The restore of something else: the answer is the same, and no news.
  socket.say({ type: 'system', event: 'pipe_restored', pipe: 'c' });
  await settle();
  socket.subscribed({ a: refused('REVOKED') });
  expect(told.revoked).toEqual(['a']);
  socket.say({ type: 'system', event: 'pipe_restored', pipe: '**' });
  await settle();
  expect(socket.requests('subscribe').at(-1).pipes).toEqual(['a']);
  socket.subscribed();
  expect(made.pipe('a')).toMatchObject({ status: 'subscribed', error: undefined });
  expect(told.restored).toEqual(['c', '**']);
  socket.say(event('a'));
  expect(heard).toHaveBeenCalledTimes(1);
});

test('all pipes revoked is one call, and all of them wait', async () => {
  const { client: made, socket, told } = await connected();
  made.pipe('a').on('e', () => undefined);
  made.pipe('b').on('e', () => undefined);
  await settle();
  socket.subscribed();
  socket.say({ type: 'system', event: 'all_pipes_revoked' });
  expect([told.allRevoked, told.revoked]).toEqual([1, []]);
  expect([made.pipe('a').status, made.pipe('b').status]).toEqual(['revoked', 'revoked']);
});

test('a pipe that was revoked while the client was away is told when it comes back, once', async () => {
  chance(0);
  const { client: made, socket, told } = await connected();
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed();
  for (const expected of [['a'], ['a']]) {
    FakeSocket.last.end(1006);
    await pass(10_000);
    FakeSocket.last.welcome().subscribed({ a: refused('REVOKED') });
    expect(told.revoked).toEqual(expected);
  }
  expect(told.errors).toEqual([]);
});

test('an answer and a revocation that arrive together are seen in their order', async () => {
  const { client: made, socket } = await connected();
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed();
  socket.say({ type: 'system', event: 'pipe_revoked', pipe: 'a' });
  await settle();
  expect(made.pipe('a').status).toBe('revoked');
});

test('unsubscribed by the application stays so, also after a reconnect, until somebody listens anew', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  const pipe = made.pipe('a');
  pipe.on('e', () => undefined);
  await settle();
  socket.subscribed();
  socket.say({ type: 'system', event: 'unsubscribed', pipe: 'a', reason: 'server' });
  expect(pipe).toMatchObject({ status: 'denied', error: { code: 'NOT_SUBSCRIBED' } });
  socket.say({ type: 'system', event: 'grants_changed', pipes: {} });
  await settle();
  expect(socket.requests('subscribe')).toHaveLength(1);
  socket.end(1006);
  await pass(1);
  const next = FakeSocket.last.welcome();
  await settle();
  expect(next.sent).toEqual([]);
  pipe.on('e', () => undefined);
  const again = pipe.subscribed;
  await settle();
  next.subscribed();
  await again;
  expect(pipe.status).toBe('subscribed');
});

test.each(['refresh', 'reload'])('unsubscribed by a %s comes back with the grants', async (reason) => {
  const { client: made, socket, told } = await connected();
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed();
  await made.pipe('a').subscribed;
  socket.say({ type: 'system', event: 'unsubscribed', pipe: 'a', reason });
  expect(made.pipe('a')).toMatchObject({ status: 'denied', error: { code: 'FORBIDDEN' } });
  await expect(made.pipe('a').subscribed).rejects.toMatchObject({ code: 'FORBIDDEN' });
  expect(told.errors).toHaveLength(1);
  socket.say({ type: 'system', event: 'grants_changed', pipes: {}, added: ['a'], removed: [] });
  await settle();
  socket.subscribed();
  expect(made.pipe('a').status).toBe('subscribed');
});

test('lagged is told', async () => {
  const { socket, told } = await connected();
  socket.say({ type: 'system', event: 'lagged', pipe: 'a', dropped: 12 });
  expect(told.lagged).toEqual([['a', 12]]);
});

test('pushes go to handlers of their name', async () => {
  const { client: made, socket } = await connected();
  const heard = vi.fn();
  const off = made.onPush('note', heard);
  socket.say({ type: 'push', event: 'note', data: { n: 1 }, sender: null, ts: 9 });
  socket.say({ type: 'push', event: 'other', data: 1, sender: null, ts: 9 });
  expect(heard.mock.calls).toEqual([[{ event: 'note', data: { n: 1 }, sender: null, ts: 9 }]]);
  off();
  socket.say({ type: 'push', event: 'note', data: 1, sender: null, ts: 9 });
  expect(heard).toHaveBeenCalledTimes(1);
});

// ---- presence --------------------------------------------------------------------------------------------------------

const ann = { user: 'ann', name: 'Ann', connections: 1 };
const ben = { user: 'ben', connections: 2 };
const cleo = { user: 'cleo', connections: 1 };

async function watching() {
  const both = await connected();
  const seen = vi.fn();
  both.client.pipe('a').on('e', () => undefined);
  const off = both.client.pipe('a').onPresence(seen);
  await settle();
  expect(both.socket.requests('subscribe')).toMatchObject([{ pipes: ['a'], presence: true }]);
  both.socket.subscribed({ a: { ok: true, members: [ann], total: 1, anonymous: 3 } });
  return { ...both, seen, off };
}

test('presence begins with a list and follows what changes', async () => {
  const { socket, seen } = await watching();
  socket.say({ type: 'presence', pipe: 'a', joined: [ben], left: [], total: 2, anonymous: 3 });
  socket.say({ type: 'presence', pipe: 'a', joined: [], left: [ann], total: 1, anonymous: 4 });
  socket.say({ type: 'presence', pipe: 'a', members: [ben, cleo], total: 2, anonymous: 4 });
  socket.say({ type: 'presence', pipe: 'a', total: 4_000, anonymous: 4 });
  expect(seen.mock.calls.map(([state]) => state)).toEqual([
    { members: [ann], total: 1, anonymous: 3, complete: true, joined: [ann], left: [] },
    { members: [ann, ben], total: 2, anonymous: 3, complete: true, joined: [ben], left: [] },
    { members: [ben], total: 1, anonymous: 4, complete: true, joined: [], left: [ann] },
    { members: [ben, cleo], total: 2, anonymous: 4, complete: true, joined: [cleo], left: [] },
    { members: [], total: 4_000, anonymous: 4, complete: false, joined: [], left: [] },
  ]);
});

test('who watches later sees at once who is there', async () => {
  const { client: made, socket } = await watching();
  const late = vi.fn();
  made.pipe('a').onPresence(late);
  expect(late.mock.calls).toEqual([[{ members: [ann], total: 1, anonymous: 3, complete: true, joined: [], left: [] }]]);
  await settle();
  expect(socket.requests('subscribe')).toHaveLength(1);
});

test('a list that is no longer followed is not shown to who watches next', async () => {
  const { client: made, socket, off } = await watching();
  off();
  const late = vi.fn();
  await settle();
  socket.subscribed();
  socket.say({ type: 'presence', pipe: 'a', members: [cleo], total: 1, anonymous: 0 });
  made.pipe('a').onPresence(late);
  expect(late).not.toHaveBeenCalled();
  await settle();
  socket.subscribed({ a: { ok: true, members: [ben], total: 1, anonymous: 0 } });
  expect(late).toHaveBeenCalledTimes(1);
});

test('who stops and begins to watch within one turn sees the list that is still followed', async () => {
  const { client: made, socket, off } = await watching();
  off();
  const again = vi.fn();
  made.pipe('a').onPresence(again);
  expect(again).toHaveBeenCalledWith(expect.objectContaining({ members: [ann], joined: [], left: [] }));
  await settle();
  expect(socket.requests('subscribe')).toHaveLength(1);
});

test('presence that was refused is asked for again by the next connection', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  made.pipe('a').on('e', () => undefined);
  made.pipe('a').onPresence(() => undefined);
  await settle();
  socket.subscribed({ a: refused('FORBIDDEN') });
  await settle();
  socket.subscribed();
  socket.end(1006);
  await pass(1);
  expect(FakeSocket.last.welcome().requests('subscribe')).toMatchObject([{ pipes: ['a'], presence: true }]);
});

test('after a reconnect the new list is compared with the old', async () => {
  chance(0);
  const { socket, seen } = await watching();
  socket.end(1006);
  await pass(1);
  FakeSocket.last.welcome().subscribed({ a: { ok: true, members: [ben], total: 1, anonymous: 0 } });
  expect(seen).toHaveBeenLastCalledWith(expect.objectContaining({ members: [ben], joined: [ben], left: [ann] }));
});

test('nobody watches any more: subscribed without presence, and the events go on', async () => {
  const { socket, off } = await watching();
  off();
  await settle();
  expect(socket.requests('subscribe').at(-1)).toEqual({ type: 'subscribe', pipes: ['a'], id: expect.any(Number) });
});

test('without the right to presence the events are still had, and the application is told', async () => {
  const { client: made, socket, told } = await connected();
  const seen = vi.fn();
  made.pipe('a').on('e', () => undefined);
  made.pipe('a').onPresence(seen);
  await settle();
  socket.subscribed({ a: refused('FORBIDDEN') });
  await settle();
  expect(socket.requests('subscribe').at(-1)).not.toHaveProperty('presence');
  socket.subscribed();
  expect(made.pipe('a').status).toBe('subscribed');
  expect(told.errors.map(({ code, message }) => [code, message.includes('Presence')])).toEqual([['FORBIDDEN', true]]);
  await pass(10_000);
  expect(socket.requests('subscribe')).toHaveLength(2);
  socket.say({ type: 'system', event: 'grants_changed', pipes: {}, added: ['a'] });
  await settle();
  socket.subscribed({ a: { ok: true, members: [ann], total: 1, anonymous: 0 } });
  expect(seen).toHaveBeenCalledTimes(1);
});

test('presence added to a subscription that has no right to it leaves that as it is', async () => {
  const { client: made, socket, told } = await connected();
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed();
  made.pipe('a').onPresence(() => undefined);
  await settle();
  socket.subscribed({ a: refused('FORBIDDEN') });
  await settle();
  expect(made.pipe('a').status).toBe('subscribed');
  expect(socket.requests('subscribe')).toHaveLength(2);
  expect(told.errors).toHaveLength(1);
});

test('presence alone that is refused is denied', async () => {
  const { client: made, socket } = await connected();
  made.pipe('a').onPresence(() => undefined);
  await settle();
  socket.subscribed({ a: refused('FORBIDDEN') });
  await settle();
  expect(made.pipe('a').status).toBe('denied');
  expect(socket.requests('subscribe')).toHaveLength(1);
});

test('presence wanted while the connection is closing waits for the next one, and does not ask without end', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed();
  // The closing handshake has begun, its event has not come yet.
  socket.readyState = 2;
  made.pipe('a').onPresence(() => undefined);
  const asked = vi.spyOn(JSON, 'stringify');
  let turns = 0;
  while (turns < 50) {
    await Promise.resolve();
    turns += 1;
  }
  expect(asked.mock.calls.length).toBeLessThan(3);
  socket.end(1001);
  await pass(1);
  const next = FakeSocket.last.welcome();
  await settle();
  expect(next.requests('subscribe')).toMatchObject([{ pipes: ['a'], presence: true }]);
  next.subscribed();
  expect(made.pipe('a').status).toBe('subscribed');
});

test('a pipe that was subscribed to again behind an unsubscription by the server comes back after a reconnect', async () => {
  chance(0);
  const { client: made, socket } = await connected();
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed();
  made.pipe('a').onPresence(() => undefined);
  await settle();
  // The server ended it before it read our message, which began it anew.
  socket.say({ type: 'system', event: 'unsubscribed', pipe: 'a', reason: 'server' });
  socket.subscribed({ a: { ok: true, members: [], total: 0, anonymous: 0 } });
  expect(made.pipe('a').status).toBe('subscribed');
  socket.end(1006);
  await pass(1);
  const next = FakeSocket.last.welcome();
  await settle();
  expect(next.requests('subscribe')).toMatchObject([{ pipes: ['a'] }]);
});

test('ended by the application, then revoked, then restored: the restore brings it back', async () => {
  const { client: made, socket } = await connected();
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed();
  socket.say({ type: 'system', event: 'unsubscribed', pipe: 'a', reason: 'server' });
  socket.say({ type: 'system', event: 'pipe_revoked', pipe: 'a' });
  expect(made.pipe('a').status).toBe('revoked');
  socket.say({ type: 'system', event: 'pipe_restored', pipe: 'a' });
  await settle();
  socket.subscribed();
  expect(made.pipe('a').status).toBe('subscribed');
});
