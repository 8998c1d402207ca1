/**
 * What a client does about its connection: tokens, reconnecting, and renewing its rights. It knows no handlers and no types
 * of events; `client.ts` does, and speaks to it through `Engine` and `Sink`, which can be carried over a port to another tab
 * (`../share`).
 *
 * Invariants: one connection or attempt at a time; after a verdict to stop nothing connects before `connect()` is called; a
 * delay that the server has stated is kept, whatever wakes us.
 */

import { PipewardError } from './error.js';
import { Link } from './link.js';
import { atLeast, judge, millis, text, TIMER_MS_MAX, type Ending, type Frame, type Verdict } from './protocol.js';
import { Requests } from './requests.js';
import { Subscriptions, type Wish } from './subscriptions.js';
import type { ClientOptions, PipeStatus, PresenceState, Status, StatusDetail, TokenReason, User } from './types.js';

/** What the client asks of an engine. */
export interface Engine {
  /** Connects if it is idle or disconnected. */
  connect(): void;
  /** Connects if nothing has been asked of it yet. */
  wake(): void;
  close(): void;
  /** A message without `id`. Rejected with a `PipewardError` if it is not answered `ok`. */
  request(message: Frame): Promise<Frame>;
  /** What is wanted of a pipe from now on; `null` is nothing. */
  want(pipe: string, wish: Wish | null): void;
  refresh(): Promise<void>;
}

/** Who is connected. */
export interface Session {
  readonly user: User | null;
  readonly connection: string;
}

/** What an engine tells its client. None of it may throw. */
export interface Sink {
  status(status: Status, detail: StatusDetail, session: Session | null): void;
  /** An `event`, a `push`, or a `system` message. Its `type` is a string, the rest is as it came. */
  frame(frame: Frame): void;
  pipe(pipe: string, status: PipeStatus, error: PipewardError | undefined): void;
  presence(pipe: string, state: PresenceState): void;
  error(error: PipewardError): void;
  /** `null`: nobody is signed in. */
  token(reason: TokenReason): Promise<string | null>;
}

export type EngineOptions = Pick<ClientOptions, 'url' | 'offline' | 'timeoutMs' | 'WebSocket'> & { readonly hasToken: boolean };

const BACKOFF_MS_FIRST = 1_000;
const BACKOFF_MS_MAX = 30_000;
/** A connection that lasted so long was a good one: the backoff begins anew. */
const STABLE_MS = 5_000;
const TOKEN_WAIT_MS = 20_000;
/** Between two renewals at least. */
const REFRESH_MS_MIN = 1_000;

export class WireEngine implements Engine {
  readonly #options: EngineOptions;
  readonly #sink: Sink;
  readonly #requests: Requests;
  readonly #subscriptions: Subscriptions;
  #status: Status = 'idle';
  #link: Link | undefined;
  /** Counts attempts, so that what an earlier one still brings is known as stale. */
  #epoch = 0;
  /** Failures in a row. */
  #failures = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #retryAt = 0;
  /** Before this no attempt begins, whatever wakes us. Unix milliseconds. */
  #notBefore = 0;
  #drainingMs: number | undefined;

  #refreshTimer: ReturnType<typeof setTimeout> | undefined;
  #refreshAt = Infinity;
  #expiresAt: number | undefined;
  #refreshing: Promise<void> | undefined;
  #refreshNext: Promise<void> | undefined;
  /** The epoch in which this connection was begun. */
  #since = 0;
  #unlisten: (() => void) | undefined;

  constructor(options: EngineOptions, sink: Sink) {
    this.#options = options;
    this.#sink = sink;
    this.#requests = new Requests(options, () => this.#link);
    this.#subscriptions = new Subscriptions((message, settle) => this.#requests.ask(message, true, settle), sink);
  }

