/** Tabs that share one connection: what each of them hears, and what becomes of them when the one that has it goes. */

import { afterEach, expect, test, vi } from 'vitest';

import { createClient, PipewardError, type Client, type ClientOptions } from '../../src/index.js';
import { WireEngine } from '../../src/core/engine.js';
import { Hub } from '../../src/share/hub.js';
import type { Core, FromHub, FromTab } from '../../src/share/messages.js';
import { TabEngine } from '../../src/share/tab.js';
import { chance, FakeSocket, pass, refused, setUp, settle, watch, type Json } from './harness.js';

setUp();

const core: Core = { engine: (options, sink) => new WireEngine(options, sink), PipewardError };

/** The browser's part: hubs, and tabs that find the one there is. Messages are cloned, as they would be. */
class Browser {
  hub: Hub | undefined;
  readonly tabs = new Map<string, (message: FromHub) => void>();

  lead(): void {
    this.hub = new Hub(core, FakeSocket as never);
    const { id } = this.hub;
    for (const heard of this.tabs.values()) heard({ t: 'ready', hub: id });
  }

  tab(name: string) {
    const told = { revoked: [] as string[], allRevoked: 0, statuses: [] as string[], errors: [] as string[] };
    const sink = new Map<string, Json>();
    const engine = new TabEngine(
      {
        post: (message: FromTab) => {
          const hub = this.hub;
          const copy = structuredClone(message);
          queueMicrotask(() => hub?.heard(name, copy, (answer) => queueMicrotask(() => hub === this.hub && this.tabs.get(name)?.(structuredClone(answer)))));
        },
        listen: (heard) => this.tabs.set(name, heard),
      },
      { url: 'wss://edge.example', offline: undefined, timeoutMs: undefined, hasToken: true },
      {
        status: (status, _, session) => told.statuses.push(session?.connection ? `${status} ${session.connection}` : status),
        frame: (frame) => sink.get('frame')?.(frame),
        pipe: (pipe, status, error) => sink.get('pipe')?.(pipe, status, error?.code),
        presence: (pipe, state) => sink.get('presence')?.(pipe, state),
        error: ({ code }) => told.errors.push(code),
        token: (reason) => sink.get('token')?.(reason) ?? Promise.resolve(`of ${name}`),
      },
      core,
    );
    const on = <Result>(what: string, handler: (...args: never[]) => Result) => {
      const mock = vi.fn(handler as (...args: Json[]) => Result);
      sink.set(what, mock);
      return mock;
    };
    return { engine, told, on };
  }
}

const event = (pipe: string, data: unknown = 1) => ({ type: 'event', pipe, event: 'e', data, sender: 'ben', ts: 5 });
const both = { events: true, presence: false };

async function two() {
  const browser = new Browser();
  browser.lead();
  const [a, b] = [browser.tab('a'), browser.tab('b')];
  a.engine.connect();
  b.engine.connect();
  await settle();
  return { browser, a, b, socket: FakeSocket.last.welcome() };
}

test('two tabs, one connection', async () => {
  const { a, b } = await two();
  await settle();
  expect(FakeSocket.all).toHaveLength(1);
  expect([a.told.statuses.at(-1), b.told.statuses.at(-1)]).toEqual(['connected c1', 'connected c1']);
});

test('each hears the pipes that it wants, and the last to want one unsubscribes', async () => {
  const { a, b, socket } = await two();
  const [heardA, heardB] = [a.on('frame', () => undefined), b.on('frame', () => undefined)];
  a.engine.want('x', both);
  b.engine.want('x', both);
  b.engine.want('y', both);
  await settle();
  expect(socket.requests('subscribe').flatMap(({ pipes }) => pipes).sort()).toEqual(['x', 'y']);
  for (const { id, pipes } of socket.requests('subscribe')) socket.say({ type: 'reply', id, ok: true, results: Object.fromEntries(pipes.map((pipe: string) => [pipe, { ok: true }])) });
  socket.say(event('x'));
  socket.say(event('y'));
  await settle();
  expect(heardA.mock.calls.map(([{ pipe }]) => pipe)).toEqual(['x']);
  expect(heardB.mock.calls.map(([{ pipe }]) => pipe)).toEqual(['x', 'y']);
  a.engine.want('x', null);
  await settle();
  expect(socket.requests('unsubscribe')).toEqual([]);
  b.engine.close();
  await settle();
  expect(socket.requests('unsubscribe')[0].pipes.sort()).toEqual(['x', 'y']);
});

