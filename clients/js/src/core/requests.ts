/**
 * What is asked of the server: over the connection if there is one, otherwise in a queue until there is, each answered
 * exactly once.
 *
 * Invariants: requests go out in the order in which they were asked; an answer is handed on in the turn in which it arrives,
 * so that what comes behind it is seen after it. Bounds: 1,024 in flight, and a queue of `offline.max`, each for `offline.ttlMs`.
 */

import { PipewardError } from './error.js';
import type { Link } from './link.js';
import { replyError, type Frame } from './protocol.js';
import type { ClientOptions } from './types.js';

/** Takes the answer, or why there is none. */
export type Settle = (outcome: Frame | PipewardError) => void;

interface Request {
  readonly id: number;
  readonly text: string;
  readonly settle: Settle;
  /** When it has waited for too long; a timer stands still while the machine sleeps. Unix milliseconds. */
  readonly dueAt: number;
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** Requests that are answered at the same time at most; further ones wait. */
const IN_FLIGHT_MAX = 1_024;

export class Requests {
  /** The server would end the connection over a longer message. */
  messageBytesMax = Infinity;
  /** Why nothing can be asked, after the end. */
  stopped: PipewardError | undefined;
  readonly #options: Pick<ClientOptions, 'offline' | 'timeoutMs'>;
  readonly #link: () => Link | undefined;
  #lastId = 0;
  #queue: Request[] = [];
  readonly #inFlight = new Map<number, Request>();
  #holdUntil = 0;

  constructor(options: Pick<ClientOptions, 'offline' | 'timeoutMs'>, link: () => Link | undefined) {
    this.#options = options;
    this.#link = link;
  }

  promise(message: Frame, now = false): Promise<Frame> {
    return new Promise((resolve, reject) => {
      this.ask(message, now, (outcome) => (outcome instanceof PipewardError ? reject(outcome) : resolve(outcome)));
    });
  }

  /** `now`: only over the connection that there is, ahead of what waits. */
  ask(message: Frame, now: boolean, settle: Settle): void {
    if (this.stopped) return settle(this.stopped);
    const id = ++this.#lastId;
    let body: string;
    try {
      // Written at once: what the application does to its object afterwards does not change what it has asked.
      body = JSON.stringify({ ...message, id });
    } catch (cause) {
      return settle(new PipewardError('INVALID', `This cannot be sent as JSON: ${String(cause)}`, { cause }));
    }
    const { max = 100, ttlMs = 30_000 } = this.#options.offline ?? {};
    const one: Request = { id, text: body, settle, dueAt: Date.now() + ttlMs, timer: undefined };
    if (now || (this.#open() && !this.#queue.length)) return this.#send(one);
    if (this.#queue.length >= max) return settle(OFFLINE());
    one.timer = setTimeout(() => {
      this.#queue = this.#queue.filter((other) => other !== one);
      settle(OFFLINE());
    }, ttlMs);
    this.#queue.push(one);
  }

  answered(frame: Frame): void {
    const one = this.#inFlight.get(frame.id as number);
    if (!one) return;
    this.#inFlight.delete(one.id);
    settle(one, frame.ok === true || frame.type === 'pong' ? frame : replyError(frame));
    this.flush();
  }

  /** Sends what waits, as far as it may. */
  flush(): void {
    while (this.#queue.length > 0 && this.#open()) {
      const one = this.#queue.shift()!;
      if (Date.now() > one.dueAt) settle(one, OFFLINE());
      else this.#send(one);
    }
  }

  /** Nothing goes out for so long. */
  hold(inMs: number): void {
    const until = Date.now() + inMs;
    this.#holdUntil = until;
    setTimeout(() => {
      // Unless it was prolonged, or ended with its connection.
      if (this.#holdUntil !== until) return;
      this.#holdUntil = 0;
      this.flush();
    }, inMs);
  }

  /** The connection is gone. What was sent and not answered has an unknown fate; what waits goes on waiting. */
  lost(): void {
    this.#holdUntil = 0;
    const interrupted = [...this.#inFlight.values()];
    this.#inFlight.clear();
    for (const one of interrupted) settle(one, INTERRUPTED());
  }

  /** What waits is answered with this, and so is everything that is asked from now on. */
  stop(error: PipewardError): void {
    this.stopped = error;
    for (const one of this.#queue.splice(0)) settle(one, error);
  }

  /** Whether another request may go out. Wherever this becomes true the queue is emptied in the same turn. */
  #open(): boolean {
    return this.#link()?.ready === true && this.#inFlight.size < IN_FLIGHT_MAX && this.#holdUntil === 0;
  }

  #send(one: Request): void {
    clearTimeout(one.timer);
    if (isLonger(one.text, this.messageBytesMax)) {
      return one.settle(new PipewardError('PAYLOAD_TOO_LARGE', `Not sent: over ${this.messageBytesMax} bytes; send less`));
    }
    if (!this.#link()?.send(one.text)) return one.settle(INTERRUPTED());
    this.#inFlight.set(one.id, one);
    one.timer = setTimeout(() => {
      this.#inFlight.delete(one.id);
      one.settle(new PipewardError('TIMEOUT', `No answer in time${PERHAPS}`));
      this.flush();
    }, this.#options.timeoutMs ?? 15_000);
  }
}

function settle(one: Request, outcome: Frame | PipewardError): void {
  clearTimeout(one.timer);
  one.settle(outcome);
}

const OFFLINE = () => new PipewardError('OFFLINE', 'Not sent: it waited too long, or behind too much. Try again when connected');
const PERHAPS = ': it may be done. Look before you repeat it';
const INTERRUPTED = () => new PipewardError('INTERRUPTED', `The connection ended before the answer${PERHAPS}`);

const encoder = new TextEncoder();

/** Whether a text has more bytes than that; a unit of a string is three at most. */
const isLonger = (body: string, bytes: number): boolean => body.length * 3 > bytes && encoder.encode(body).length > bytes;