  connect(): void {
    if (this.#status !== 'idle' && this.#status !== 'disconnected') return;
    this.#requests.stopped = undefined;
    this.#failures = 0;
    this.#notBefore = 0;
    this.#unlisten ??= listenForWaking((online) => this.#woken(online));
    const epoch = ++this.#epoch;
    this.#set('connecting', {});
    if (epoch === this.#epoch) void this.#attempt();
  }

  wake(): void {
    if (this.#status === 'idle') this.connect();
  }

  close(): void {
    this.#stop(new PipewardError('CLOSED', 'The client was closed; connect() starts again'), {});
  }

  request(message: Frame): Promise<Frame> {
    this.wake();
    return this.#requests.promise(message);
  }

  want(pipe: string, wish: Wish | null): void {
    if (wish) this.wake();
    this.#subscriptions.want(pipe, wish);
  }

  // ---- the connection ------------------------------------------------------------------------------------------

  async #attempt(): Promise<void> {
    const epoch = ++this.#epoch;
    const current = () => epoch === this.#epoch;
    let token: string | null = null;
    if (this.#options.hasToken) {
      try {
        token = await this.#token('connect');
      } catch (cause) {
        if (!current()) return;
        const error = cause as PipewardError;
        const { code, retryAfterMs } = error;
        const stop = code === 'UNAUTHENTICATED' || code === 'FORBIDDEN';
        return this.#failed({ error, stop, within: retryAfterMs === undefined ? undefined : atLeast(retryAfterMs) }, {});
      }
      if (!current()) return;
      if (token === null) {
        const error = SIGNED_OUT();
        return this.#stop(error, { error });
      }
    }
    try {
      const socketClass = this.#options.WebSocket ?? (globalThis.WebSocket as ClientOptions['WebSocket']);
      if (!socketClass) throw new Error('no WebSocket; in Node 20 pass that of pipeward/node');
      this.#link = new Link(socketClass, address(this.#options.url), token, {
        welcome: (frame) => this.#welcome(frame, epoch),
        frame: (frame) => this.#frame(frame),
        ended: (ending) => this.#ended(ending),
      });
    } catch (cause) {
      // A browser quotes the subprotocol that it does not like, in a spelling of its own, and errors end up in logs.
      const why = String(cause).replace(/pipeward\.token[^]*/, '…');
      const error = new PipewardError('INVALID', `Cannot connect to "${this.#options.url}": ${why}`);
      this.#stop(error, { error });
    }
  }

