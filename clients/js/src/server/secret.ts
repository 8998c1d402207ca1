/** HMAC-SHA256 keys (WebCrypto) from configured secrets. */

import { PipewardError } from '../core/error.js';
import { bytesOf } from './bytes.js';

/** Bytes that a secret has at least, as the server demands of its own. */
export const SECRET_BYTES_MIN = 16;

/**
 * Checks a secret at once and imports it at its first use.
 *
 * @throws PipewardError `INVALID` for a secret that is missing or under 16 bytes.
 */
export function hmacKey(secret: string | Uint8Array, use: 'sign' | 'verify'): () => Promise<CryptoKey> {
  const bytes = bytesOf(secret ?? '');
  if (bytes.length < SECRET_BYTES_MIN) {
    throw new PipewardError(
      'INVALID',
      `The secret has ${bytes.length} bytes: set one of at least ${SECRET_BYTES_MIN}, better 32, the same as in the server's configuration.`,
    );
  }
  let key: Promise<CryptoKey> | undefined;
  return () => (key ??= crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, [use]));
}
