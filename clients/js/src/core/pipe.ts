/**
 * Pipes as an application holds them. A `Room` is what all handles of one name share: their handlers, and how the
 * subscription stands. It is kept while anybody listens.
 */

import type { EventDefinitions } from '../events.js';
import type { Engine } from './engine.js';
import { PipewardError } from './error.js';
import { members } from './protocol.js';
import type { Member, Off, Pipe, PipeEvent, PipeStatus, PresenceState, PublishOptions } from './types.js';

/** What rooms and handles need of their client. */
export interface Surroundings {
  readonly engine: Engine;
  readonly events: EventDefinitions | undefined;
  readonly rooms: Map<string, Room>;
  /** Calls a handler of the application; what it throws is reported. */
  call<Arguments extends unknown[]>(handler: ((...args: Arguments) => void) | undefined, ...args: Arguments): void;
  error(error: PipewardError): void;
  disconnected(): boolean;
}

/** Handlers in the order in which they came. The same function may stand here several times, each with its own end. */
export class Handlers<Arguments extends unknown[]> {
  readonly #all = new Set<(...args: Arguments) => void>();

  get size(): number {
    return this.#all.size;
  }

  add(handler: (...args: Arguments) => void): Off {
    const own = (...args: Arguments) => handler(...args);
    this.#all.add(own);
    return () => void this.#all.delete(own);
  }

