/**
 * What an application's `authorize` returns, checked as strictly as the server checks it, so that a mistake shows in the
 * application's own log with a sentence and not as a refused connection.
 *
 * Invariant: what passes here is well-formed for the server; an unknown field never passes, because a restriction that is
 * misspelt must not be passed over in silence. Source: PROTOCOL §1, rulings A1, B9, B15, B19.
 */

import { PipewardError } from '../core/error.js';

/** What may be done on a pipe. A right that is absent is not granted. */
export interface Rights {
  subscribe?: boolean | undefined;
  publish?: boolean | undefined;
  presence?: boolean | undefined;
}

/** Grants by name of a pipe or pattern: `*` stands for characters other than `:`, `**` for any. */
export type Grants = Record<string, Rights>;

/** Who somebody is. Ids are 1–256 bytes without white space, control characters, `*`, `{` and `}`. */
export interface PipeUser {
  id: string;
  /** A name to show. */
  name?: string | null | undefined;
  role?: string | null | undefined;
  roles?: readonly string[] | null | undefined;
  team?: string | null | undefined;
  tenant?: string | null | undefined;
  org?: string | null | undefined;
  /** Features that are enabled for the user. */
  features?: readonly string[] | null | undefined;
  /** Anything else that rules are to see, as JSON. */
  info?: unknown;
}

interface AuthorizationRest {
  pipes?: Grants | null | undefined;
  /** End of the connection: Unix milliseconds or a date. */
  expiresAt?: number | Date | null | undefined;
  /** Id of the application's session, for `revokeTokens({ session })` and `disconnect({ session })`. */
  session?: string | null | undefined;
  /** Id of this answer or token, for `revokeTokens({ token })`. */
  tokenId?: string | null | undefined;
}

/** What somebody is allowed: the whole identity, or the short form with only an id. */
export type Authorization = AuthorizationRest &
  ({ user: PipeUser; userId?: undefined } | { userId: string; user?: undefined });

/** What `authorize` returns: an authorization, or nothing for somebody who is refused. */
export type Decision = Authorization | null | undefined;

/** An authorization that was checked; absent fields are absent. */
export interface CheckedAuthorization {
  user: Record<string, unknown> & { id: string };
  pipes: Record<string, Rights>;
  expiresAtMs?: number;
  session?: string;
  tokenId?: string;
}

/** Grants in one answer. */
const GRANTS_MAX = 10_000;
/** Bytes of an id or a label. */
const TEXT_BYTES_MAX = 256;
/** Entries of `roles` and `features`. */
const LIST_MAX = 1_000;

const ID_FORBIDDEN = /[\s\p{Cc}*{}]/u;
const LABEL_FORBIDDEN = /\p{Cc}/u;
const GRANT_NAME = /^[!-z|~]{1,200}$/;
const RIGHTS = ['subscribe', 'publish', 'presence'] as const;

/**
 * Checks what `authorize` returned.
 *
 * @throws PipewardError `INVALID`, with a sentence that names the field.
 */
export function checkAuthorization(given: Authorization): CheckedAuthorization {
  const answer = object(given, 'authorize must return an object or null; what it returned');
  known(answer, ['user', 'userId', 'pipes', 'expiresAt', 'session', 'tokenId'], 'the answer of authorize');
  if (present(answer.user) === present(answer.userId)) {
    throw invalid('authorize must return either `user` or `userId`');
  }
  const checked: CheckedAuthorization = {
    user: present(answer.user) ? user(answer.user) : { id: id(answer.userId, 'userId') },
    pipes: present(answer.pipes) ? grants(answer.pipes) : {},
  };
  if (present(answer.expiresAt)) checked.expiresAtMs = moment(answer.expiresAt);
  if (present(answer.session)) checked.session = id(answer.session, 'session');
  if (present(answer.tokenId)) checked.tokenId = id(answer.tokenId, 'tokenId');
  return checked;
}

