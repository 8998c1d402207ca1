/**
 * Tokens for clients: JWTs signed with HS256 (RFC 7515, 7518 §3.2) by WebCrypto, holding an identity and its grants.
 *
 * Times inside are whole Unix seconds, as `exp` and `iat` of RFC 7519 are. Source: PROTOCOL §1.
 */

import { PipewardError } from '../core/error.js';
import { type Authorization, checkAuthorization } from './authorization.js';
import { base64url, bytesOf } from './bytes.js';
import { hmacKey } from './secret.js';

/** How a token is made. */
export interface TokenOptions {
  /** `auth.token.hmac_secret` of the server: at least 16 bytes, better 32. */
  secret: string | Uint8Array;
  /** How long a token is good for: seconds, or as in `'15m'`, `'1h'`, `'7d'`. Default: 15 minutes. */
  tokenExpiry?: number | string | undefined;
  /** `iss`, where the server is configured with `auth.token.issuer`. */
  issuer?: string | undefined;
  /** `aud`, where the server is configured with `auth.token.audience`. */
  audience?: string | undefined;
}

/** A token, and when it ends. */
export interface Token {
  token: string;
  /** Unix milliseconds. */
  expiresAtMs: number;
}

/** Signs one authorization after the other. */
export type Signer = (authorization: Authorization) => Promise<Token>;

/** Seconds that a token is good for where nothing is said. */
const EXPIRY_S_DEFAULT = 15 * 60;
/** Bytes of a token. The server takes 16 KiB of request line and headers together; cookies need their part. */
const TOKEN_BYTES_MAX = 12 * 1024;
const UNITS_S: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };

/**
 * A token for this authorization.
 *
 * @throws PipewardError `INVALID` for a bad secret, duration or authorization, `UNAUTHENTICATED` if it has expired already,
 *   `PAYLOAD_TOO_LARGE` if it does not fit the head of a request.
 */
export async function signToken(authorization: Authorization, options: TokenOptions): Promise<string> {
  return (await signer(options)(authorization)).token;
}

/**
 * Checks the options once, for many tokens.
 *
 * @throws PipewardError `INVALID` for a bad secret or duration.
 */
export function signer(options: TokenOptions): Signer {
  const key = hmacKey(options.secret, 'sign');
  const expiryS = durationS(options.tokenExpiry ?? EXPIRY_S_DEFAULT);
  const header = base64url('{"alg":"HS256","typ":"JWT"}');
  return async (authorization) => {
    const claims = claimsOf(authorization, expiryS, options);
    const signed = `${header}.${base64url(JSON.stringify(claims))}`;
    const signature = await crypto.subtle.sign('HMAC', await key(), bytesOf(signed));
    const token = `${signed}.${base64url(new Uint8Array(signature))}`;
    if (token.length > TOKEN_BYTES_MAX) {
      throw new PipewardError(
        'PAYLOAD_TOO_LARGE',
        `The token has ${token.length} bytes and ${TOKEN_BYTES_MAX} are the most: grant patterns instead of single pipes, or answer by authorizeWebhook.`,
      );
    }
    return { token, expiresAtMs: claims.exp * 1000 };
  };
}

function claimsOf(authorization: Authorization, expiryS: number, options: TokenOptions) {
  const { user, pipes, expiresAtMs, session, tokenId } = checkAuthorization(authorization);
  const { id, ...identity } = user;
  const now = Math.floor(Date.now() / 1000);
  const exp = Math.min(now + expiryS, Math.floor((expiresAtMs ?? Infinity) / 1000));
  if (exp <= now) throw new PipewardError('UNAUTHENTICATED', 'This authorization has expired; sign in again.');
  return {
    sub: id,
    ...identity,
    pipes,
    iat: now,
    exp,
    jti: tokenId ?? crypto.randomUUID(),
    ...(session !== undefined && { sid: session }),
    ...(options.issuer !== undefined && { iss: options.issuer }),
    ...(options.audience !== undefined && { aud: options.audience }),
  };
}

function durationS(given: number | string): number {
  const [, amount, unit = 's'] = /^(\d+)([smhd]?)$/.exec(String(given).trim()) ?? [];
  const seconds = Number(amount) * (UNITS_S[unit || 's'] ?? NaN);
  if (!(seconds >= 1)) {
    throw new PipewardError(
      'INVALID',
      `tokenExpiry is ${JSON.stringify(given)}: give whole seconds, or a text such as "15m", "1h" or "7d".`,
    );
  }
  return seconds;
}
