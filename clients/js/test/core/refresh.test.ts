/** Rights are renewed in place before they end (HP-7), at a time that others do not choose too, and when asked. */

import { expect, test, vi } from 'vitest';

import { chance, connected, FakeSocket, pass, refused, setUp, settle, watch } from './harness.js';

setUp();

const HOUR = 3_600_000;
const soon = (ms: number) => ({ expires_at: Date.now() + ms });

/** A source of tokens t1, t2, … that counts. */
function tokens() {
  let count = 0;
  return vi.fn(() => Promise.resolve(`t${(count += 1)}`));
}

test.each([[0, 0.75], [1, 0.9]])('with chance %d at %d of the time that is left', async (share, part) => {
  chance(share);
  const getToken = tokens();
  const { socket } = await connected({ getToken }, soon(HOUR));
  await pass(HOUR * part - 1);
  expect(getToken).toHaveBeenCalledTimes(1);
  await pass(2);
  expect(getToken).toHaveBeenLastCalledWith('refresh');
  expect(socket.requests('refresh')).toMatchObject([{ token: 't2' }]);
  // The answer says when the next is due; nothing was disconnected.
  socket.answer('refresh', { pipes: {}, ...soon(HOUR) });
  await pass(HOUR * part + 1);
  expect(socket.requests('refresh')).toHaveLength(2);
  expect(FakeSocket.all).toHaveLength(1);
});

test('rights without an end are not renewed', async () => {
  const getToken = tokens();
  await connected({ getToken });
  await pass(48 * HOUR);
  expect(getToken).toHaveBeenCalledTimes(1);
});

test('an end that is further away than a timer reaches does not make it fire at once', async () => {
  const getToken = tokens();
  const { client } = await connected({ getToken }, soon(90 * 24 * HOUR));
  await pass(1_000);
  expect(getToken).toHaveBeenCalledTimes(1);
  client.close();
});

test('clocks differ: an end that looks past is left to expiring, which counts from now', async () => {
  chance(0);
  const getToken = tokens();
  const { socket } = await connected({ getToken }, soon(-HOUR));
  await pass(30_000);
  expect(getToken).toHaveBeenCalledTimes(1);
  socket.say({ type: 'system', event: 'expiring', in_s: 60 });
  await pass(44_999);
  expect(getToken).toHaveBeenCalledTimes(1);
  await pass(1);
  expect(getToken).toHaveBeenCalledTimes(2);
});

test('expiring brings the renewal forward, never back', async () => {
  chance(0);
  const getToken = tokens();
  // Our clock is late: the server sees the end much sooner.
  const { socket } = await connected({ getToken }, soon(10 * HOUR));
  socket.say({ type: 'system', event: 'expiring', in_s: 60 });
  await pass(45_000);
  expect(socket.requests('refresh')).toHaveLength(1);
});

test('expiring does not put off a renewal that is due sooner', async () => {
  chance(0);
  const { socket } = await connected({ getToken: tokens() }, soon(100_000));
  await pass(50_000);
  socket.say({ type: 'system', event: 'expiring', in_s: 60 });
  await pass(25_000);
  expect(socket.requests('refresh')).toHaveLength(1);
});

test('short tokens are told expiring at once, which must not go round in a circle', async () => {
  chance(0);
  const getToken = tokens();
  const { socket } = await connected({ getToken }, soon(20_000));
  for (let round = 0; round < 4; round += 1) {
    socket.say({ type: 'system', event: 'expiring', in_s: 20 });
    await pass(15_000);
    expect(socket.requests('refresh')).toHaveLength(round + 1);
    socket.answer('refresh', soon(20_000));
    await settle();
  }
});

test('a source that gives the same token again and again is not asked ever faster', async () => {
  chance(0);
  const getToken = vi.fn(() => 'the same');
  const end = soon(60_000);
  const { socket } = await connected({ getToken }, end);
  let answered = 0;
  for (let step = 0; step < 6_000; step += 1) {
    await pass(10);
    if (socket.requests('refresh').length > answered) socket.answer('refresh', end);
    answered = socket.requests('refresh').length;
  }
  // After 45 s, 11 s and 3 s; the next would be less than a second later.
  expect(answered).toBe(3);
});

