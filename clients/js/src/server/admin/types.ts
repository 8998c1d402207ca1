/**
 * What the server API is asked and what it answers, in the names of this language: `ttlS` here is `ttl_s` on the wire.
 * Units are in the names. Source: PROTOCOL §4.
 */

import type { EventName } from '../../events.js';

/** Restricts a call about a user to one tenant. Without it the user id is meant in every tenant. */
export interface OfTenant {
  tenant?: string | undefined;
}

/** One connection. Ids of connections are those of one node, so with several the node must be said. */
export interface ConnectionTarget {
  connection: string;
  /** The address that the connection was listed with. */
  node?: string | undefined;
}

export type UserTarget = { user: string } & OfTenant;

/** Whom a push is for; a text is a user id. */
export type PushTo =
  | string
  | UserTarget
  | ConnectionTarget
  | ({ role: string } & OfTenant)
  | { tenant: string }
  | ({ org: string } & OfTenant);
/** Whom to disconnect; a text is a user id. */
export type DisconnectTarget = string | UserTarget | ConnectionTarget | { session: string };
/** Whose subscription to end; a text is a user id. */
export type UnsubscribeTarget = string | UserTarget | ConnectionTarget;

export interface PublishOptions {
  /** The user id that receivers see as the sender. Default: the application. */
  sender?: string | undefined;
  /** Answer with the number of connections that it was queued for. */
  count?: boolean | undefined;
}

export interface RevokeOptions extends OfTenant {
  /** Seconds after which it ends by itself. Default: until restored. */
  ttlS?: number | undefined;
  /** `reauthorized`: it also ends when an authorize that was asked later, or a token issued later, grants the pipe. */
  until?: 'reauthorized' | undefined;
}

/** One token by its id (`jti`), those of a session, or those of a user that were issued before a moment. */
export type TokensTarget =
  | { token: string; ttlS?: number | undefined }
  | { session: string; ttlS?: number | undefined }
  | (UserTarget & {
      /** Unix seconds. Default: now. */
      issuedBeforeS?: number | undefined;
      /** The session, and the token, that are spared: those of whoever asks. */
      exceptSession?: string | undefined;
      exceptToken?: string | undefined;
      ttlS?: number | undefined;
    });

export interface DisconnectOptions {
  /** `true`: the client connects again (4503). Default: it does not (4403). */
  reconnect?: boolean | undefined;
}

export interface Paging {
  /** 1–1,000. Default: 100. */
  limit?: number | undefined;
  /** The `next` of the answer before. */
  after?: string | undefined;
}

export interface ConnectionsQuery extends Paging, OfTenant {
  user?: string | undefined;
}

type Event<Events extends object, Rest> = {
  [Name in EventName<Events>]: Rest & { event: Name; data: Events[Name] };
}[EventName<Events>];

/** One command of a batch. */
export type Command<Events extends object> =
  | Event<Events, { method: 'publish'; pipe: string } & PublishOptions>
  | Event<Events, { method: 'push' | 'notify'; to: PushTo }>
  | ({ method: 'revoke'; user: string; pipe: string } & RevokeOptions)
  | ({ method: 'revokeAll'; user: string } & RevokeOptions)
  | ({ method: 'restore'; user: string; pipe?: string | undefined } & OfTenant)
  | ({ method: 'revokeTokens' } & TokensTarget)
  | ({ method: 'disconnect' } & Exclude<DisconnectTarget, string> & DisconnectOptions)
  | ({ method: 'unsubscribe'; pipe: string } & Exclude<UnsubscribeTarget, string>);

export interface Done {
  ok: true;
}

export interface Published extends Done {
  /** Connections whose queue took it, with `count`. */
  delivered?: number;
}

export interface Delivered extends Done {
  delivered: number;
  /** Nodes that could not be asked, where another one delivered it. */
  failures?: NodeFailure[];
}

/** In force, everywhere. */
export interface Touched extends Done {
  /** Live connections that it was about. */
  connections: number;
}

export interface TokensRevoked extends Touched {
  /** Unix seconds: tokens with a lower `iat` are revoked. Only for those of a user. */
  issuedBeforeS?: number;
}

/** What came of one command of a batch. */
export type BatchResult =
  | { ok: true; delivered?: number; connections?: number; issuedBeforeS?: number }
  | { ok: false; code: string; error: string };

export interface Connection {
  connection: string;
  /** The address of the server that holds it. */
  node: string;
  /** `null`: anonymous. */
  user: string | null;
  tenant?: string;
  ip: string;
  /** Unix milliseconds. */
  since: number;
  /** Pipes that it is subscribed to. */
  pipes: string[];
  queueBytes: number;
}

export interface Connections {
  connections: Connection[];
  /** Hand it over as `after` to go on; absent: this was all. */
  next?: string;
}

export interface Pipes {
  /** By name. */
  pipes: { pipe: string; subscribers: number }[];
  next?: string;
}

export interface Presence {
  /** At most 1,000 of each node. */
  members: { user: string; tenant?: string; name?: string; connections: number }[];
  /** People in all; with several nodes and more than 1,000 members, an upper bound. */
  total: number;
  /** Connections without a user. */
  anonymous: number;
}

export interface Queue {
  queue: string;
  /** The address of the server that holds it. */
  node: string;
  /** `false`: it is not in the configuration any more; nothing is taken and nothing delivered. */
  configured: boolean;
  /** Messages that wait, and their bytes. */
  depth: number;
  bytes: number;
  /** When the first of them was enqueued, Unix milliseconds; `null`: none waits. */
  oldest: number | null;
  /** Attempts that the first of them has behind it. */
  attempts: number;
  /** The last attempt that failed since the start; `at` in Unix milliseconds. */
  lastError: { at: number; error: string } | null;
  /** Dead letters. */
  dead: number;
  /** Messages that the application has taken since the start. */
  delivered: number;
}

/** A message that is not delivered any more. */
export interface DeadLetter {
  id: string;
  /** The address of the server that holds it. */
  node: string;
  /** Unix milliseconds. */
  enqueuedAt: number;
  diedAt: number;
  attempts: number;
  /** Why it was given up. */
  error: string;
  /** Who sent it. */
  user: unknown;
  data: unknown;
}

export interface DeadLetters {
  /** Oldest first, node by node. */
  letters: DeadLetter[];
  next?: string;
}

/** One dead letter. Ids are those of one node, so with several the node must be said. */
export interface LetterTarget {
  id: string;
  node?: string | undefined;
}

export interface Retried extends Done {
  /** How many wait again. */
  retried: number;
}

/** Gauges and counters; names and meaning are those of `GET /v1/stats`, and there are more of them. */
export interface Numbers {
  connections: number;
  subscriptions: number;
  pipes: number;
  queue_bytes: number;
  counters: Record<string, number>;
}

export interface Stats {
  workers: (Numbers & { node: string; worker: number })[];
  total: Numbers;
}

/** One node that did not do what it was asked. */
export interface NodeFailure {
  node: string;
  code: string;
  error: string;
}
