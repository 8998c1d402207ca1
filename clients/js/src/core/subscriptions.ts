/**
 * Which pipes the client is subscribed to, brought into line with which are wanted.
 *
 * Invariants: one request about a pipe is under way at a time, and what its answer leaves open is settled by the next;
 * after a reconnect everything wanted is asked for at once, up to 256 pipes in a message. What the server refused is not
 * asked again before something has changed: a connection, the grants, a restore, or the application asking anew.
 */

import { PipewardError } from './error.js';
import { isObject, isPipeName, members, millis, replyError, text, type Frame } from './protocol.js';
import type { Sink } from './engine.js';
import type { Member, PipeStatus, PresenceState } from './types.js';

/** What is wanted of a pipe. */
export interface Wish {
  readonly events: boolean;
  readonly presence: boolean;
}

class Subscription {
  wish: Wish | null = null;
  status: PipeStatus = 'idle';
  error: PipewardError | undefined;
  /** The server has it. */
  on = false;
  /** It has it with presence. */
  watched = false;
  /** A request about it is under way, or a wait before the next. */
  busy = false;
  /** It may be asked for. */
  again = true;
  /** The application on the server ended it: a reconnect does not bring it back. */
  ended = false;
  /** Presence was refused for this connection; events may still be had. */
  presenceRefused: PipewardError | undefined;
  failures = 0;
  presence: PresenceState | undefined;
  constructor(readonly pipe: string) {}
}

type Ask = (message: Frame, settle: (outcome: Frame | PipewardError) => void) => void;

const BATCH_PIPES_MAX = 256;
/** The longest name, its quotes and a comma. */
const PIPE_BYTES_MAX = 203;
const RETRY_MS_FIRST = 1_000;
const RETRY_MS_MAX = 30_000;
/** Codes that say nothing about the right: the same request may do well later. */
const PASSING = new Set<string>(['RATE_LIMITED', 'OVERLOADED', 'DRAINING', 'UNAVAILABLE', 'TIMEOUT', 'INTERNAL']);

export class Subscriptions {
  readonly #ask: Ask;
  readonly #sink: Sink;
  readonly #all = new Map<string, Subscription>();
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #connected = false;
  #scheduled = false;
  #batchMax = 0;

  constructor(ask: Ask, sink: Sink) {
    this.#ask = ask;
    this.#sink = sink;
  }

  want(pipe: string, wish: Wish | null): void {
    let one = this.#all.get(pipe);
    if (!one) {
      if (!wish) return;
      this.#all.set(pipe, (one = new Subscription(pipe)));
    }
    const watch = wish?.presence && !one.wish?.presence;
    one.wish = wish;
    if (!wish) {
      this.#set(one, 'idle');
      if (!this.#connected) this.#all.delete(one.pipe);
      return this.#schedule();
    }
    if (!isPipeName(pipe)) {
      // Never sent: the server refuses a whole batch for one bad name.
      one.ended = true;
      one.again = false;
      const why = `"${pipe}" cannot name a pipe: use 1 to 200 ASCII characters, no space, *, { or }`;
      return this.#set(one, 'denied', new PipewardError('INVALID', why));
    }
    one.again = true;
    one.ended = false;
    // Left and taken up again within one turn, it was never away. A revocation is told once, so it stays until it is over.
    if (one.status === 'idle' || one.status === 'denied') this.#set(one, one.on && !one.busy ? 'subscribed' : 'subscribing');
    if (watch) {
      one.presenceRefused = undefined;
      if (one.watched && one.presence) this.#sink.presence(pipe, { ...one.presence, joined: [], left: [] });
    }
    this.#schedule();
  }

  connected(messageBytesMax: number): void {
    this.#connected = true;
    this.#batchMax = Math.max(1, Math.min(BATCH_PIPES_MAX, Math.floor(messageBytesMax / PIPE_BYTES_MAX) - 1));
    this.renew();
  }

  /** The rights may be others than they were. Presence is asked for anew as well: the server does not tell that it ended. */
  renew(): void {
    for (const one of this.#all.values()) {
      one.again = !one.ended;
      one.presenceRefused = undefined;
      one.watched &&= !one.wish?.presence;
    }
    this.#sync();
  }

  lost(): void {
    this.#connected = false;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    for (const one of [...this.#all.values()]) {
      one.on = one.watched = one.busy = false;
      one.failures = 0;
      if (!one.wish) this.#all.delete(one.pipe);
      else if (one.status === 'subscribed') this.#set(one, 'subscribing');
    }
  }