test('a tab that comes later to a pipe learns how it stands and who is there', async () => {
  const { a, b, socket } = await two();
  a.engine.want('x', { events: true, presence: true });
  await settle();
  socket.subscribed({ x: { ok: true, members: [{ user: 'ann', connections: 1 }], total: 1, anonymous: 0 } });
  const [stands, there] = [b.on('pipe', () => undefined), b.on('presence', () => undefined)];
  b.engine.want('x', { events: false, presence: true });
  await settle();
  expect(stands).toHaveBeenLastCalledWith('x', 'subscribed', undefined);
  expect(there).toHaveBeenLastCalledWith('x', expect.objectContaining({ total: 1, joined: [], left: [] }));
  expect(socket.requests('subscribe')).toHaveLength(1);
});

test('leaving and coming back within one turn shows no gap', async () => {
  const { a, socket } = await two();
  const stands = a.on('pipe', () => undefined);
  a.engine.want('x', both);
  await settle();
  socket.subscribed();
  await settle();
  a.engine.want('x', null);
  a.engine.want('x', both);
  await settle();
  expect(stands.mock.calls.map(([, status]) => status)).not.toContain('idle');
  expect(stands).toHaveBeenLastCalledWith('x', 'subscribed', undefined);
});

test('an answer goes to the tab that asked', async () => {
  const { a, b, socket } = await two();
  const [first, second] = [watch(a.engine.request({ type: 'action', name: 'one' })), watch(b.engine.request({ type: 'action', name: 'two' }))];
  await settle();
  const [one, other] = socket.requests('action');
  socket.say({ type: 'reply', id: other.id, ok: true, result: other.name });
  socket.say({ type: 'reply', id: one.id, ...refused('RATE_LIMITED', { retry_after_ms: 7 }) });
  await settle();
  expect(second.value).toMatchObject({ result: 'two' });
  expect(first.error).toBeInstanceOf(PipewardError);
  expect(first.error).toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: 7 });
});

test('the tab used last gives the token; one that does not answer is passed over', async () => {
  const browser = new Browser();
  browser.lead();
  const [a, b] = [browser.tab('a'), browser.tab('b')];
  const frozen = b.on('token', () => new Promise<string>(() => undefined));
  b.engine.connect();
  await settle();
  a.engine.connect();
  await pass(7_999);
  expect(FakeSocket.all).toHaveLength(0);
  await pass(1);
  expect(FakeSocket.last.protocols[1]).toBe('pipeward.token.of a');
  expect(frozen).toHaveBeenCalledTimes(1);
  // One that was silent is asked last from then on, but it still takes part.
  chance(0);
  a.on('token', () => new Promise<string>(() => undefined));
  b.on('token', () => Promise.resolve('of-b'));
  FakeSocket.last.welcome().end(1006);
  await pass(8_001);
  expect(FakeSocket.last.protocols[1]).toBe('pipeward.token.of-b');
  FakeSocket.last.welcome().end(1006);
  await pass(100);
  expect(FakeSocket.all).toHaveLength(3);
  FakeSocket.last.welcome();
  await settle();
  expect([a.told.statuses.at(-1), b.told.statuses.at(-1)]).toEqual(['connected c3', 'connected c3']);
});

test('an error of a source of tokens keeps its code', async () => {
  const browser = new Browser();
  browser.lead();
  const a = browser.tab('a');
  a.on('token', () => Promise.reject(new PipewardError('FORBIDDEN', 'suspended')));
  a.engine.connect();
  await settle();
  expect(a.told.statuses.at(-1)).toBe('disconnected');
});

