/**
 * What tabs and their hub say to each other. The hub has the connection; a tab has handlers. Everything survives a
 * structured clone, and every message names both ends, because a BroadcastChannel delivers to all.
 */

import type { Engine, EngineOptions, Session, Sink } from '../core/engine.js';
import type { PipewardError } from '../core/error.js';
import type { Frame } from '../core/protocol.js';
import type { Wish } from '../core/subscriptions.js';
import type { PipeStatus, PresenceState, Status, StatusDetail, TokenReason } from '../core/types.js';

/** A PipewardError, which a clone would make a plain Error. */
export interface PlainError {
  readonly code: string;
  readonly message: string;
  readonly retryAfterMs?: number | undefined;
  readonly status?: number | undefined;
}

/** The options of an engine that can be sent: a class cannot. */
export type PlainOptions = Omit<EngineOptions, 'WebSocket'>;
export type PlainDetail = Omit<StatusDetail, 'error'> & { readonly error?: PlainError };

export type FromTab =
  | { readonly t: 'who' }
  | { readonly t: 'hello'; readonly options: PlainOptions; readonly wants: ReadonlyMap<string, Wish> }
  | { readonly t: 'bye' }
  | { readonly t: 'want'; readonly pipe: string; readonly wish: Wish | null }
  | { readonly t: 'ask'; readonly id: number; readonly message: Frame }
  | { readonly t: 'refresh'; readonly id: number }
  | { readonly t: 'token'; readonly id: number; readonly token?: string | null; readonly error?: PlainError };

export type FromHub =
  | { readonly t: 'ready'; readonly hub: string }
  | { readonly t: 'status'; readonly status: Status; readonly detail: PlainDetail; readonly session: Session | null }
  | { readonly t: 'frame'; readonly frame: Frame }
  | { readonly t: 'pipe'; readonly pipe: string; readonly status: PipeStatus; readonly error?: PlainError | undefined }
  | { readonly t: 'presence'; readonly pipe: string; readonly state: PresenceState }
  | { readonly t: 'error'; readonly error: PlainError }
  | { readonly t: 'answer'; readonly id: number; readonly reply?: Frame; readonly error?: PlainError }
  | { readonly t: 'token'; readonly id: number; readonly reason: TokenReason };

/** A way from one end to the other. Messages arrive in the order in which they were sent. */
export interface Wire<Out, In> {
  post(message: Out): void;
  listen(heard: (message: In) => void): void;
}

/**
 * What this part needs of the core. It is given and not imported: a bundler would cut the core in two for it, and every page
 * would pay for the seam.
 */
export interface Core {
  engine(options: EngineOptions, sink: Sink): Engine;
  readonly PipewardError: typeof PipewardError;
}

/** Whatever a promise was rejected with, for the other end. */
export function plain(error: unknown): PlainError {
  const { code = 'UNAVAILABLE', message = String(error), retryAfterMs, status } = error as Partial<PipewardError>;
  return { code, message, retryAfterMs, status };
}

export const newId = (): string => Math.random().toString(36).slice(2) + Date.now().toString(36);
