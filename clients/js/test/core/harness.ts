/** A WebSocket that the test is the server of, and a client on it. Time is fake: nothing here waits. */

import { afterEach, beforeEach, vi } from 'vitest';

import { createClient, type ClientOptions, type PipewardError, type Status, type StatusDetail } from '../../src/index.js';
import type { Refusal } from '../../src/core/protocol.js';

export type Json = any;

export class FakeSocket {
  static all: FakeSocket[] = [];
  /** Pings are not answered. */
  static silent = false;
  static get last(): FakeSocket {
    const socket = FakeSocket.all.at(-1);
    if (!socket) throw new Error('the client has not connected');
    return socket;
  }

  onopen: ((event: object) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: ((event: object) => void) | null = null;
  onclose: ((event: { code: number; reason: string; refusal?: Refusal }) => void) | null = null;
  readyState = 0;
  /** What the client has sent, pings and all. */
  readonly sent: Json[] = [];
  closedWith: number | undefined;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    FakeSocket.all.push(this);
  }

  send(text: string): void {
    const message = JSON.parse(text);
    this.sent.push(message);
    if (message.type === 'ping' && !FakeSocket.silent) queueMicrotask(() => this.say({ type: 'pong', id: message.id }));
  }

  close(code?: number): void {
    this.closedWith = code ?? 1005;
    this.readyState = 3;
  }

  // ---- the server's side ---------------------------------------------------------------------------------------

  /** A frame to the client. */
  say(frame: Json): void {
    this.raw(JSON.stringify(frame));
  }

  raw(data: unknown): void {
    this.onmessage?.({ data });
  }

  welcome(more: Json = {}): this {
    this.readyState = 1;
    this.onopen?.({});
    this.say({
      type: 'welcome', protocol: 1, connection: `c${FakeSocket.all.length}`, user: { id: 'ann', name: 'Ann' }, pipes: {}, ping_s: 25,
      limits: { message_bytes: 65_536 }, ...more,
    });
    return this;
  }

  end(code: number, reason = '', refusal?: Refusal): void {
    this.readyState = 3;
    this.onclose?.({ code, reason, ...(refusal && { refusal }) });
  }

  /** Requests of this type, in the order in which they came. */
  requests(type: string): Json[] {
    return this.sent.filter((message) => message.type === type);
  }

  /** Answers the last request of this type. */
  answer(type: string, more: Json = { ok: true }): void {
    const request = this.requests(type).at(-1);
    if (!request) throw new Error(`no ${type} was sent`);
    this.say({ type: 'reply', id: request.id, ok: true, ...more });
  }

  /** Answers the last subscribe: every pipe of it, unless it is named here. */
  subscribed(results: Record<string, Json> = {}): void {
    const { pipes } = this.requests('subscribe').at(-1);
    this.answer('subscribe', { results: Object.fromEntries(pipes.map((pipe: string) => [pipe, results[pipe] ?? { ok: true }])) });
  }
}

export const refused = (code: string, more: Json = {}): Json => ({ ok: false, code, error: 'no', ...more });

/** Promises that are settled have been seen after this; time does not pass. */
export const settle = () => vi.advanceTimersByTimeAsync(0);
export const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

export function setUp(): void {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'], now: 1_700_000_000_000 });
    FakeSocket.all = [];
    FakeSocket.silent = false;
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.unstubAllGlobals();
    vi.useRealTimers();
  });
}

/** Every random number is this one until the end of the test. */
export const chance = (value: number) => vi.spyOn(Math, 'random').mockReturnValue(value);

export interface Told {
  readonly statuses: { status: Status; detail: StatusDetail }[];
  readonly errors: PipewardError[];
  readonly revoked: string[];
  readonly restored: string[];
  readonly lagged: [string, number][];
  allRevoked: number;
}

/** A client of the fake server, and everything that it tells the application. */
export function client(options: Partial<ClientOptions> = {}) {
  const told: Told = { statuses: [], errors: [], revoked: [], restored: [], lagged: [], allRevoked: 0 };
  const made = createClient({
    url: 'wss://edge.example',
    WebSocket: FakeSocket,
    onStatus: (status, detail) => told.statuses.push({ status, detail }),
    onError: (error) => told.errors.push(error),
    onPipeRevoked: (pipe) => told.revoked.push(pipe),
    onAllPipesRevoked: () => (told.allRevoked += 1),
    onPipeRestored: (pipe) => told.restored.push(pipe),
    onLagged: (pipe, dropped) => told.lagged.push([pipe, dropped]),
    ...options,
  });
  return { client: made, told };
}

/** One that is connected. */
export async function connected(options: Partial<ClientOptions> = {}, welcome: Json = {}) {
  const both = client(options);
  both.client.connect();
  await settle();
  return { ...both, socket: FakeSocket.last.welcome(welcome) };
}

/** How a promise stands. Counts how often it was settled, which must never be more than once. */
export function watch<T>(promise: Promise<T>) {
  const seen = { times: 0, value: undefined as T | undefined, error: undefined as PipewardError | undefined };
  promise.then(
    (value) => {
      seen.times += 1;
      seen.value = value;
    },
    (error: PipewardError) => {
      seen.times += 1;
      seen.error = error;
    },
  );
  return seen;
}