function user(value: unknown): CheckedAuthorization['user'] {
  const given = object(value, '`user`');
  known(given, ['id', 'name', 'role', 'roles', 'team', 'tenant', 'org', 'features', 'info'], '`user`');
  const checked: CheckedAuthorization['user'] = { id: id(given.id, 'user.id') };
  if (present(given.name)) checked.name = label(given.name, 'user.name');
  for (const field of ['role', 'team', 'tenant', 'org'] as const) {
    if (present(given[field])) checked[field] = id(given[field], `user.${field}`);
  }
  if (present(given.roles)) checked.roles = list(given.roles, 'user.roles', id);
  if (present(given.features)) checked.features = list(given.features, 'user.features', label);
  if (given.info !== undefined) checked.info = given.info;
  return checked;
}

function grants(value: unknown): Record<string, Rights> {
  const entries = Object.entries(object(value, '`pipes`'));
  if (entries.length > GRANTS_MAX)
    throw invalid(`\`pipes\` has ${entries.length} names; use patterns, ${GRANTS_MAX} are the most`);
  const checked = entries.map(([name, given]): [string, Rights] => {
    if (!GRANT_NAME.test(name)) {
      throw invalid(
        `\`pipes\` names ${quote(name)}: a name or pattern is 1–200 printable ASCII characters without space, { and }`,
      );
    }
    const rights = object(given, `\`pipes\`[${quote(name)}]`);
    known(rights, RIGHTS, `\`pipes\`[${quote(name)}]`);
    return [
      name,
      Object.fromEntries(RIGHTS.filter((right) => right in rights).map((right) => [right, rights[right] === true])),
    ];
  });
  return Object.fromEntries(checked);
}

function id(value: unknown, field: string): string {
  if (typeof value === 'number' || typeof value === 'bigint')
    throw invalid(`\`${field}\` is a number; make it a string: String(id)`);
  if (typeof value !== 'string' || !value || bytes(value) > TEXT_BYTES_MAX || ID_FORBIDDEN.test(value)) {
    throw invalid(
      `\`${field}\` must be a string of 1–${TEXT_BYTES_MAX} bytes without white space, control characters, *, { and }`,
    );
  }
  return value;
}

function label(value: unknown, field: string): string {
  if (typeof value !== 'string' || bytes(value) > TEXT_BYTES_MAX || LABEL_FORBIDDEN.test(value)) {
    throw invalid(`\`${field}\` must be a string of at most ${TEXT_BYTES_MAX} bytes without control characters`);
  }
  return value;
}

function list(value: unknown, field: string, check: (entry: unknown, field: string) => string): string[] {
  if (!Array.isArray(value) || value.length > LIST_MAX)
    throw invalid(`\`${field}\` must be an array of at most ${LIST_MAX} strings`);
  return value.map((entry) => check(entry, field));
}

function moment(value: unknown): number {
  const ms = value instanceof Date ? value.getTime() : value;
  if (typeof ms !== 'number' || !Number.isFinite(ms) || ms < 0) {
    throw invalid('`expiresAt` must be a date or Unix milliseconds');
  }
  // Seconds in the place of milliseconds would be a moment in January 1970, and every connection refused for no visible reason.
  if (ms > 0 && ms < 1e11)
    throw invalid('`expiresAt` is in milliseconds, and this looks like seconds: multiply it by 1000');
  return Math.floor(ms);
}

function object(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(`${what} must be an object`);
  return value as Record<string, unknown>;
}

function known(given: Record<string, unknown>, fields: readonly string[], where: string): void {
  const stranger = Object.keys(given).find((field) => !fields.includes(field));
  if (stranger !== undefined)
    throw invalid(`${where} has a field ${quote(stranger)} that is not known; known are ${fields.join(', ')}`);
}

/** Whether there is a value. */
export function present<Value>(value: Value): value is NonNullable<Value> {
  return value !== undefined && value !== null;
}

function bytes(text: string): number {
  return new TextEncoder().encode(text).length;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}

function invalid(message: string): PipewardError {
  return new PipewardError('INVALID', `${message[0]?.toUpperCase()}${message.slice(1)}.`);
}