  /** One that is taken off meanwhile is not called any more. */
  run(call: Surroundings['call'], ...args: Arguments): void {
    for (const own of [...this.#all]) if (this.#all.has(own)) call(own, ...args);
  }
}

/** What a validator makes of a payload that has arrived, or undefined if it must not reach a handler. */
export function received(around: Surroundings, event: string, data: unknown): { readonly data: unknown } | undefined {
  const checked = around.events?.check?.(event, data);
  if (!checked) return { data };
  // An event that is not declared has nobody who asked for it by name; `onAny` takes it as it is.
  if (checked.ok || checked.unknown) return { data: checked.ok ? checked.data : data };
  around.error(new PipewardError('INVALID_EVENT', `Left out what arrived. ${checked.reason}`));
  return undefined;
}

/** Throws unless the payload may be sent. */
export function checkSent(events: EventDefinitions | undefined, event: string, data: unknown): void {
  const checked = events?.check?.(event, data);
  if (checked?.ok === false) throw new PipewardError('INVALID_EVENT', `Not sent. ${checked.reason}`);
}

/** Under this the handlers of every event stand: no event has an empty name. */
const ANY = '';

export class Room {
  status: PipeStatus = 'idle';
  error: PipewardError | undefined;
  readonly #named = new Map<string, Handlers<[PipeEvent]>>();
  readonly #presence = new Handlers<[PresenceState]>();
  readonly #statuses = new Handlers<[PipeStatus, PipewardError | undefined]>();
  #present: PresenceState | undefined;
  #level = 0;
  #subscribed: Deferred | undefined;

  constructor(
    readonly name: string,
    readonly around: Surroundings,
  ) {}

  get subscribed(): Promise<void> {
    // One that is settled while the subscription is open again is of the past.
    if (!this.#subscribed || (this.#subscribed.done && this.status === 'subscribing')) {
      this.#subscribed = new Deferred();
      // Whoever does not look at it hears of a refusal by other ways.
      this.#subscribed.promise.catch(() => undefined);
    }
    this.#settle();
    return this.#subscribed.promise;
  }

  on(event: string, handler: (message: PipeEvent) => void): Off {
    let handlers = this.#named.get(event);
    if (!handlers) this.#named.set(event, (handlers = new Handlers()));
    return this.#listening(handlers.add(handler));
  }

  onAny(handler: (message: PipeEvent) => void): Off {
    return this.on(ANY, handler);
  }

  onStatus(handler: (status: PipeStatus, error: PipewardError | undefined) => void): Off {
    return this.#listening(this.#statuses.add(handler), false);
  }

  onPresence(handler: (presence: PresenceState) => void): Off {
    const off = this.#listening(this.#presence.add(handler));
    if (this.#present) this.around.call(handler, { ...this.#present, joined: [], left: [] });
    return off;
  }

  event(frame: Omit<PipeEvent, 'pipe'>): void {
    const those = [frame.event, ANY].flatMap((name) => this.#named.get(name) ?? []);
    const checked = those.length > 0 && received(this.around, frame.event, frame.data);
    if (!checked) return;
    for (const handlers of those) handlers.run(this.around.call, { pipe: this.name, ...frame, ...checked });
  }

  presence(state: PresenceState): void {
    this.#present = state;
    this.#presence.run(this.around.call, state);
  }

  changed(status: PipeStatus, error: PipewardError | undefined): void {
    this.status = status;
    this.error = error;
    if (this.#subscribed?.done) this.#subscribed = undefined;
    this.#settle();
    this.#statuses.run(this.around.call, status, error);
  }

  /** The client is disconnected for good: whoever waits for the subscription waits in vain. */
  closed(): void {
    this.#settle();
  }

  #listening(taken: Off, anew = true): Off {
    this.#want(anew);
    return () => {
      taken();
      this.#want(false);
    };
  }

  /** Tells the engine what is wanted, where that has changed or is asked for once more. */
  #want(anew: boolean): void {
    const wish = { events: [...this.#named.values()].some(({ size }) => size > 0), presence: this.#presence.size > 0 };
    const level = Number(wish.events) + 2 * Number(wish.presence);
    const { rooms, engine } = this.around;
    const changed = level !== this.#level;
    this.#level = level;
    if (!wish.presence) this.#present = undefined;
    if (level || this.#statuses.size) rooms.set(this.name, this);
    if (changed || (anew && level)) engine.want(this.name, level ? wish : null);
    if (level || this.#statuses.size || rooms.get(this.name) !== this) return;
    rooms.delete(this.name);
    this.#subscribed?.settle(new PipewardError('CLOSED', 'Nobody listens to it any more'));
  }

  #settle(): void {
    if (this.status === 'subscribed') this.#subscribed?.settle();
    else if (this.error) this.#subscribed?.settle(this.error);
    else if (this.status === 'subscribing' && this.around.disconnected()) {
      this.#subscribed?.settle(new PipewardError('CLOSED', 'The client is disconnected; connect() subscribes again'));
    }
  }
}

/** A promise that is settled from outside; the first time counts. */
class Deferred {
  done = false;
  settle!: (error?: PipewardError) => void;
  readonly promise = new Promise<void>((resolve, reject) => {
    this.settle = (error) => {
      this.done = true;
      if (error) reject(error);
      else resolve();
    };
  });
}

/** What an application holds. It remembers its own handlers, for `leave`. */
export class Handle implements Pipe {
  readonly #offs = new Set<Off>();

  constructor(
    readonly name: string,
    readonly around: Surroundings,
  ) {}

  get status(): PipeStatus {
    return this.around.rooms.get(this.name)?.status ?? 'idle';
  }

  get error(): PipewardError | undefined {
    return this.around.rooms.get(this.name)?.error;
  }

  get subscribed(): Promise<void> {
    return this.#room().subscribed;
  }

  // The compiler checks events by `Pipe<Sent, Received>`; in here any name and payload will do.
  on(event: string, handler: (message: never) => void): Off {
    return this.#keep(this.#room().on(event, handler as (message: PipeEvent) => void));
  }

  onAny(handler: (message: PipeEvent) => void): Off {
    return this.#keep(this.#room().onAny(handler));
  }

  onPresence(handler: (presence: PresenceState) => void): Off {
    return this.#keep(this.#room().onPresence(handler));
  }

  onStatus(handler: (status: PipeStatus, error: PipewardError | undefined) => void): Off {
    return this.#keep(this.#room().onStatus(handler));
  }

  async publish(event: string, data: unknown, options?: PublishOptions): Promise<void> {
    checkSent(this.around.events, event, data);
    const quiet = options?.echo === false && { echo: false };
    await this.around.engine.request({ type: 'publish', pipe: this.name, event, data, ...quiet });
  }

  async presence(): Promise<Member[]> {
    return members((await this.around.engine.request({ type: 'presence', pipe: this.name })).members);
  }

  leave(): void {
    for (const off of [...this.#offs]) off();
  }

  #keep(off: Off): Off {
    const own = () => {
      this.#offs.delete(own);
      off();
    };
    this.#offs.add(own);
    return own;
  }

  /** Looked up each time: a room that nobody listened to is gone, and another handle may have made the next. */
  #room(): Room {
    const { rooms } = this.around;
    let room = rooms.get(this.name);
    if (!room) rooms.set(this.name, (room = new Room(this.name, this.around)));
    return room;
  }
}