test('a renewal that fails is tried again before the end, and told', async () => {
  chance(0);
  const getToken = tokens();
  const { told, socket } = await connected({ getToken }, soon(100_000));
  await pass(75_000);
  socket.answer('refresh', refused('UNAVAILABLE'));
  await settle();
  expect(told.errors.map(({ code }) => code)).toEqual(['UNAVAILABLE']);
  await pass(1_000);
  expect(socket.requests('refresh')).toHaveLength(2);
  getToken.mockRejectedValueOnce(new Error('down'));
  socket.answer('refresh', refused('RATE_LIMITED', { retry_after_ms: 4_000 }));
  await pass(3_999);
  expect(getToken).toHaveBeenCalledTimes(3);
  await pass(1);
  expect(getToken).toHaveBeenCalledTimes(4);
  await pass(1_000);
  expect(socket.requests('refresh')).toHaveLength(3);
  socket.answer('refresh', soon(100_000));
  await settle();
  expect(told.errors.map(({ code }) => code)).toEqual(['UNAVAILABLE', 'RATE_LIMITED', 'UNAVAILABLE']);
});

test('it does not try for ever: at the end the connection ends, and the next has a new token', async () => {
  chance(0);
  const getToken = tokens();
  const { socket } = await connected({ getToken }, soon(4_000));
  await pass(3_000);
  for (let tries = 0; tries < 5; tries += 1) {
    if (socket.requests('refresh').length > tries) socket.answer('refresh', refused('UNAUTHENTICATED'));
    await pass(1_000);
  }
  expect(socket.requests('refresh').length).toBeLessThan(4);
  const before = getToken.mock.calls.length;
  socket.end(4401, 'expired');
  await pass(1);
  expect(getToken).toHaveBeenCalledTimes(before + 1);
  expect(getToken).toHaveBeenLastCalledWith('connect');
  expect(FakeSocket.last).not.toBe(socket);
});

test('without getToken the server is asked to authorize again, once if it cannot', async () => {
  chance(0);
  const { socket, told } = await connected({}, soon(1_000_000));
  await pass(750_000);
  expect(socket.requests('refresh')[0]).toEqual({ type: 'refresh', id: expect.any(Number) });
  socket.answer('refresh', refused('INVALID'));
  await pass(240_000);
  expect(socket.requests('refresh')).toHaveLength(1);
  expect(told.errors).toHaveLength(1);
});

test('signed out meanwhile: the connection goes on to its end, and then no new one comes', async () => {
  chance(0);
  const getToken = vi.fn<() => Promise<string | null>>().mockResolvedValueOnce('t').mockResolvedValue(null);
  const { client, socket, told } = await connected({ getToken }, soon(10_000));
  await pass(7_500);
  expect(told.errors.map(({ code }) => code)).toEqual(['UNAUTHENTICATED']);
  expect(client.status).toBe('connected');
  socket.end(4401, 'expired');
  await pass(1);
  expect(client.status).toBe('disconnected');
  expect(FakeSocket.all).toHaveLength(1);
});

test('refreshPipeAuth fetches a token and resolves with the answer', async () => {
  const getToken = tokens();
  const { client, socket } = await connected({ getToken });
  const done = watch(client.refreshPipeAuth());
  await settle();
  expect(socket.requests('refresh')).toMatchObject([{ token: 't2' }]);
  expect(done.times).toBe(0);
  socket.answer('refresh', { pipes: {} });
  await settle();
  expect(done).toEqual({ times: 1, value: undefined, error: undefined });
});

