/**
 * The authorize webhook: the server asks at each connection and at each refresh, this answers.
 *
 * A call that is not signed as it should be is answered 400, not 401: the server takes 401 for "this user may not", and a
 * wrong secret would sign everybody out; 400 it puts on record as a fault, and whoever is connected stays. Source:
 * PROTOCOL §1, rulings B13, C24.
 */

import { PipewardError } from '../core/error.js';
import { failed, json, logged, type OnError, refuse } from './answer.js';
import { type Authorization, checkAuthorization, type Decision, present } from './authorization.js';
import { type Call, caller, type SignedCall } from './signature.js';

/** What the server asks. */
export interface AuthorizeCall extends Call {
  /** `refresh`: it is connected already, and `user` is the identity that must not change. */
  kind: 'connect' | 'refresh';
  connection: string;
  ip: string;
  /** Forwarded headers of the handshake, such as `cookie`; names in lower case. */
  headers: Record<string, string | undefined>;
  query: Record<string, string | undefined>;
  user: (Record<string, unknown> & { id: string }) | null;
}

/** How {@link authorizeWebhook} verifies. */
export interface WebhookOptions {
  /** `auth.webhook.secret` of the server; several while it is being replaced. */
  secret: SignedCall['secret'];
  /** Seconds that a call may be old. Default: 300. */
  maxAgeS?: number | undefined;
  /** Told of errors in `authorize` and of calls that are not signed. Default: `console.error`. */
  onError?: OnError | undefined;
}

/**
 * A fetch-style handler for `auth.webhook.url`. `authorize` decides; `null` refuses (401), a `PipewardError` with
 * `FORBIDDEN` refuses with 403, any other error counts as a fault: the client is told to try again later.
 *
 * @throws PipewardError `INVALID`, at once, for a secret that is not valid.
 */
export function authorizeWebhook(
  authorize: (call: AuthorizeCall) => Decision | Promise<Decision>,
  { secret, maxAgeS, onError = logged }: WebhookOptions,
): (request: Request) => Promise<Response> {
  const read = caller<AuthorizeCall>({ secret, maxAgeS, kind: ['connect', 'refresh'] });
  return async (request) => {
    if (request.method !== 'POST') {
      return json({ code: 'INVALID', error: 'The server calls this address with POST.' }, 405, { allow: 'POST' });
    }
    let call: AuthorizeCall;
    try {
      call = await read(request);
    } catch (error) {
      onError(error);
      return refuse('INVALID', error instanceof PipewardError ? error.message : 'The call could not be read.');
    }
    try {
      const authorization = await authorize(call);
      return json(present(authorization) ? wire(authorization) : null);
    } catch (error) {
      return failed(error, onError);
    }
  };
}

function wire(authorization: Authorization) {
  const { user, pipes, expiresAtMs, session, tokenId } = checkAuthorization(authorization);
  return { user, pipes, expires_at: expiresAtMs, session, token_id: tokenId };
}
