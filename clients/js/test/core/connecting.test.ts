/** From nothing to a welcome: when it connects, with what, and what keeps it from it. */

import { expect, test, vi } from 'vitest';

import { PipewardError, type ClientOptions } from '../../src/index.js';
import { chance, client, connected, FakeSocket, pass, setUp, settle, watch } from './harness.js';

setUp();

test('making a client, and a pipe, does nothing yet', async () => {
  const listen = vi.fn();
  vi.stubGlobal('addEventListener', listen);
  const { client: idle } = client({ share: 'broadcast' });
  idle.pipe('a');
  await pass(60_000);
  expect(idle.status).toBe('idle');
  expect(FakeSocket.all).toHaveLength(0);
  expect(listen).not.toHaveBeenCalled();
  expect(vi.getTimerCount()).toBe(0);
});

test.each([
  ['a handler', (made: ReturnType<typeof client>['client']) => void made.pipe('a').on('e', () => undefined)],
  ['a publish', (made: ReturnType<typeof client>['client']) => void made.pipe('a').publish('e', 1).catch(() => undefined)],
  ['a handler of pushes', (made: ReturnType<typeof client>['client']) => void made.onPush('e', () => undefined)],
  ['an action', (made: ReturnType<typeof client>['client']) => void made.action('a').catch(() => undefined)],
])('the first use connects: %s', async (_, use) => {
  const { client: made } = client();
  use(made);
  await settle();
  expect(made.status).toBe('connecting');
  expect(FakeSocket.all).toHaveLength(1);
});

test('the token travels as a subprotocol and not in the address', async () => {
  await connected({ getToken: () => 'abc.def' });
  expect(FakeSocket.last.protocols).toEqual(['pipeward.v1', 'pipeward.token.abc.def']);
  expect(FakeSocket.last.url).toBe('wss://edge.example/v1/connect');
});

test('without getToken no token is offered', async () => {
  await connected();
  expect(FakeSocket.last.protocols).toEqual(['pipeward.v1']);
});

test.each([
  ['wss://e.example', 'wss://e.example/v1/connect'],
  ['https://e.example/', 'wss://e.example/v1/connect'],
  ['http://e.example:8080#x', 'ws://e.example:8080/v1/connect'],
  ['ws://e.example/edge/v1/connect', 'ws://e.example/edge/v1/connect'],
])('the address %s means %s', async (url, meant) => {
  client({ url }).client.connect();
  await settle();
  expect(FakeSocket.last.url).toBe(meant);
});

test('the welcome makes it connected, with who it is', async () => {
  const { client: made, told } = await connected();
  expect(made.status).toBe('connected');
  expect(made.user).toEqual({ id: 'ann', name: 'Ann' });
  expect(made.connection).toBe('c1');
  expect(told.statuses.map(({ status }) => status)).toEqual(['connecting', 'connected']);
});

test('a client without a user has none', async () => {
  const { client: made } = await connected({}, { user: null });
  expect(made.user).toBeNull();
});

test('getToken that returns null leaves it disconnected until connect()', async () => {
  let token: string | null = null;
  const { client: made, told } = client({ getToken: () => token });
  const waiting = watch(made.pipe('a').publish('e', 1));
  await settle();
  expect(made.status).toBe('disconnected');
  expect(told.statuses.at(-1)?.detail.error?.code).toBe('UNAUTHENTICATED');
  expect(waiting).toMatchObject({ times: 1, error: { code: 'CLOSED' } });
  await pass(600_000);
  expect(FakeSocket.all).toHaveLength(0);
  token = 't';
  made.connect();
  await settle();
  FakeSocket.last.welcome();
  expect(made.status).toBe('connected');
});

test('getToken that fails is tried again, later and later', async () => {
  chance(1);
  const getToken = vi.fn<() => Promise<string>>().mockRejectedValueOnce(new Error('down')).mockRejectedValueOnce(new Error('down')).mockResolvedValue('t');
  const { client: made, told } = client({ getToken });
  made.connect();
  await settle();
  expect(told.statuses.at(-1)).toMatchObject({ status: 'reconnecting', detail: { retryInMs: 1_000, error: { code: 'UNAVAILABLE' } } });
  expect(told.statuses.at(-1)?.detail.error?.message).toContain('down');
  await pass(1_000);
  expect(told.statuses.at(-1)).toMatchObject({ status: 'reconnecting', detail: { retryInMs: 2_000 } });
  await pass(2_000);
  FakeSocket.last.welcome();
  expect(made.status).toBe('connected');
});

