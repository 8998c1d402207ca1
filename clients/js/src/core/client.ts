/**
 * The client that applications hold: handlers, typed events, and the pipes that follow from them. What the connection
 * does is the engine's.
 *
 * Invariant: nothing that the server sends, and nothing that a handler throws, leaves through the call that brought it;
 * both go to `onError`.
 */

import type { AnyEvents } from '../events.js';
import { deferred, WireEngine, type Engine, type Session, type Sink } from './engine.js';
import { PipewardError } from './error.js';
import { checkSent, Handle, Handlers, received, type Room, type Surroundings } from './pipe.js';
import { millis, text, type Frame } from './protocol.js';
import { token } from './token.js';
import type { Client, ClientOptions, Off, Pipe, PushEvent, PushTarget, Status, StatusDetail } from './types.js';

/** A client. It connects with the first use, not before. */
export function createClient<Sent extends object = AnyEvents, Received extends object = Sent>(
  options: ClientOptions<Sent, Received>,
): Client<Sent, Received> {
  // Inside, events have no types: those are a promise to the compiler, kept by the validators where there are any.
  return new CoreClient(options as unknown as ClientOptions) as Client as unknown as Client<Sent, Received>;
}

class CoreClient implements Client {
  status: Status = 'idle';
  readonly #options: ClientOptions;
  readonly #engine: Engine;
  readonly #around: Surroundings;
  readonly #rooms = new Map<string, Room>();
  readonly #pushes = new Map<string, Handlers<[PushEvent]>>();
  readonly #statuses = new Handlers<[Status, StatusDetail]>();
  #session: Session | null = null;

  constructor(options: ClientOptions) {
    this.#options = options;
    const { getToken, share, shareKey } = options;
    const sink: Sink = {
      status: (...news) => this.#changed(...news),
      frame: (frame) => this.#frame(frame),
      pipe: (pipe, status, error) => this.#rooms.get(pipe)?.changed(status, error),
      presence: (pipe, state) => this.#rooms.get(pipe)?.presence(state),
      error: (error) => this.#report(error),
      token: (reason) => (getToken ? token(getToken, reason) : Promise.resolve(null)),
    };
    const wire = { ...options, hasToken: getToken !== undefined };
    const engine = (its = wire, to = sink) => new WireEngine(its, to);
    // Where sharing fails, the tab has a connection of its own.
    this.#engine = share
      ? deferred(() =>
          import('../share/index.js')
            .then(({ open }) => open(share, shareKey, wire, sink, { engine, PipewardError }))
            .catch(() => engine()),
        )
      : engine();
    this.#around = {
      engine: this.#engine,
      events: options.events,
      rooms: this.#rooms,
      call: (handler, ...args) => this.#call(handler, ...args),
      error: sink.error,
      disconnected: () => this.status === 'disconnected',
    };
  }

  get user() {
    return this.#session?.user ?? null;
  }

  get connection() {
    return this.#session?.connection ?? null;
  }

  connect(): void {
    this.#engine.connect();
  }

  close(): void {
    this.#engine.close();
  }

  pipe(name: string): Pipe {
    return new Handle(name, this.#around);
  }

  async action<Result>(name: string, args?: unknown): Promise<Result> {
    return (await this.#engine.request({ type: 'action', name, args })).result as Result;
  }

  async enqueue(queue: string, data?: unknown): Promise<void> {
    await this.#engine.request({ type: 'enqueue', queue, data });
  }

  async push(to: PushTarget, event: string, data: unknown): Promise<void> {
    checkSent(this.#options.events, event, data);
    await this.#engine.request({ type: 'push', to, event, data });
  }

  onPush(event: string, handler: (message: never) => void): Off {
    this.#engine.wake();
    let handlers = this.#pushes.get(event);
    if (!handlers) this.#pushes.set(event, (handlers = new Handlers()));
    return handlers.add(handler as (message: PushEvent) => void);
  }

  refreshPipeAuth(): Promise<void> {
    return this.#engine.refresh();
  }

  onStatus(handler: (status: Status, detail: StatusDetail) => void): Off {
    return this.#statuses.add(handler);
  }

  #changed(status: Status, detail: StatusDetail, session: Session | null): void {
    this.status = status;
    this.#session = session;
    if (status === 'disconnected') for (const room of [...this.#rooms.values()]) room.closed();
    this.#call(this.#options.onStatus, status, detail);
    this.#statuses.run(this.#around.call, status, detail);
  }

  #frame(frame: Frame): void {
    const { event, pipe } = frame;
    if (typeof event !== 'string') return;
    if (frame.type === 'system') return this.#system(event, frame);
    const message = { event, data: frame.data, sender: text(frame.sender) ?? null, ts: millis(frame.ts, Infinity) ?? Date.now() };
    if (typeof pipe === 'string') return this.#rooms.get(pipe)?.event(message);
    const handlers = this.#pushes.get(event);
    const checked = handlers?.size ? received(this.#around, event, frame.data) : undefined;
    if (checked) handlers?.run(this.#around.call, { ...message, ...checked });
  }

  #system(event: string, frame: Frame): void {
    const options = this.#options;
    const pipe = text(frame.pipe);
    if (event === 'all_pipes_revoked') this.#call(options.onAllPipesRevoked);
    if (event === 'throttled') this.#call(options.onThrottled, millis(frame.retry_after_ms) ?? 1_000);
    if (pipe === undefined) return;
    if (event === 'pipe_revoked') this.#call(options.onPipeRevoked, pipe);
    if (event === 'pipe_restored') this.#call(options.onPipeRestored, pipe);
    if (event === 'lagged') this.#call(options.onLagged, pipe, millis(frame.dropped) ?? 0);
  }

  #call<Arguments extends unknown[]>(handler: ((...args: Arguments) => void) | undefined, ...args: Arguments): void {
    try {
      handler?.(...args);
    } catch (cause) {
      this.#report(new PipewardError('INTERNAL', `A handler threw: ${String(cause)}`, { cause }));
    }
  }

  #report(error: PipewardError): void {
    const { onError } = this.#options;
    try {
      if (onError) return onError(error);
    } catch {
      // Then at least it is seen.
    }
    console.warn('pipeward', error);
  }
}
