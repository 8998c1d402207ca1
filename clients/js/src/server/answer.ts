/** Answers of handlers: JSON that nobody may keep, and errors as `{"code","error"}` with the status of their code. */

import { PipewardError } from '../core/error.js';

/** What is done with an error that is the application's own. */
export type OnError = (error: unknown) => void;

/** Status by code, for the codes that a handler answers with (ruling E1). */
const STATUS: Record<string, number> = {
  INVALID: 400,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  PAYLOAD_TOO_LARGE: 413,
  RATE_LIMITED: 429,
};

/** JSON. */
export function json(value: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(value), {
    status,
    headers: { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers },
  });
}

/** `{"code","error"}`. */
export function refuse(code: string, error: string, headers: Record<string, string> = {}): Response {
  return json({ code, error }, STATUS[code] ?? 500, headers);
}

/**
 * What an `authorize` that threw is answered with: a thrown `Response` is the answer, an `UNAUTHENTICATED` or `FORBIDDEN`
 * is told to the client, and everything else is a fault of the application that only `onError` learns about.
 */
export function failed(error: unknown, onError: OnError): Response {
  if (error instanceof Response) return error;
  if (error instanceof PipewardError && (error.code === 'UNAUTHENTICATED' || error.code === 'FORBIDDEN')) {
    return refuse(error.code, error.message);
  }
  onError(error);
  return refuse('INTERNAL', 'The application could not decide; its log says why.');
}

/** Where errors go if nothing is said. */
export function logged(error: unknown): void {
  console.error('pipeward: authorize failed:', error);
}