test('getToken that throws at once, or returns nonsense, is no exception', async () => {
  const { client: made, told } = client({ getToken: () => { throw new Error('no'); } });
  made.connect();
  await settle();
  expect(told.statuses.at(-1)?.status).toBe('reconnecting');
  const { client: other, told: toldOther } = client({ getToken: () => 7 as never });
  other.connect();
  await settle();
  expect(toldOther.statuses.at(-1)?.detail.error?.code).toBe('UNAVAILABLE');
});

test('getToken may say that there is no point', async () => {
  const { client: made } = client({ getToken: () => Promise.reject(new PipewardError('FORBIDDEN', 'suspended')) });
  made.connect();
  await settle();
  expect(made.status).toBe('disconnected');
});

test('a delay that the source of tokens states is kept', async () => {
  chance(0);
  const { client: made, told } = client({ getToken: () => Promise.reject(new PipewardError('UNAVAILABLE', 'busy', { retryAfterMs: 20_000 })) });
  made.connect();
  await settle();
  expect(told.statuses.at(-1)?.detail.retryInMs).toBe(20_000);
});

test('getToken that never settles does not hang the client', async () => {
  const { client: made, told } = client({ getToken: () => new Promise(() => undefined) });
  made.connect();
  await pass(20_000);
  expect(told.statuses.at(-1)).toMatchObject({ status: 'reconnecting', detail: { error: { code: 'TIMEOUT' } } });
});

test('a string as getToken is asked with POST', async () => {
  const fetched = vi.fn().mockResolvedValue(new Response('{"token":"t","expires_at":1}'));
  vi.stubGlobal('fetch', fetched);
  await connected({ getToken: '/api/pipes' });
  expect(fetched).toHaveBeenCalledWith('/api/pipes', { method: 'POST' });
  expect(FakeSocket.last.protocols[1]).toBe('pipeward.token.t');
});

test.each([
  [401, '{}', {}, 'disconnected', 'UNAUTHENTICATED'],
  [403, '{}', {}, 'disconnected', 'UNAUTHENTICATED'],
  [500, 'oops', {}, 'reconnecting', 'UNAVAILABLE'],
  [200, '{"token":7}', {}, 'reconnecting', 'UNAVAILABLE'],
  [200, 'not json', {}, 'reconnecting', 'UNAVAILABLE'],
])('the address answers %i %s: %s', async (status, body, headers, becomes, code) => {
  vi.stubGlobal('fetch', () => Promise.resolve(new Response(body, { status, headers })));
  const { client: made, told } = client({ getToken: '/api/pipes' });
  made.connect();
  await settle();
  expect(told.statuses.at(-1)).toMatchObject({ status: becomes, detail: { error: { code } } });
});

test('Retry-After of the address is kept', async () => {
  chance(0);
  vi.stubGlobal('fetch', () => Promise.resolve(new Response('', { status: 503, headers: { 'retry-after': '7' } })));
  const { client: made, told } = client({ getToken: '/api/pipes' });
  made.connect();
  await settle();
  expect(told.statuses.at(-1)?.detail.retryInMs).toBe(7_000);
});

test('no welcome in 15 seconds is a failed attempt', async () => {
  const { client: made, told } = client();
  made.connect();
  await settle();
  const socket = FakeSocket.last;
  await pass(15_000);
  expect(told.statuses.at(-1)?.status).toBe('reconnecting');
  expect(socket.closedWith).toBe(1000);
  socket.welcome();
  expect(made.status).toBe('reconnecting');
});

test('what comes before the welcome is not listened to', async () => {
  const { client: made, told } = client();
  const heard = vi.fn();
  made.onPush('e', heard);
  await settle();
  FakeSocket.last.say({ type: 'push', event: 'e', data: 1, sender: null, ts: 1 });
  FakeSocket.last.say({ type: 'system', event: 'all_pipes_revoked' });
  expect(heard).not.toHaveBeenCalled();
  expect(told.allRevoked).toBe(0);
});

test.each([
  ['an address that is none', { url: 'nonsense' }],
  ['a class that throws', { WebSocket: class { constructor() { throw new SyntaxError('bad'); } } as never }],
])('%s ends in disconnected, with a sentence', async (_, options) => {
  const { client: made, told } = client(options);
  made.connect();
  await settle();
  expect(told.statuses.at(-1)).toMatchObject({ status: 'disconnected', detail: { error: { code: 'INVALID' } } });
});

test('the runtime\'s own class of WebSockets fits, and is taken where none is given', async () => {
  const own: ClientOptions['WebSocket'] = undefined as unknown as typeof WebSocket;
  expect(own).toBeUndefined();
  vi.stubGlobal('WebSocket', FakeSocket);
  client({ WebSocket: own }).client.connect();
  await settle();
  expect(FakeSocket.all).toHaveLength(1);
});

