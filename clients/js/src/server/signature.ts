/**
 * Who called: the signature that the server puts on its calls to the application (authorize, actions, queues, guards).
 *
 * `X-Pipeward-Signature: t=<Unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`, over the bytes of the body as they came.
 * Comparison is WebCrypto's `verify`, whose time does not depend on where two signatures differ. Source: PROTOCOL §5,
 * INVARIANTS 31.
 */

import { PipewardError } from '../core/error.js';
import { bytesOf, concat, fromHex } from './bytes.js';
import { hmacKey } from './secret.js';

/** The header that carries the signature. */
export const SIGNATURE_HEADER = 'x-pipeward-signature';
/** Seconds that a signature is good for, either way, so that a call that was listened in on cannot be made again later. */
export const AGE_S_MAX = 300;
/** Bytes of a signed body, unless more are asked for: the server's default `limits.message_bytes` with room to spare. */
const BODY_BYTES_MAX = 1024 * 1024;
/** Signatures that are tried in one header. */
const SIGNATURES_MAX = 4;

/** What is to be verified. */
export interface SignedCall {
  /** The secret that the server signs with; several while it is being replaced. */
  secret: string | Uint8Array | readonly (string | Uint8Array)[];
  /** The header `X-Pipeward-Signature`. */
  header: string | null | undefined;
  /** The body exactly as it came, before any parsing. */
  body: string | Uint8Array;
  /** Seconds that it may be old. Default: 300. */
  maxAgeS?: number | undefined;
}

/**
 * Whether a call comes from a server that knows the secret, and not longer ago than `maxAgeS`. Never throws because of the
 * call itself. It says nothing about what the call is for: look at `kind` in the body as well, or use {@link readCall}.
 *
 * @throws PipewardError `INVALID` for a secret that is missing or too short.
 */
export async function verifySignature({ secret, header, body, maxAgeS = AGE_S_MAX }: SignedCall): Promise<boolean> {
  return verifier(secret, maxAgeS)(header, bytesOf(body));
}

/** How a signed call is read. */
export interface CallOptions {
  secret: SignedCall['secret'];
  /** What the call must be for: one `kind`, or several. */
  kind: string | readonly string[];
  /** Whether it takes calls that only ask whether something is allowed (guards and rules with a `url`), and no others. */
  rule?: boolean | undefined;
  maxAgeS?: number | undefined;
  /** Bytes that the body may have; more is `PAYLOAD_TOO_LARGE`. Default: 1 MiB. */
  bytesMax?: number | undefined;
}

/** What every call carries. */
export interface Call {
  /** What it is for. */
  kind: string;
  /** Different for every call. */
  delivery?: string;
  /** It only asks whether something is allowed. */
  rule?: boolean;
}

/**
 * Reads a signed call: signature, age and kind are checked, then the JSON is handed on.
 *
 * @throws PipewardError `UNAUTHENTICATED` (signature or age), `INVALID` (kind, or no JSON object), `PAYLOAD_TOO_LARGE`.
 */
export async function readCall<C extends Call = Call & Record<string, unknown>>(
  request: Request,
  options: CallOptions,
): Promise<C> {
  return await caller<C>(options)(request);
}

/** Checks the options once, for many calls. */
export function caller<C extends Call>({
  secret,
  kind,
  rule = false,
  maxAgeS = AGE_S_MAX,
  bytesMax = BODY_BYTES_MAX,
}: CallOptions): (request: Request) => Promise<C> {
  const verify = verifier(secret, maxAgeS);
  const kinds: readonly unknown[] = typeof kind === 'string' ? [kind] : kind;
  return async (request) => {
    const body = await bodyOf(request, bytesMax);
    if (!(await verify(request.headers.get(SIGNATURE_HEADER), body))) {
      throw new PipewardError(
        'UNAUTHENTICATED',
        "The signature of this call is missing, wrong or too old: use the secret of the server's configuration, the body as it came, and a clock that is right.",
      );
    }
    const call = jsonOf(body);
    if (typeof call !== 'object' || call === null || !kinds.includes((call as Partial<Call>).kind)) {
      throw new PipewardError(
        'INVALID',
        `This address takes calls of the kind ${kinds.join(', ')} only: check the URLs in the server's configuration.`,
      );
    }
    if (((call as Partial<Call>).rule === true) !== rule) {
      throw new PipewardError(
        'INVALID',
        rule
          ? "This address decides guards and rules, it performs nothing: check the URLs in the server's configuration."
          : "This call only asks whether something is allowed: give its `url` to an address that reads calls with `rule: true`.",
      );
    }
    return call as C;
  };
}

type Verify = (header: string | null | undefined, body: Uint8Array<ArrayBuffer>) => Promise<boolean>;

function verifier(secret: SignedCall['secret'], maxAgeS: number): Verify {
  const secrets = typeof secret === 'string' || secret instanceof Uint8Array ? [secret] : (secret ?? ['']);
  if (!secrets.length)
    throw new PipewardError(
      'INVALID',
      "There is no secret to verify with: give the one of the server's configuration.",
    );
  const keys = secrets.map((each) => hmacKey(each, 'verify'));
  return async (header, body) => {
    const parsed = parse(header);
    const age = Date.now() / 1000 - Number(parsed?.time);
    // Written so that anything that is not a number refuses.
    if (!parsed || !(Math.abs(age) <= maxAgeS)) return false;
    const signed = concat(bytesOf(`${parsed.time}.`), body);
    for (const key of keys) {
      for (const signature of parsed.signatures) {
        if (await crypto.subtle.verify('HMAC', await key(), signature, signed)) return true;
      }
    }
    return false;
  };
}

function parse(header: string | null | undefined): { time: string; signatures: Uint8Array<ArrayBuffer>[] } | undefined {
  const parts = (header ?? '').split(',').map((part) => part.trim().split('=', 2) as [string, string?]);
  const values = (name: string) => parts.filter(([key]) => key === name).map(([, value]) => value ?? '');
  const [time, ...further] = values('t');
  const signatures = values('v1').map(fromHex);
  const sound = time !== undefined && /^\d{1,12}$/.test(time) && !further.length && signatures.length <= SIGNATURES_MAX;
  if (!sound || !signatures.every((bytes) => bytes?.length === 32)) return undefined;
  return { time, signatures: signatures as Uint8Array<ArrayBuffer>[] };
}

async function bodyOf(request: Request, bytesMax: number): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array[] = [];
  let total = 0;
  const reader = request.body?.getReader();
  for (let piece = await reader?.read(); piece && !piece.done; piece = await reader?.read()) {
    total += piece.value.length;
    if (total > bytesMax) {
      await reader?.cancel();
      throw new PipewardError(
        'PAYLOAD_TOO_LARGE',
        `The body is larger than ${bytesMax} bytes: raise bytesMax if the server's message_bytes is higher.`,
      );
    }
    pieces.push(piece.value);
  }
  return concat(...pieces);
}

function jsonOf(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    return undefined;
  }
}