test('refreshPipeAuth is rejected with what the server or the source of tokens says', async () => {
  const getToken = tokens();
  const { client, socket } = await connected({ getToken });
  const refusal = watch(client.refreshPipeAuth());
  await settle();
  socket.answer('refresh', refused('REVOKED'));
  await settle();
  expect(refusal).toMatchObject({ times: 1, error: { code: 'REVOKED' } });
  getToken.mockRejectedValueOnce(new Error('down'));
  await expect(client.refreshPipeAuth()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test('one at a time: those that come meanwhile share the next one', async () => {
  const { client, socket } = await connected({ getToken: tokens() });
  const first = watch(client.refreshPipeAuth());
  const others = [watch(client.refreshPipeAuth()), watch(client.refreshPipeAuth())];
  await settle();
  expect(socket.requests('refresh')).toHaveLength(1);
  // What they are for may have come too late for the first.
  socket.answer('refresh', refused('UNAVAILABLE'));
  await settle();
  expect(first.error?.code).toBe('UNAVAILABLE');
  expect(socket.requests('refresh')).toHaveLength(2);
  socket.answer('refresh');
  await settle();
  expect(others.map(({ times, error }) => [times, error])).toEqual([[1, undefined], [1, undefined]]);
});

test('before anything was used there is nothing to renew', async () => {
  const { createClient } = await import('../../src/index.js');
  const client = createClient({ url: 'wss://edge.example', WebSocket: FakeSocket });
  await client.refreshPipeAuth();
  expect(FakeSocket.all).toHaveLength(0);
});

test('while reconnecting it is done by the connection that comes, if that has a newer token', async () => {
  chance(0);
  const { client, socket } = await connected({ getToken: tokens() });
  socket.end(1006);
  const done = watch(client.refreshPipeAuth());
  await pass(5);
  const next = FakeSocket.last.welcome();
  await settle();
  expect(next.requests('refresh')).toEqual([]);
  expect(done.times).toBe(1);
  expect(done.error).toBeUndefined();
});

test('a connection that ends in the middle of it: the next one comes with a new token anyway', async () => {
  chance(0);
  const { client, socket } = await connected({ getToken: tokens() });
  const done = watch(client.refreshPipeAuth());
  await settle();
  expect(socket.requests('refresh')).toHaveLength(1);
  socket.end(1006);
  await pass(1);
  FakeSocket.last.welcome();
  await settle();
  expect(done).toEqual({ times: 1, value: undefined, error: undefined });
});

test('a token that was fetched for an earlier connection is not sent over the next, which has a newer one', async () => {
  chance(0);
  let give: ((token: string) => void) | undefined;
  const { client, socket } = await connected({ getToken: (reason) => (reason === 'connect' ? 'newer' : new Promise<string>((resolve) => (give = resolve))) });
  const done = watch(client.refreshPipeAuth());
  await settle();
  socket.end(1006);
  await pass(1);
  const next = FakeSocket.last.welcome();
  give!('older');
  await settle();
  expect(next.requests('refresh')).toEqual([]);
  expect(done).toEqual({ times: 1, value: undefined, error: undefined });
});

test('offline for too long it is rejected', async () => {
  const { client, socket } = await connected({ getToken: tokens() });
  socket.end(4429, 'retry_after_ms=100000');
  const done = watch(client.refreshPipeAuth());
  await pass(30_000);
  expect(done).toMatchObject({ times: 1, error: { code: 'OFFLINE' } });
});

test('a renewal that changes what rules see, and no grant, has what was denied or revoked tried again', async () => {
  const { client, socket } = await connected({ getToken: tokens() });
  for (const pipe of ['admins', 'gone', 'ended']) client.pipe(pipe).on('e', () => undefined);
  await settle();
  socket.subscribed({ admins: refused('FORBIDDEN'), gone: refused('REVOKED') });
  socket.say({ type: 'system', event: 'unsubscribed', pipe: 'ended', reason: 'server' });
  const done = client.refreshPipeAuth();
  await settle();
  // Another role: the server says `grants_changed` only of explicit grants (C25).
  socket.answer('refresh', { pipes: {} });
  await done;
  await settle();
  expect(socket.requests('subscribe').slice(1)).toMatchObject([{ pipes: ['admins', 'gone'] }]);
  socket.subscribed();
  expect(client.pipe('admins').status).toBe('subscribed');
  expect(client.pipe('gone').status).toBe('subscribed');
});

test('presence that a renewal has silently ended is asked for anew, or told to be refused', async () => {
  const { client, socket, told } = await connected({ getToken: tokens() });
  const ann = { user: 'ann', connections: 1 };
  const seen = vi.fn();
  client.pipe('a').on('e', () => undefined);
  client.pipe('a').onPresence(({ members }) => seen(members.length));
  await settle();
  socket.subscribed({ a: { ok: true, members: [ann], total: 1, anonymous: 0 } });
  for (const result of [refused('FORBIDDEN'), { ok: true, members: [ann, { user: 'ben', connections: 1 }], total: 2, anonymous: 0 }]) {
    const done = client.refreshPipeAuth();
    await settle();
    socket.answer('refresh', { pipes: {} });
    await done;
    await settle();
    expect(socket.requests('subscribe').at(-1)).toMatchObject({ pipes: ['a'], presence: true });
    socket.subscribed({ a: result });
    await settle();
    expect(client.pipe('a').status).toBe('subscribed');
  }
  expect(told.errors.map(({ code }) => code)).toEqual(['FORBIDDEN']);
  expect(seen.mock.calls.at(-1)).toEqual([2]);
});
