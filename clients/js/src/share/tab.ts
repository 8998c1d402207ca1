/**
 * An engine whose connection is in another place. It remembers what is wanted and what is asked, so that it can begin anew
 * with another hub when the one it had is gone.
 *
 * Invariant: a request is answered exactly once: by the hub, or with `INTERRUPTED` if that went with the request, `TIMEOUT`
 * if it hangs, `OFFLINE` if there was none in time, `CLOSED` at the end.
 */

import type { Engine, Sink } from '../core/engine.js';
import type { ErrorCode, PipewardError } from '../core/error.js';
import type { Frame } from '../core/protocol.js';
import type { Wish } from '../core/subscriptions.js';
import { plain, type Core, type FromHub, type FromTab, type PlainError, type PlainOptions, type Wire } from './messages.js';

interface Asked {
  readonly message: Extract<FromTab, { t: 'ask' | 'refresh' }>;
  readonly resolve: (reply: Frame) => void;
  readonly reject: (error: PipewardError) => void;
  /** The hub has it. */
  sent: boolean;
  /** Runs until it is answered. */
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** What a hub may need beyond the times of the options: tokens, and tabs that are asked for one in vain. */
const HUB_MS = 30_000;

export class TabEngine implements Engine {
  readonly #wire: Wire<FromTab, FromHub>;
  readonly #options: PlainOptions;
  readonly #sink: Sink;
  readonly #core: Core;
  readonly #wants = new Map<string, Wish>();
  readonly #asked = new Map<number, Asked>();
  #state: 'idle' | 'taking part' | 'out' = 'idle';
  #hub: string | undefined;
  #lastId = 0;