  /** A token source that hangs must not hang the client. */
  #token(reason: TokenReason): Promise<string | null> {
    return new Promise((resolve, reject) => {
      const late = new PipewardError('TIMEOUT', 'getToken did not settle in time');
      const timer = setTimeout(() => reject(late), TOKEN_WAIT_MS);
      this.#sink.token(reason).then(resolve, (cause: unknown) => reject(asError(cause))).finally(() => clearTimeout(timer));
    });
  }

  #welcome(frame: Frame, epoch: number): void {
    const user = frame.user as { id?: unknown; name?: unknown } | null | undefined;
    const id = text(user?.id);
    const bytes = millis((frame.limits as Frame | null | undefined)?.message_bytes);
    this.#requests.messageBytesMax = bytes ?? Infinity;
    this.#since = epoch;
    this.#expires(frame.expires_at);
    // Before the application hears of it: what it asks then comes behind what it has asked before.
    this.#subscriptions.connected(this.#requests.messageBytesMax);
    this.#requests.flush();
    this.#set('connected', {}, {
      user: id === undefined ? null : { id, name: text(user?.name) ?? null },
      connection: text(frame.connection) ?? '',
    });
  }

  #ended(ending: Ending): void {
    const link = this.#link;
    this.#link = undefined;
    if (link?.welcomedAt && Date.now() - link.welcomedAt >= STABLE_MS) this.#failures = 0;
    const verdict = judge(ending, this.#options.hasToken, this.#drainingMs);
    this.#drainingMs = undefined;
    this.#failed(verdict, { closeCode: ending.code });
  }

  /** After the end of a connection or of an attempt. */
  #failed(verdict: Verdict, detail: StatusDetail): void {
    const epoch = ++this.#epoch;
    this.#lost();
    // A handler may have closed the client.
    if (epoch !== this.#epoch) return;
    if (verdict.stop) return this.#stop(verdict.error, { ...detail, error: verdict.error });
    this.#failures = Math.max(this.#failures, verdict.attempts ?? 0);
    const backoff = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_FIRST * 2 ** this.#failures);
    this.#failures += 1;
    const [least, most] = verdict.within ?? [0, backoff];
    const retryInMs = least + Math.random() * (most - least);
    this.#notBefore = Date.now() + (verdict.within ? retryInMs : 0);
    this.#retryIn(retryInMs);
    this.#set('reconnecting', { ...detail, error: verdict.error, retryInMs });
  }

  #retryIn(inMs: number): void {
    clearTimeout(this.#retry);
    this.#retryAt = Date.now() + inMs;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      void this.#attempt();
    }, inMs);
  }

  /** The machine woke up, the network came back, or the page is looked at again. */
  #woken(online: boolean): void {
    this.#link?.probe();
    if (this.#link?.ready && Date.now() >= this.#refreshAt) this.#refreshIn(0);
    if (!online || !this.#retry) return;
    this.#failures = 0;
    const soon = Math.random() * BACKOFF_MS_FIRST;
    // A delay that the server stated holds whatever wakes us.
    if (Date.now() >= this.#notBefore && Date.now() + soon < this.#retryAt) this.#retryIn(soon);
  }

  #lost(): void {
    clearTimeout(this.#refreshTimer);
    this.#refreshAt = Infinity;
    this.#subscriptions.lost();
    this.#requests.lost();
  }

  #stop(error: PipewardError, detail: StatusDetail): void {
    this.#epoch += 1;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#unlisten?.();
    this.#unlisten = undefined;
    const link = this.#link;
    this.#link = undefined;
    link?.drop();
    const closed = error.code === 'CLOSED' ? error : new PipewardError('CLOSED', error.message, { status: error.status, cause: error });
    this.#requests.stop(closed);
    this.#lost();
    if (this.#status !== 'disconnected') this.#set('disconnected', detail);
  }

  #set(status: Status, detail: StatusDetail, session: Session | null = null): void {
    this.#status = status;
    this.#sink.status(status, detail, session);
  }

  // ---- frames --------------------------------------------------------------------------------------------------

  #frame(frame: Frame): void {
    switch (frame.type) {
      case 'reply':
      case 'pong':
        return this.#requests.answered(frame);
      case 'event':
      case 'push':
        return this.#sink.frame(frame);
      case 'presence':
        return this.#subscriptions.presence(frame);
      case 'system':
        this.#system(frame);
        return this.#sink.frame(frame);
    }
  }

  #system(frame: Frame): void {
    switch (frame.event) {
      case 'expiring': {
        const inMs = millis(Number(frame.in_s) * 1_000);
        // Said at once where less than a minute is left, so it is no order to refresh at once: that would go round.
        if (inMs !== undefined) this.#refreshBefore(inMs);
        return;
      }
      case 'throttled':
        return this.#requests.hold(millis(frame.retry_after_ms) ?? 1_000);
      case 'draining':
        this.#drainingMs = millis(frame.reconnect_in_ms);
        return;
      default:
        return this.#subscriptions.system(frame);
    }
  }

  // ---- refresh -------------------------------------------------------------------------------------------------

  /** The rights end at this time; they are renewed at some point of the last quarter before it. */
  #expires(at: unknown): void {
    clearTimeout(this.#refreshTimer);
    this.#refreshAt = Infinity;
    this.#expiresAt = typeof at === 'number' ? at : undefined;
    // Clocks differ: an end that looks past is left to `expiring`, which counts from now.
    if (this.#expiresAt !== undefined && this.#expiresAt > Date.now()) this.#refreshBefore(this.#expiresAt - Date.now());
  }

  #refreshBefore(inMs: number): void {
    // A token that is no newer than the last must not be asked for ever faster.
    const wait = Math.max(REFRESH_MS_MIN, inMs * (0.75 + Math.random() * 0.15));
    if (Date.now() + wait < this.#refreshAt) this.#refreshIn(wait);
  }

  #refreshIn(inMs: number): void {
    clearTimeout(this.#refreshTimer);
    this.#refreshAt = Date.now() + inMs;
    this.#refreshTimer = setTimeout(() => {
      this.#refreshAt = Infinity;
      this.refresh().catch((error: PipewardError) => this.#refreshFailed(error));
    }, Math.min(inMs, TIMER_MS_MAX));
  }

  #refreshFailed(error: PipewardError): void {
    if (!this.#link?.ready) return;
    this.#sink.error(error);
    const left = (this.#expiresAt ?? Infinity) - Date.now();
    // Without a webhook there is nothing to renew with: the end comes, and a new connection after it.
    if (left < REFRESH_MS_MIN || left === Infinity || (!this.#options.hasToken && error.code === 'INVALID')) return;
    const wait = REFRESH_MS_MIN + (Math.random() * left) / 2;
    this.#refreshIn(Math.max(error.retryAfterMs ?? 0, wait));
  }

  /** One at a time. A call during one asks once more, because what it is for may have come too late for that one. */
  refresh(): Promise<void> {
    // Whoever connects next comes with new rights anyway.
    if (this.#status === 'idle') return Promise.resolve();
    if (!this.#refreshing) {
      this.#refreshing = this.#refresh().finally(() => (this.#refreshing = undefined));
      return this.#refreshing;
    }
    this.#refreshNext ??= this.#refreshing.catch(() => undefined).then(() => {
      this.#refreshNext = undefined;
      return this.refresh();
    });
    return this.#refreshNext;
  }

  async #refresh(): Promise<void> {
    const asked = this.#epoch;
    await this.#arrival();
    // A connection that was begun since has what was wanted.
    if (this.#since > asked) return;
    const link = this.#link;
    const token = this.#options.hasToken ? await this.#token('refresh') : undefined;
    if (token === null) throw SIGNED_OUT();
    if (link === this.#link) {
      try {
        this.#expires((await this.#requests.promise({ type: 'refresh', token }, true)).expires_at);
        // Rules may see others now, of which `grants_changed` does not tell.
        return this.#subscriptions.renew();
      } catch (error) {
        if ((error as PipewardError).code !== 'INTERRUPTED') throw error;
      }
    }
    // The connection ended meanwhile: the next one comes with a new token of its own.
    await this.#arrival();
  }

  /** Resolved while connected, or once it is: a ping that waits like everything else. */
  async #arrival(): Promise<void> {
    if (!this.#link?.ready) await this.#requests.promise({ type: 'ping' });
  }
}

/** An engine that is loaded with its first use. What is asked of it is asked in order once it is there. */
export function deferred(load: () => Promise<Engine>): Engine {
  let engine: Promise<Engine> | undefined;
  const call = (name: keyof Engine) => (...args: never[]) =>
    (engine ??= load()).then((loaded) => (loaded[name] as (...args: never[]) => unknown).apply(loaded, args));
  return new Proxy({} as Engine, { get: (_, name) => call(name as keyof Engine) });
}

const SIGNED_OUT = () => new PipewardError('UNAUTHENTICATED', 'Nobody is signed in; sign in, then connect()');

export function asError(error: unknown): PipewardError {
  if (error instanceof PipewardError) return error;
  return new PipewardError('UNAVAILABLE', `getToken failed: ${String(error)}`, { cause: error });
}

function address(url: string): string {
  const full = new URL(url, globalThis.location?.href);
  full.protocol = full.protocol.replace(/^http/, 'ws');
  if (full.pathname === '/') full.pathname = '/v1/connect';
  full.hash = '';
  return full.href;
}

/** Calls back with whether the network may just have come back. Returns what ends it. */
function listenForWaking(woken: (online: boolean) => void): () => void {
  const page = globalThis.document as Document | undefined;
  const heard = ({ type }: Event) => {
    if (type !== 'visibilitychange' || page?.visibilityState === 'visible') woken(type !== 'offline');
  };
  // Not every runtime has a page, or events at all.
  const each = (method: 'addEventListener' | 'removeEventListener') => {
    for (const type of ['online', 'offline', 'pageshow']) globalThis[method]?.(type, heard as EventListener);
    for (const type of ['visibilitychange', 'resume']) page?.[method]?.(type, heard as EventListener);
  };
  each('addEventListener');
  return () => each('removeEventListener');
}
