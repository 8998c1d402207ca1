/**
 * The route that hands out tokens: who asks is decided by the application's `authorize`, what they get is signed here.
 *
 * A plain fetch-style handler, so it fits wherever there are `Request` and `Response`. `null` is 401; nothing is ever signed
 * for an answer that does not pass the checks.
 */

import { failed, json, logged, type OnError, refuse } from './answer.js';
import { type Decision, present } from './authorization.js';
import { signer, type TokenOptions } from './token.js';

/** How {@link createPipeHandler} decides and signs. */
export interface PipeHandlerOptions<Context = unknown> extends TokenOptions {
  /**
   * Who asks, and what they may do; `null` refuses (401). A `PipewardError` with `FORBIDDEN` refuses with 403, a thrown
   * `Response` is the answer as it is. `context` is whatever the handler was called with beside the request.
   */
  authorize: (request: Request, context: Context) => Decision | Promise<Decision>;
  /** Told of errors in `authorize`, which clients see as 500. Default: `console.error`. */
  onError?: OnError | undefined;
}

/** A fetch-style handler; it must be given a context where `authorize` wants one. */
export interface PipeHandler<Context = unknown> {
  (request: Request, ...context: unknown extends Context ? [context?: Context] : [context: Context]): Promise<Response>;
  /** Itself, for route files: `export const { POST } = createPipeHandler(…)`. */
  readonly POST: PipeHandler<Context>;
  readonly GET: PipeHandler<Context>;
}

/**
 * A handler that answers `{"token","expires_at"}`, or `{"code","error"}` with 401, 403, 405 or 500.
 *
 * @throws PipewardError `INVALID`, at once, for a secret or duration that is not valid.
 */
export function createPipeHandler<Context = unknown>(options: PipeHandlerOptions<Context>): PipeHandler<Context> {
  const sign = signer(options);
  const { authorize, onError = logged } = options;
  const handler = async (request: Request, context?: Context): Promise<Response> => {
    if (request.method !== 'POST' && request.method !== 'GET') {
      const allow = { allow: 'GET, POST' };
      return json({ code: 'INVALID', error: 'Ask for a token with POST or GET.' }, 405, allow);
    }
    try {
      const authorization = await authorize(request, context as Context);
      if (!present(authorization)) return refuse('UNAUTHENTICATED', 'Sign in first.');
      const { token, expiresAtMs } = await sign(authorization);
      return json({ token, expires_at: expiresAtMs });
    } catch (error) {
      return failed(error, onError);
    }
  };
  // The properties come with the next line.
  const route = handler as unknown as PipeHandler<Context>;
  return Object.assign(route, { POST: route, GET: route });
}