// Whoever connects next may be somebody else.
test('4402 lets every tab go, and one that connects again does not take the others with it', async () => {
  const { a, b, socket } = await two();
  a.engine.want('x', both);
  await settle();
  socket.subscribed();
  const waiting = watch(a.engine.request({ type: 'action', name: 'n' }));
  socket.end(4402);
  await settle();
  expect([a.told.statuses.at(-1), b.told.statuses.at(-1)]).toEqual(['disconnected', 'disconnected']);
  expect(waiting).toMatchObject({ times: 1 });
  b.engine.connect();
  await settle();
  const next = FakeSocket.last.welcome();
  await settle();
  expect(b.told.statuses.at(-1)).toBe('connected c2');
  expect(a.told.statuses.at(-1)).toBe('disconnected');
  expect(next.requests('subscribe')).toEqual([]);
  const heard = a.on('frame', () => undefined);
  next.say({ type: 'push', event: 'e', data: 'for somebody else', sender: null, ts: 1 });
  await settle();
  expect(heard).not.toHaveBeenCalled();
  await expect(a.engine.request({ type: 'action', name: 'n' })).rejects.toMatchObject({ code: 'CLOSED' });
});

test('the last tab to go ends the connection, and the next to come makes a new one', async () => {
  const { a, b, socket } = await two();
  a.engine.close();
  await settle();
  expect(socket.closedWith).toBeUndefined();
  b.engine.pause();
  await settle();
  expect(socket.closedWith).toBe(1000);
  b.engine.resume();
  await settle();
  FakeSocket.last.welcome();
  await settle();
  expect(b.told.statuses.at(-1)).toBe('connected c2');
});

test('the tab that has the connection goes: another takes over, everything wanted is taken up, nothing is answered twice', async () => {
  const { browser, b } = await two();
  b.engine.want('x', both);
  await settle();
  FakeSocket.last.subscribed();
  const sent = watch(b.engine.request({ type: 'publish', pipe: 'x', event: 'e', data: 1 }));
  await settle();
  browser.hub = undefined;
  await settle();
  browser.lead();
  await settle();
  expect(sent).toMatchObject({ times: 1, error: { code: 'INTERRUPTED' } });
  const heard = b.on('frame', () => undefined);
  const next = FakeSocket.last.welcome();
  await settle();
  expect(next.requests('subscribe')).toMatchObject([{ pipes: ['x'] }]);
  next.subscribed();
  next.say(event('x', 'after'));
  await settle();
  expect(heard).toHaveBeenCalledTimes(1);
  expect(b.told.statuses).toContain('reconnecting');
  expect(b.told.statuses.at(-1)).toBe('connected c2');
});

test('before there is a hub requests wait, for as long as everywhere', async () => {
  const browser = new Browser();
  const a = browser.tab('a');
  const [first, second] = [watch(a.engine.request({ type: 'action', name: '1' })), watch(a.engine.request({ type: 'action', name: '2' }))];
  a.engine.want('x', both);
  await pass(29_000);
  browser.lead();
  await settle();
  const socket = FakeSocket.last.welcome();
  await settle();
  expect(socket.sent.map(({ type }) => type)).toEqual(['subscribe', 'action', 'action']);
  for (const { id } of socket.requests('action')) socket.say({ type: 'reply', id, ok: true });
  await settle();
  expect([first.times, second.times]).toEqual([1, 1]);
  const lonely = new Browser().tab('b');
  const late = watch(lonely.engine.request({ type: 'action', name: '3' }));
  await pass(30_000);
  expect(late).toMatchObject({ times: 1, error: { code: 'OFFLINE' } });
  await expect(Promise.all(Array.from({ length: 101 }, () => lonely.engine.request({ type: 'action', name: '4' })))).rejects.toMatchObject({ code: 'OFFLINE' });
  lonely.engine.close();
});