test.each([
  ['as it is', (protocol: string) => protocol],
  // Chromium writes what is not printable as \\u000A, so that the token is not found in the sentence as it was given.
  ['escaped', (protocol: string) => protocol.replace(/[^!-~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)],
])('a token that cannot be sent ends in no error message, quoted %s', async (_, quoted) => {
  class Strict {
    constructor(_: string, protocols: string[]) {
      throw new SyntaxError(`The subprotocol '${quoted(protocols[1]!)}' is invalid.`);
    }
  }
  // Behind a command that prints one, a token ends with a new line.
  const { client: made, told } = client({ WebSocket: Strict as never, getToken: () => 'se cret\n' });
  made.connect();
  await settle();
  const { error } = told.statuses.at(-1)!.detail;
  expect(error?.code).toBe('INVALID');
  expect(error?.cause).toBeUndefined();
  expect(error?.message).toContain('subprotocol');
  expect(JSON.stringify([error?.message, error?.stack])).not.toMatch(/cret/);
});

test('without a WebSocket it says where to get one', async () => {
  vi.stubGlobal('WebSocket', undefined);
  const { client: made, told } = client({ WebSocket: undefined });
  made.connect();
  await settle();
  expect(told.statuses.at(-1)?.detail.error?.message).toContain('pipeward/node');
});

test('close() while the token is being fetched leaves nothing behind', async () => {
  let give!: (token: string) => void;
  const { client: made } = client({ getToken: () => new Promise((resolve) => (give = resolve)) });
  made.connect();
  made.close();
  give('t');
  await pass(100_000);
  expect(FakeSocket.all).toHaveLength(0);
  expect(made.status).toBe('disconnected');
  expect(vi.getTimerCount()).toBe(0);
});

test('close() while the source of tokens is failing: no retry follows', async () => {
  let fail!: (error: Error) => void;
  const { client: made, told } = client({ getToken: () => new Promise((_, reject) => (fail = reject)) });
  made.connect();
  made.close();
  fail(new Error('down'));
  await pass(100_000);
  expect(told.statuses.map(({ status }) => status)).toEqual(['connecting', 'disconnected']);
  expect(vi.getTimerCount()).toBe(0);
});

test('a handler of a pipe may close the client as the connection ends', async () => {
  const { client: made, told, socket } = await connected();
  made.pipe('a').onStatus((status) => status === 'subscribing' && made.pipe('a').error === undefined && socket.readyState === 3 && made.close());
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.subscribed();
  socket.end(1006);
  await pass(100_000);
  expect(told.statuses.at(-1)?.status).toBe('disconnected');
  expect(FakeSocket.all).toHaveLength(1);
});

test('what is asked as soon as it is connected comes behind the subscriptions and what waited', async () => {
  const { client: made } = client({ onStatus: (status) => status === 'connected' && void made.pipe('a').publish('e', 'at once').catch(() => undefined) });
  made.pipe('a').on('e', () => undefined);
  void made.pipe('a').publish('e', 'before').catch(() => undefined);
  await settle();
  expect(FakeSocket.last.welcome().sent.map(({ type, data }) => data ?? type)).toEqual(['subscribe', 'before', 'at once']);
});

test('close() ends the connection, and connect() takes everything up again', async () => {
  const { client: made, socket } = await connected();
  const heard = vi.fn();
  made.pipe('a').on('e', heard);
  await settle();
  socket.subscribed();
  made.close();
  expect(socket.closedWith).toBe(1000);
  expect(made).toMatchObject({ status: 'disconnected', user: null, connection: null });
  expect(vi.getTimerCount()).toBe(0);
  made.connect();
  await settle();
  const next = FakeSocket.last.welcome();
  expect(next.requests('subscribe')).toMatchObject([{ pipes: ['a'] }]);
  next.subscribed();
  next.say({ type: 'event', pipe: 'a', event: 'e', data: 1, sender: null, ts: 1 });
  expect(heard).toHaveBeenCalledTimes(1);
});

test('a handler of the status may close the client at any point', async () => {
  for (const at of ['connecting', 'connected', 'reconnecting'] as const) {
    FakeSocket.all = [];
    const { client: made } = client({ onStatus: (status) => status === at && made.close() });
    made.connect();
    await settle();
    if (at !== 'connecting') FakeSocket.last.welcome();
    if (at === 'reconnecting') FakeSocket.last.end(1006);
    await pass(120_000);
    expect(made.status).toBe('disconnected');
    expect(FakeSocket.all.length).toBeLessThanOrEqual(1);
    expect(vi.getTimerCount()).toBe(0);
  }
});
