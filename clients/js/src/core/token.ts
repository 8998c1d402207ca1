/** Where tokens come from: the application's function, or the address of a `createPipeHandler` route. */

import { PipewardError } from './error.js';
import { isObject } from './protocol.js';
import type { ClientOptions, TokenReason } from './types.js';

/** `null`: nobody is signed in. Rejected with whatever the source failed with. */
export async function token(source: NonNullable<ClientOptions['getToken']>, reason: TokenReason): Promise<string | null> {
  const found: unknown = typeof source === 'string' ? await fetchToken(source) : await source(reason);
  if (found === null || found === undefined || found === '') return null;
  if (typeof found === 'string') return found;
  throw new PipewardError('UNAVAILABLE', 'getToken must return a string or null');
}

async function fetchToken(address: string): Promise<unknown> {
  const response = await fetch(address, { method: 'POST' });
  const { status } = response;
  if (status === 401 || status === 403) return null;
  const body: unknown = response.ok && (await response.json());
  if (isObject(body) && typeof body.token === 'string') return body.token;
  throw new PipewardError('UNAVAILABLE', `${address} answered ${status} without {"token"}`, {
    status,
    retryAfterMs: retryAfter(response.headers.get('retry-after')),
  });
}

/** The header as the server writes it, in whole seconds. Milliseconds. */
export const retryAfter = (value: string | null | undefined): number | undefined =>
  value && /^\d{1,9}$/.test(value) ? Number(value) * 1_000 : undefined;