test('refresh goes to the hub', async () => {
  const { a, socket } = await two();
  const done = watch(a.engine.refresh());
  await settle();
  expect(socket.requests('refresh')).toHaveLength(1);
  socket.answer('refresh');
  await settle();
  expect(done).toMatchObject({ times: 1, error: undefined });
});

test('a hub that hangs does not have the tabs hang with it', async () => {
  const { browser, b } = await two();
  const sent = [watch(b.engine.request({ type: 'publish', pipe: 'x', event: 'e', data: 1 })), watch(b.engine.refresh())];
  // It is there, as far as the browser knows, and does nothing any more.
  browser.hub!.heard = () => undefined;
  await pass(120_000);
  expect(sent).toMatchObject([{ times: 1, error: { code: 'TIMEOUT' } }, { times: 1, error: { code: 'TIMEOUT' } }]);
});

test('what is asked is written as JSON in the tab: proxies and toJSON as without sharing, a circle is refused', async () => {
  const browser = new Browser();
  const a = browser.tab('a');
  class Money { toJSON() { return '1 EUR'; } }
  const changing = { text: 'before' };
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  for (const data of [new Proxy({ n: 1 }, {}), new Money(), changing]) void a.engine.request({ type: 'publish', pipe: 'x', event: 'e', data }).catch(() => undefined);
  const refusedHere = watch(a.engine.request({ type: 'publish', pipe: 'x', event: 'e', data: circle }));
  changing.text = 'after';
  browser.lead();
  await settle();
  const socket = FakeSocket.last.welcome();
  await settle();
  expect(socket.requests('publish').map(({ data }) => data)).toEqual([{ n: 1 }, '1 EUR', { text: 'before' }]);
  expect(refusedHere).toMatchObject({ times: 1, error: { code: 'INVALID' } });
});

test('a tab that closes does not bring back what the server has ended for another', async () => {
  const { a, b, socket } = await two();
  a.engine.want('x', both);
  b.engine.want('x', both);
  await settle();
  socket.subscribed();
  await settle();
  const before = socket.requests('subscribe').length;
  socket.say({ type: 'system', event: 'unsubscribed', pipe: 'x', reason: 'server' });
  await settle();
  a.engine.close();
  await settle();
  expect(socket.requests('subscribe')).toHaveLength(before);
  // Whoever listens anew has it back.
  b.engine.want('x', both);
  await settle();
  expect(socket.requests('subscribe')).toHaveLength(before + 1);
});

// ---- as a browser does it --------------------------------------------------------------------------------------------

/** Web Locks, as far as they are used: one holder, the others wait in line. */
class Locks {
  readonly lines = new Map<string, (() => unknown)[]>();
  request(name: string, hold: () => unknown): Promise<unknown> {
    const line = this.lines.get(name) ?? [];
    this.lines.set(name, line);
    line.push(hold);
    if (line.length === 1) hold();
    return new Promise(() => undefined);
  }
  query(): Promise<object> {
    return Promise.resolve({});
  }
}

afterEach(() => {
  for (const made of open.splice(0)) made.close();
});
const open: Client[] = [];

function shared(options: Partial<ClientOptions>): Client {
  const made = createClient({ url: 'wss://edge.example', WebSocket: FakeSocket, ...options });
  open.push(made);
  return made;
}

test('share: broadcast, with real channels: two clients, one connection, apart by key', async () => {
  vi.useRealTimers();
  vi.stubGlobal('navigator', { locks: new Locks() });
  const [a, b, other] = [shared({ share: 'broadcast', shareKey: 'ann' }), shared({ share: 'broadcast', shareKey: 'ann' }), shared({ share: 'broadcast', shareKey: 'ben' })];
  const [heardA, heardB] = [vi.fn(), vi.fn()];
  a.pipe('x').on('e', heardA);
  await vi.waitFor(() => expect(FakeSocket.all).toHaveLength(1));
  FakeSocket.last.welcome();
  b.pipe('x').on('e', heardB);
  await vi.waitFor(() => expect([a.status, b.status]).toEqual(['connected', 'connected']));
  await vi.waitFor(() => expect(FakeSocket.last.requests('subscribe')).toHaveLength(1));
  FakeSocket.last.subscribed();
  await Promise.all([a.pipe('x').subscribed, b.pipe('x').subscribed]);
  expect(b.connection).toBe(a.connection);
  FakeSocket.last.say(event('x'));
  await vi.waitFor(() => expect([heardA, heardB].map(({ mock }) => mock.calls.length)).toEqual([1, 1]));
  other.connect();
  await vi.waitFor(() => expect(FakeSocket.all).toHaveLength(2));
});

