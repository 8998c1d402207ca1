/**
 * Calls of one node: HTTP, errors with a code, and retries.
 *
 * Invariant: a call that may not be repeated is sent again only where the first attempt certainly did nothing: the
 * connection was not made, or the server says so (`DRAINING`; `OVERLOADED` of notify). Everything else that fails is
 * ambiguous and repeated only if doing it twice is as good as once. Times are milliseconds.
 */

import { AdminError } from './error.js';

/** One request. */
export interface Ask {
  /** As in errors: `publish`. */
  name: string;
  method: 'GET' | 'POST';
  /** With the query, from `/v1/`. */
  path: string;
  body?: string;
  /** Whether doing it twice is as good as once. */
  repeatable: boolean;
  /** Whether an answer is one of the server API: anything else that says 200 has done nothing. */
  accepts(answer: Record<string, unknown>): boolean;
}

export interface TransportOptions {
  key: string;
  timeoutMs: number;
  /** Attempts after the first. */
  retries: number;
  fetch: typeof globalThis.fetch;
}

/** Longest wait before an attempt, and the wait before the second that is doubled from there. */
const BACKOFF_MS_MAX = 5000;
const BACKOFF_MS = 100;

/** Codes of runtimes for a connection that was not made. */
const NOT_CONNECTED = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
  'ConnectionRefused',
]);

/** A failed attempt. */
interface Failed {
  error: AdminError;
  /** It certainly did nothing. */
  undone: boolean;
  /** Another attempt may go better. */
  passing: boolean;
}

/**
 * Asks one node, again where that is safe.
 *
 * @throws AdminError with a code of the protocol, or `UNAVAILABLE` and `TIMEOUT` where nothing came back.
 */
export async function askNode<T>(node: string, ask: Ask, options: TransportOptions): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    const outcome = await attemptOnce<T>(node, ask, options);
    if ('value' in outcome) return outcome.value;
    const { error, undone, passing } = outcome.failed;
    const { retryAfterMs = 0 } = error;
    // A delay that the server has stated is kept; one that is too long to wait for is the caller's to keep.
    const waits = retryAfterMs <= BACKOFF_MS_MAX;
    if (attempt >= options.retries || !waits || !passing || !(undone || ask.repeatable)) throw error;
    const backoff = Math.random() * Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** attempt);
    await new Promise((resolve) => setTimeout(resolve, Math.max(backoff, retryAfterMs)));
  }
}

async function attemptOnce<T>(
  node: string,
  ask: Ask,
  options: TransportOptions,
): Promise<{ value: T } | { failed: Failed }> {
  // Not called as a method: workers refuse a `fetch` that is given a `this`.
  const { fetch } = options;
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), options.timeoutMs);
  try {
    const response = await fetch(node + ask.path, {
      method: ask.method,
      headers: {
        authorization: `Bearer ${options.key}`,
        accept: 'application/json',
        ...(ask.body !== undefined && { 'content-type': 'application/json' }),
      },
      // Elsewhere the key is nobody's business.
      redirect: 'manual',
      signal: abort.signal,
      ...(ask.body !== undefined && { body: ask.body }),
    });
    return await answerOf<T>(node, ask, response);
  } catch (error) {
    return { failed: abort.signal.aborted ? late(node, ask, options.timeoutMs) : unreachable(node, ask, error) };
  } finally {
    clearTimeout(timer);
  }
}

async function answerOf<T>(node: string, ask: Ask, response: Response): Promise<{ value: T } | { failed: Failed }> {
  const text = await response.text();
  const body = object(text);
  if (response.ok && body && ask.accepts(body)) return { value: body as T };
  const told = body && typeof body.code === 'string' && typeof body.error === 'string' ? body : undefined;
  const gateway = response.status >= 502;
  const code = (told?.code as string | undefined) ?? (gateway ? 'UNAVAILABLE' : 'INVALID');
  const what =
    (told?.error as string | undefined) ??
    `answered ${response.status}, not as the server API does: check that url is the control listener`;
  const retryAfterS = Number(response.headers.get('retry-after') ?? NaN);
  const error = adminError(node, ask, code, what, {
    status: response.status,
    retryAfterMs: Number.isFinite(retryAfterS) ? retryAfterS * 1000 : undefined,
  });
  const undone = code === 'DRAINING' || code === 'RATE_LIMITED' || (code === 'OVERLOADED' && ask.name === 'notify');
  return { failed: { error, undone, passing: undone || code === 'OVERLOADED' || gateway } };
}

function late(node: string, ask: Ask, timeoutMs: number): Failed {
  const what = `no answer within ${timeoutMs} ms; it may have been done or not`;
  return { error: adminError(node, ask, 'TIMEOUT', what), undone: false, passing: true };
}

function unreachable(node: string, ask: Ask, cause: unknown): Failed {
  const code = codeOf(cause);
  const undone = code !== undefined && NOT_CONNECTED.has(code);
  const what = undone
    ? `cannot connect (${code}): check that the server runs and that url is its control listener`
    : `the connection failed (${code ?? String(cause)}); it may have been done or not`;
  return { error: adminError(node, ask, 'UNAVAILABLE', what, { cause }), undone, passing: true };
}

function adminError(
  node: string,
  ask: Ask,
  code: string,
  what: string,
  detail: { status?: number; retryAfterMs?: number | undefined; cause?: unknown } = {},
): AdminError {
  const message = `${ask.name}: ${what}${/[.!?]$/.test(what) ? '' : '.'}`;
  return new AdminError(code, message, { ...detail, failures: [{ node, code, error: what }] });
}

function codeOf(error: unknown): string | undefined {
  const { code, cause } = (error ?? {}) as { code?: unknown; cause?: { code?: unknown } };
  const found = cause?.code ?? code;
  return typeof found === 'string' ? found : undefined;
}

function object(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