  constructor(wire: Wire<FromTab, FromHub>, options: PlainOptions, sink: Sink, core: Core) {
    this.#core = core;
    this.#wire = wire;
    this.#options = options;
    this.#sink = sink;
    wire.listen((message) => this.#heard(message));
  }

  connect(): void {
    if (this.#state === 'taking part') return;
    this.#state = 'taking part';
    this.#sink.status('connecting', {}, null);
    if (this.#hub) this.#hello();
    else this.#wire.post({ t: 'who' });
  }

  wake(): void {
    if (this.#state === 'idle') this.connect();
  }

  close(): void {
    if (this.#state === 'out') return;
    this.#wire.post({ t: 'bye' });
    this.#out(this.#error('CLOSED', 'The client was closed; call connect() to use it again'));
    this.#sink.status('disconnected', {}, null);
  }

  /** The page is put away; it takes part again when it is shown again. */
  pause(): void {
    if (this.#state === 'taking part') this.#wire.post({ t: 'bye' });
  }

  resume(): void {
    if (this.#state !== 'taking part') return;
    this.#interrupt();
    if (this.#hub) this.#hello();
    else this.#wire.post({ t: 'who' });
  }

  want(pipe: string, wish: Wish | null): void {
    if (wish) this.#wants.set(pipe, wish);
    else this.#wants.delete(pipe);
    if (wish) this.wake();
    if (this.#state === 'taking part' && this.#hub) this.#wire.post({ t: 'want', pipe, wish });
    else this.#sink.pipe(pipe, wish ? 'subscribing' : 'idle', undefined);
  }

  request(message: Frame): Promise<Frame> {
    this.wake();
    try {
      // What is asked is what it would be as JSON now: a clone refuses functions and proxies, and forgets `toJSON`.
      const copy = JSON.parse(JSON.stringify(message)) as Frame;
      return this.#ask((id) => ({ t: 'ask', id, message: copy }));
    } catch (cause) {
      return Promise.reject(this.#error('INVALID', `This cannot be sent as JSON: ${String(cause)}`, { cause }));
    }
  }

  async refresh(): Promise<void> {
    if (this.#state !== 'idle') await this.#ask((id) => ({ t: 'refresh', id }));
  }

  #ask(make: (id: number) => Asked['message']): Promise<Frame> {
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      const one: Asked = { message: make(id), resolve, reject, sent: false, timer: undefined };
      const waiting = [...this.#asked.values()].filter(({ sent }) => !sent).length;
      if (this.#state === 'out') return reject(this.#error('CLOSED', 'The client is disconnected; call connect() to use it again'));
      if (this.#hub) return this.#send(one);
      if (waiting >= (this.#options.offline?.max ?? 100)) return reject(this.#error(...OFFLINE));
      one.timer = setTimeout(() => {
        this.#asked.delete(id);
        reject(this.#error(...OFFLINE));
      }, this.#options.offline?.ttlMs ?? 30_000);
      this.#asked.set(id, one);
    });
  }

  #send(one: Asked): void {
    const { offline, timeoutMs = 15_000 } = this.#options;
    clearTimeout(one.timer);
    one.sent = true;
    this.#asked.set(one.message.id, one);
    this.#wire.post(one.message);
    // A hub that is alive answers sooner, twice over for a renewal. One that hangs must not have the application hang with it.
    one.timer = setTimeout(() => {
      this.#asked.delete(one.message.id);
      one.reject(this.#error('TIMEOUT', 'The tab that has the connection does not answer: it may have been done. Look before you repeat it'));
    }, 2 * ((offline?.ttlMs ?? 30_000) + timeoutMs) + HUB_MS);
  }

  #hello(): void {
    this.#wire.post({ t: 'hello', options: this.#options, wants: this.#wants });
    for (const one of [...this.#asked.values()]) if (!one.sent) this.#send(one);
  }

  #interrupt(): void {
    for (const [id, one] of [...this.#asked]) {
      if (!one.sent) continue;
      clearTimeout(one.timer);
      this.#asked.delete(id);
      one.reject(this.#error('INTERRUPTED', 'The tab that had the connection is gone: it may have been done or not. Look before you repeat it'));
    }
  }

  #out(error: PipewardError): void {
    this.#state = 'out';
    for (const one of this.#asked.values()) {
      clearTimeout(one.timer);
      one.reject(error);
    }
    this.#asked.clear();
  }

  #heard(message: FromHub): void {
    if (message.t === 'ready') return this.#ready(message.hub);
    if (this.#state !== 'taking part') return;
    switch (message.t) {
      case 'status': {
        const { error, ...rest } = message.detail;
        const detail = { ...rest, ...(error && { error: this.#revive(error) }) };
        if (message.status === 'disconnected') this.#out(this.#error('CLOSED', error?.message ?? 'The client was closed'));
        return this.#sink.status(message.status, detail, message.session);
      }
      case 'frame':
        return this.#sink.frame(message.frame);
      case 'pipe':
        // An answer to an earlier wish says nothing about what is wanted now.
        if ((message.status === 'idle') === this.#wants.has(message.pipe)) return;
        return this.#sink.pipe(message.pipe, message.status, message.error && this.#revive(message.error));
      case 'presence':
        return this.#sink.presence(message.pipe, message.state);
      case 'error':
        return this.#sink.error(this.#revive(message.error));
      case 'answer': {
        const one = this.#asked.get(message.id);
        if (!one) return;
        this.#asked.delete(message.id);
        clearTimeout(one.timer);
        return message.error ? one.reject(this.#revive(message.error)) : one.resolve(message.reply ?? {});
      }
      case 'token':
        this.#sink.token(message.reason).then(
          (token) => this.#wire.post({ t: 'token', id: message.id, token }),
          (error: unknown) => this.#wire.post({ t: 'token', id: message.id, error: plain(error) }),
        );
    }
  }

  #error(code: ErrorCode, message: string, detail?: ConstructorParameters<typeof PipewardError>[2]): PipewardError {
    return new this.#core.PipewardError(code, message, detail);
  }

  #revive(error: PlainError): PipewardError {
    return this.#error(error.code, error.message, error);
  }

  #ready(hub: string): void {
    if (hub === this.#hub) return;
    const before = this.#hub;
    this.#hub = hub;
    if (this.#state !== 'taking part') return;
    if (before) {
      this.#interrupt();
      this.#sink.status('reconnecting', {}, null);
    }
    this.#hello();
  }
}

const OFFLINE = ['OFFLINE', 'No tab had the connection in time; this was not sent. Try again when connected'] as const;
