/**
 * The one error that applications see. Its `code` is a reply code of the protocol (docs/protocol.md), or one of the client's
 * own; its message is a sentence that says what to do. No imports: `pipeward/server` uses it without the client.
 */

/** Codes that a server replies with. An application's own action may answer with further ones. */
export type ServerCode =
  | 'INVALID' | 'UNAUTHENTICATED' | 'FORBIDDEN' | 'SCOPE_MISMATCH' | 'FEATURE_DISABLED' | 'REVOKED' | 'NOT_SUBSCRIBED'
  | 'UNKNOWN_ACTION' | 'PAYLOAD_TOO_LARGE' | 'SCHEMA' | 'RATE_LIMITED' | 'TOO_MANY' | 'TOO_MANY_CONNECTIONS' | 'OVERLOADED'
  | 'DRAINING' | 'NOT_CONNECTED' | 'NOT_FOUND' | 'TIMEOUT' | 'UNAVAILABLE' | 'INTERNAL';

/**
 * Codes that the client makes itself.
 * - `OFFLINE`: it was never sent, there was no connection for too long or too much was waiting.
 * - `INTERRUPTED`: it was sent and the connection ended before the answer; it may have been done or not.
 * - `CLOSED`: the client is closed, by the application or by the server for good.
 * - `TIMEOUT` (also a server's): no answer in time; it may have been done or not.
 * - `INVALID_EVENT`: the event does not match its declaration in `events`; it was not sent.
 */
export type ClientCode = 'OFFLINE' | 'INTERRUPTED' | 'CLOSED' | 'TIMEOUT' | 'INVALID_EVENT';

// The intersection keeps completion for the known codes while an application's own pass.
export type ErrorCode = ServerCode | ClientCode | (string & {});

export interface ErrorDetail {
  /** Try again after so many milliseconds. */
  readonly retryAfterMs?: number | undefined;
  /** The HTTP status or the WebSocket close code behind it, where there was one. */
  readonly status?: number | undefined;
  readonly cause?: unknown;
}

export class PipewardError extends Error {
  override readonly name = 'PipewardError';
  readonly code: ErrorCode;
  /** Try again after so many milliseconds. */
  readonly retryAfterMs?: number | undefined;
  /** The HTTP status or the WebSocket close code behind it, where there was one. */
  readonly status?: number | undefined;

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.code = code;
    this.retryAfterMs = detail.retryAfterMs;
    this.status = detail.status;
  }
}
