/**
 * What the wire says, read with suspicion: a frame or a close reason that is not what it should be is treated as absent
 * and never as an exception. The table of endings is that of docs/protocol.md, "Close codes" and "Refusals".
 */

import { PipewardError, type ErrorCode } from './error.js';
import type { Member } from './types.js';

export const SUBPROTOCOL = 'pipeward.v1';

/** A text frame that is a JSON object. Every field of it is unknown until it is looked at. */
export type Frame = Readonly<Record<string, unknown>>;

export const isObject = (value: unknown): value is Frame => typeof value === 'object' && value !== null && !Array.isArray(value);

export function parse(text: unknown): Frame | undefined {
  if (typeof text !== 'string') return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** A number from the wire that is not negative; one of milliseconds is short enough for a timer. */
export function millis(value: unknown, most = TIMER_MS_MAX): number | undefined {
  return typeof value === 'number' && value >= 0 ? Math.min(value, most) : undefined;
}

/** Timers overflow beyond 2³¹ and would fire at once; this leaves room for what is added to it. Twelve days. */
export const TIMER_MS_MAX = 2 ** 30;

export const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);

export function members(value: unknown): Member[] {
  if (!Array.isArray(value)) return [];
  return value.filter((entry): entry is Member => isObject(entry) && typeof entry.user === 'string');
}

/** The name of a pipe, as the server would accept it: one bad name must not spoil a whole batch. */
export const isPipeName = (name: string): boolean => /^[!-)+-z|~]{1,200}$/.test(name);

/** The error of a reply, or of one result in it, that is not `ok`. */
export function replyError(reply: Frame): PipewardError {
  const code = text(reply.code) ?? 'INTERNAL';
  return new PipewardError(code, `${text(reply.error) ?? 'Refused'}${HINTS[code] ?? ''}`, {
    retryAfterMs: millis(reply.retry_after_ms),
  });
}

const HINTS: Readonly<Record<string, string>> = {
  FORBIDDEN: '. Have authorize() or the definition of the pipe grant it',
  REVOKED: '. The application can restore it',
  UNAUTHENTICATED: '. It needs the token of a signed-in user',
};

/** How a connection, or an attempt at one, ended. */
export interface Ending {
  /** The WebSocket close code; 1006 where there was none. */
  readonly code: number;
  readonly reason: string;
  /** The HTTP answer to the handshake, where the WebSocket class tells (browsers do not, `pipeward/node` does). */
  readonly refusal?: Refusal | undefined;
}

/** A refused handshake. What a status means is for the class that sees it to say: browsers have no use for it. */
export interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  /** Another attempt would be refused as well. */
  readonly stop: boolean;
  readonly retryAfterMs?: number | undefined;
}

/** What follows from an ending. */
export interface Verdict {
  readonly error: PipewardError;
  /** No attempt follows until the application calls `connect()`. */
  readonly stop: boolean;
  /** The stated delay: the next attempt waits a random time within these milliseconds, instead of the backoff. */
  readonly within?: readonly [number, number] | undefined;
  /** The backoff counts as if so many attempts had failed. */
  readonly attempts?: number;
}

type Row = readonly [code: ErrorCode, message: string, stop?: true];

const AGAIN = '; the client connects again';
const LOST: Row = ['UNAVAILABLE', `The server is out of reach, or refused${AGAIN}`];
const FAULT: Row = ['INVALID', 'The server found a fault in a frame; report it', true];
const CLOSES: Readonly<Record<number, Row>> = {
  1000: ['CLOSED', 'The connection ended; connect() starts again', true],
  1002: FAULT,
  1003: FAULT,
  1007: FAULT,
  1009: ['PAYLOAD_TOO_LARGE', 'A message was too big; send less, then connect()', true],
  4401: ['UNAUTHENTICATED', `The token ended${AGAIN} with a new one`],
  4402: ['REVOKED', 'The session was revoked; sign in, then connect()', true],
  4403: ['FORBIDDEN', 'Disconnected by the application; connect() when it allows that', true],
  4408: ['TIMEOUT', `The connection was silent${AGAIN}`],
  4413: ['OVERLOADED', `Events were taken too slowly${AGAIN}`],
  4429: ['RATE_LIMITED', `Too many messages for too long${AGAIN} after the stated delay`],
  4503: ['DRAINING', `The server is going away or overloaded${AGAIN}`],
};

/** Milliseconds to wait where a delay should have been stated and was not. */
const UNSTATED: Readonly<Record<number, number>> = { 4429: 10_000, 4503: 5_000 };

/**
 * What an ending asks of the client. `renewable`: whether another attempt may come with another token.
 * `drainingMs` is what a `draining` frame has said, if there was one.
 */
export function judge({ code, reason, refusal }: Ending, renewable: boolean, drainingMs: number | undefined): Verdict {
  const [name, message, stop] = refusal ? [refusal.code, refusal.message, refusal.stop] : (CLOSES[code] ?? LOST);
  const status = refusal?.status ?? code;
  const draining = code === 4503 || drainingMs !== undefined;
  const delay = refusal?.retryAfterMs ?? millis(Number(/\bretry_after_ms=(\d{1,15})\b/.exec(reason)?.[1] ?? NaN)) ?? drainingMs ?? UNSTATED[code];
  return {
    error: new PipewardError(name, message, { status, retryAfterMs: delay }),
    // Without another token a 401 stays one.
    stop: stop === true || (status === 401 && !renewable),
    within: delay === undefined ? undefined : draining ? [0, delay] : atLeast(delay),
    attempts: code === 4413 || code === 1011 ? 2 : 0,
  };
}

/** A random time after a delay that is to be kept: up to a tenth more, so that those told the same do not come together. */
export const atLeast = (delay: number): readonly [number, number] => [delay, delay + Math.max(delay / 10, 250)];