test('where the browser cannot share, each has its own', async () => {
  vi.stubGlobal('navigator', {});
  for (const share of ['broadcast', 'sharedworker'] as const) shared({ share }).connect();
  await vi.waitFor(() => expect(FakeSocket.all).toHaveLength(2));
  // A sandboxed frame has the interface and may not use it.
  const denied = () => Promise.reject(new DOMException('denied', 'SecurityError'));
  vi.stubGlobal('navigator', { locks: { query: denied, request: denied } });
  shared({ share: 'broadcast' }).connect();
  await vi.waitFor(() => expect(FakeSocket.all).toHaveLength(3));
});

test.each([
  ['throws', 0, class { constructor() { throw new Error('a policy of the page'); } }],
  ['cannot be loaded', 0, class { readonly port = {}; onerror = () => undefined; constructor() { queueMicrotask(() => this.onerror()); } }],
  ['is silent', 5_000, class { readonly port = {}; }],
])('a SharedWorker that %s: the tab has a connection of its own, and nothing asked meanwhile is lost', async (_, afterMs, worker) => {
  vi.stubGlobal('SharedWorker', worker);
  const made = shared({ share: 'sharedworker' });
  const sent = watch(made.pipe('x').publish('e', 1));
  // The part that shares is loaded first.
  await vi.waitFor(() => expect(vi.getTimerCount() + FakeSocket.all.length).toBeGreaterThan(0));
  await pass(afterMs);
  expect(FakeSocket.all).toHaveLength(1);
  FakeSocket.last.welcome();
  await settle();
  FakeSocket.last.answer('publish');
  await settle();
  expect(sent).toMatchObject({ times: 1, error: undefined });
});

test('share: sharedworker, with its own script at the other end of a port', async () => {
  vi.useRealTimers();
  const made: { url: string; name: string }[] = [];
  const scope: Json = globalThis;
  vi.stubGlobal('WebSocket', FakeSocket);
  await import('../../src/share/worker.js');
  class FakeSharedWorker {
    readonly port: MessagePort;
    constructor(url: URL, { name }: { name: string }) {
      made.push({ url: url.pathname, name });
      const { port1, port2 } = new MessageChannel();
      this.port = port1;
      scope.onconnect({ ports: [port2] });
    }
  }
  vi.stubGlobal('SharedWorker', FakeSharedWorker);
  const [a, b] = [shared({ share: 'sharedworker', getToken: () => 'ta' }), shared({ share: 'sharedworker', getToken: () => 'tb' })];
  a.connect();
  b.connect();
  await vi.waitFor(() => expect(FakeSocket.all).toHaveLength(1));
  expect(FakeSocket.last.protocols[1]).toMatch(/^pipeward\.token\.t[ab]$/);
  FakeSocket.last.welcome();
  await vi.waitFor(() => expect([a.status, b.status]).toEqual(['connected', 'connected']));
  expect(made[0]).toMatchObject({ url: expect.stringMatching(/worker\.js$/), name: 'pipeward wss://edge.example/ ' });
  const sent = b.pipe('x').publish('e', { n: 1 });
  await vi.waitFor(() => expect(FakeSocket.last.requests('publish')).toHaveLength(1));
  FakeSocket.last.answer('publish');
  await sent;
  expect(vi.isFakeTimers()).toBe(false);
});