  system(frame: Frame): void {
    const named = this.#all.get(text(frame.pipe) ?? '');
    switch (frame.event) {
      case 'pipe_revoked':
        if (named) this.#revoked(named, REVOKED());
        break;
      case 'all_pipes_revoked':
        for (const one of [...this.#all.values()]) this.#revoked(one, REVOKED());
        break;
      case 'pipe_restored':
      case 'grants_changed':
        this.renew();
        break;
      case 'unsubscribed':
        if (named) this.#unsubscribed(named, frame.reason === 'server');
        break;
    }
  }

  presence(frame: Frame): void {
    const one = this.#all.get(text(frame.pipe) ?? '');
    if (one?.watched && one.wish?.presence) this.#present(one, frame);
  }

  // ---- asking --------------------------------------------------------------------------------------------------

  /** At the end of the turn, so that what is left and taken up again within it costs nothing. */
  #schedule(): void {
    if (this.#scheduled || !this.#connected) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#sync();
    });
  }

  #sync(): void {
    if (!this.#connected) return;
    const leave: Subscription[] = [];
    const plain: Subscription[] = [];
    const watched: Subscription[] = [];
    for (const one of [...this.#all.values()]) {
      if (one.busy) continue;
      if (!one.wish) {
        if (one.on) leave.push(one);
        else this.#all.delete(one.pipe);
        continue;
      }
      const watch = one.wish.presence && !one.presenceRefused;
      if (one.on ? watch !== one.watched : one.again) (watch ? watched : plain).push(one);
    }
    this.#send('unsubscribe', leave, false);
    this.#send('subscribe', plain, false);
    this.#send('subscribe', watched, true);
  }

  #send(type: 'subscribe' | 'unsubscribe', all: Subscription[], presence: boolean): void {
    if (all.length > this.#batchMax) this.#send(type, all.splice(this.#batchMax), presence);
    if (all.length === 0) return;
    for (const one of all) {
      one.busy = true;
      one.again = false;
    }
    this.#ask({ type, pipes: all.map(({ pipe }) => pipe), ...(presence && { presence }) }, (outcome) => {
      // The rest comes with the loss of the connection, until which nothing more can be asked.
      if (outcome instanceof PipewardError && outcome.code === 'INTERRUPTED') return;
      const again: Subscription[] = [];
      let retryAfterMs = 0;
      for (const one of all) {
        one.busy = false;
        const result = outcome instanceof PipewardError ? outcome : (outcome.results as Frame | undefined)?.[one.pipe];
        const taken = isObject(result) && result.ok === true;
        const error = result instanceof PipewardError ? result : replyError(isObject(result) ? result : {});
        if (!taken && PASSING.has(error.code)) {
          retryAfterMs = Math.max(retryAfterMs, error.retryAfterMs ?? 0);
          again.push(one);
        } else if (type === 'unsubscribe') {
          // Whatever it says, the server has it no more.
          one.on = one.watched = false;
          one.again = true;
        } else if (taken) {
          this.#taken(one, result, presence);
        } else {
          this.#refused(one, error, presence);
        }
      }
      this.#later(again, retryAfterMs);
      this.#schedule();
    });
  }

  #taken(one: Subscription, result: Frame, watched: boolean): void {
    one.on = true;
    one.ended = false;
    one.watched = watched;
    one.failures = 0;
    if (!one.wish) return;
    const { presenceRefused } = one;
    this.#set(one, 'subscribed');
    if (watched) this.#present(one, result);
    else if (presenceRefused && one.wish?.presence) this.#sink.error(presenceRefused);
  }

  #refused(one: Subscription, error: PipewardError, watch: boolean): void {
    if (!one.wish) return;
    if (error.code === 'REVOKED') {
      const news = one.status !== 'revoked';
      this.#revoked(one, error);
      // It happened while we were away: the application is told as if it had been here.
      if (news) this.#sink.frame({ type: 'system', event: 'pipe_revoked', pipe: one.pipe });
    } else if (watch && error.code === 'FORBIDDEN' && one.wish.events) {
      // All or nothing, says the server; the events alone are still worth having.
      one.presenceRefused = new PipewardError(error.code, `Presence of "${one.pipe}": ${error.message}`);
      one.again = true;
      if (one.on) this.#taken(one, {}, false);
    } else {
      one.on = one.watched = false;
      this.#denied(one, error);
    }
  }

  /** Together, so that they go in one message again. */
  #later(all: Subscription[], leastMs: number): void {
    const failures = Math.max(0, ...all.map((one) => one.failures++));
    const backoff = Math.random() * Math.min(RETRY_MS_MAX, RETRY_MS_FIRST * 2 ** failures);
    for (const one of all) one.busy = true;
    if (all.length === 0) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      for (const one of all) {
        one.busy = false;
        one.again = true;
      }
      this.#schedule();
    }, leastMs + backoff);
    this.#timers.add(timer);
  }

  // ---- what became of it ---------------------------------------------------------------------------------------

  #revoked(one: Subscription, error: PipewardError): void {
    one.on = one.watched = false;
    one.again = false;
    if (!one.wish || !isPipeName(one.pipe)) return;
    // It waits for the restore now, whatever it waited for before.
    one.ended = false;
    this.#set(one, 'revoked', error);
  }

  #unsubscribed(one: Subscription, ended: boolean): void {
    one.on = one.watched = false;
    one.again = false;
    one.ended = ended;
    if (!one.wish) return;
    this.#denied(one, ended
      ? new PipewardError('NOT_SUBSCRIBED', 'The application ended it; listen anew')
      : new PipewardError('FORBIDDEN', 'The right ended; when it is granted again the client subscribes again'));
  }

  #denied(one: Subscription, error: PipewardError): void {
    const news = one.status !== 'denied' || one.error?.code !== error.code;
    this.#set(one, 'denied', error);
    if (news) this.#sink.error(new PipewardError(error.code, `Pipe "${one.pipe}": ${error.message}`, { cause: error }));
  }

  #set(one: Subscription, status: PipeStatus, error?: PipewardError): void {
    const changed = one.status !== status || one.error?.code !== error?.code;
    one.status = status;
    one.error = error;
    if (changed) this.#sink.pipe(one.pipe, status, error);
  }

  // ---- presence ------------------------------------------------------------------------------------------------

  /** A reply or frame with `members` is the whole list; one with `joined` and `left` builds on it; one with neither voids it. */
  #present(one: Subscription, frame: Frame): void {
    const before = one.presence?.members ?? [];
    const whole = Array.isArray(frame.members);
    const known = whole || Array.isArray(frame.joined) || Array.isArray(frame.left);
    const now = whole ? members(frame.members) : known ? change(before, members(frame.joined), members(frame.left)) : [];
    const total = millis(frame.total) ?? now.length;
    const state: PresenceState = {
      members: now,
      total,
      anonymous: millis(frame.anonymous) ?? one.presence?.anonymous ?? 0,
      complete: now.length === total,
      joined: without(now, before),
      left: known ? without(before, now) : [],
    };
    one.presence = state;
    this.#sink.presence(one.pipe, state);
  }
}

/** The same id may stand on the list once for each tenant: one entry leaves for each that left. */
function change(before: readonly Member[], joined: readonly Member[], left: readonly Member[]): Member[] {
  const now = [...before];
  for (const { user } of left) {
    const place = now.findIndex((member) => member.user === user);
    if (place >= 0) now.splice(place, 1);
  }
  return now.concat(joined);
}

function without(those: readonly Member[], these: readonly Member[]): Member[] {
  const users = new Set(these.map(({ user }) => user));
  return those.filter(({ user }) => !users.has(user));
}

const REVOKED = () => new PipewardError('REVOKED', 'The right was revoked; when it is restored the client subscribes again');
