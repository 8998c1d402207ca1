/**
 * The public interfaces of the client. Everything that an application touches is here; how it is done is in the files
 * beside it. Times are milliseconds unless a name says otherwise.
 */

import type { AnyEvents, EventDefinitions, EventName } from '../events.js';
import type { PipewardError } from './error.js';

/**
 * - `idle`: nothing was asked of the client yet, so it has not connected.
 * - `connecting`: for the first time, or after `connect()`.
 * - `connected`: the server has said welcome.
 * - `reconnecting`: the connection was lost; the client tries again by itself.
 * - `disconnected`: for good, until `connect()` is called.
 */
export type Status = 'idle' | 'connecting' | 'connected' | 'reconnecting' | 'disconnected';

/** Why the status changed. */
export interface StatusDetail {
  /** The WebSocket close code, if a connection ended: 4401, 1006, … */
  readonly closeCode?: number;
  /** What went wrong, with a code and a sentence. */
  readonly error?: PipewardError;
  /** When `reconnecting`: in how many milliseconds the next attempt begins. */
  readonly retryInMs?: number;
}

/** Who the server says this connection belongs to. `null` for a client without a token. */
export interface User {
  readonly id: string;
  readonly name: string | null;
}

/** A person in a pipe, with the number of their connections that are subscribed. */
export interface Member {
  readonly user: string;
  readonly name?: string | null;
  readonly connections: number;
}

/** Who is in a pipe now, and what changed since the handler was last called. */
export interface PresenceState {
  /** Everybody, if `complete`; otherwise those that the server lists. */
  readonly members: readonly Member[];
  /** How many people there are. */
  readonly total: number;
  /** How many connections without a user there are. */
  readonly anonymous: number;
  /** Whether `members` has everybody. */
  readonly complete: boolean;
  readonly joined: readonly Member[];
  readonly left: readonly Member[];
}

/** An event of a pipe. */
export interface PipeEvent<Data = unknown, Name extends string = string> {
  readonly pipe: string;
  readonly event: Name;
  readonly data: Data;
  /** The user id that the server verified; `null` is the application, `""` a client without a user. */
  readonly sender: string | null;
  /** When the server took it, Unix milliseconds. */
  readonly ts: number;
}

/** A message to this user or connection, outside any pipe. */
export interface PushEvent<Data = unknown, Name extends string = string> {
  readonly event: Name;
  readonly data: Data;
  readonly sender: string | null;
  readonly ts: number;
}

/** Whom a push is for: exactly one of them. */
export type PushTarget = OneOf<'user' | 'connection' | 'role' | 'tenant' | 'org'>;

// A union of the plain objects would let two of them through at once, which the server refuses.
type OneOf<Keys extends string> = {
  [Key in Keys]: { readonly [Given in Key]: string } & { readonly [Other in Exclude<Keys, Key>]?: undefined };
}[Keys];

export interface PublishOptions {
  /** `false`: this connection does not get its own event. Default `true`. */
  readonly echo?: boolean;
}

/** Ends what it was returned by. Calling it again does nothing. */
export type Off = () => void;

/**
 * How the subscription of a pipe stands.
 * - `idle`: nobody listens.
 * - `subscribing`: asked for, or waiting for the connection.
 * - `subscribed`: events arrive.
 * - `denied`: the server refused or ended it; tried again after a reconnect, a refresh, and when something is granted or
 *   restored.
 * - `revoked`: the application took it away; taken up again by itself when it is restored.
 */
export type PipeStatus = 'idle' | 'subscribing' | 'subscribed' | 'denied' | 'revoked';

/** One pipe. All handles of the same name share one subscription, which lives as long as anybody listens. */
export interface Pipe<Sent extends object = AnyEvents, Received extends object = Sent> {
  readonly name: string;
  readonly status: PipeStatus;
  /** Why it is `denied` or `revoked`. */
  readonly error: PipewardError | undefined;
  /**
   * Settles with the subscription: resolved once the server has confirmed it, rejected if it refuses. Pending while
   * nobody listens. A rejection that is not looked at is not reported as unhandled.
   */
  readonly subscribed: Promise<void>;
  /** Calls the handler for each event of this name. Subscribes if need be. */
  on<Name extends EventName<Received>>(event: Name, handler: (message: PipeEvent<Received[Name], Name>) => void): Off;
  /** Calls the handler for every event, declared or not. */
  onAny(handler: (message: PipeEvent) => void): Off;
  /** Calls the handler with who is there, at once if that is known, and whenever it changes. Needs the presence right. */
  onPresence(handler: (presence: PresenceState) => void): Off;
  /** Calls the handler whenever `status` or `error` has changed. Does not subscribe. */
  onStatus(handler: (status: PipeStatus, error: PipewardError | undefined) => void): Off;
  /** Sends an event. Resolved once the server has taken it. */
  publish<Name extends EventName<Sent>>(event: Name, data: Sent[Name], options?: PublishOptions): Promise<void>;
  /** Asks once who is there. Needs the presence right, not a subscription. */
  presence(): Promise<Member[]>;
  /** Takes off every handler that was added through this handle. */
  leave(): void;
}

/** Why a token is wanted. */
export type TokenReason = 'connect' | 'refresh';

/** Makes a socket: the browser's own class, that of `pipeward/node`, or any other with the same interface. */
export type WebSocketClass = new (url: string, protocols: string[]) => SocketLike;

/** The part of the WebSocket interface that is used. */
export interface SocketLike {
  readonly readyState: number;
  // Not `(event: MessageEvent) => void`: other implementations have event classes of their own.
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export interface ClientOptions<Sent extends object = AnyEvents, Received extends object = Sent> {
  /** Where the server is: `wss://edge.example` (`https:` works too). `/v1/connect` is added if there is no path. */
  readonly url: string;
  /**
   * Where tokens come from: a function, or the address of a `createPipeHandler` route, which is asked with POST and the
   * page's cookies. It is asked at each connect and before a token ends. `null` means that nobody is signed in: the client
   * stays disconnected until `connect()`. Leave it out where cookies or nothing at all are enough.
   */
  readonly getToken?: string | ((reason: TokenReason) => string | null | Promise<string | null>) | undefined;
  /** From `defineEvents`: types, and validators if it was given some. */
  readonly events?: EventDefinitions<Sent, Received> | undefined;
  /** A pipe was taken away: its name, or the pattern as the application gave it. */
  readonly onPipeRevoked?: ((pipe: string) => void) | undefined;
  readonly onAllPipesRevoked?: (() => void) | undefined;
  /** A revocation ended: its pipe or pattern, `**` for all. Subscriptions that are still wanted are taken up again by themselves. */
  readonly onPipeRestored?: ((pipe: string) => void) | undefined;
  readonly onStatus?: ((status: Status, detail: StatusDetail) => void) | undefined;
  /** The server refuses messages for so long; publishes wait meanwhile. */
  readonly onThrottled?: ((retryAfterMs: number) => void) | undefined;
  /** So many events of the pipe were left out for this slow client. */
  readonly onLagged?: ((pipe: string, dropped: number) => void) | undefined;
  /** What no promise tells: a refused subscription, a failed refresh, an event that did not validate, a handler that threw. */
  readonly onError?: ((error: PipewardError) => void) | undefined;
  /** What is asked while there is no connection waits, in order: at most `max` (100) for at most `ttlMs` (30,000). */
  readonly offline?: { readonly max?: number; readonly ttlMs?: number } | undefined;
  /** How long an answer is awaited. Default 15,000. */
  readonly timeoutMs?: number | undefined;
  /**
   * Tabs of this browser with the same `url` and `shareKey` use one connection. Where the browser cannot, each has its own.
   * They are one connection to the server: with `echo: false` none of them gets the event, and when it is ended for good
   * (4402, 4403) it is for all of them.
   */
  readonly share?: 'sharedworker' | 'broadcast' | false | undefined;
  /** Whose connection it is, such as the user's id: tabs of different users must not share one. */
  readonly shareKey?: string | undefined;
  /** Default: the runtime's own. In Node 20, which has none, take the one of `pipeward/node`. */
  readonly WebSocket?: WebSocketClass | undefined;
}

export interface Client<Sent extends object = AnyEvents, Received extends object = Sent> {
  readonly status: Status;
  /** Who the server says we are; `null` while not connected and for a client without a token. */
  readonly user: User | null;
  /** The id of the connection, while there is one. */
  readonly connection: string | null;
  /** Connects if it is not connected. Otherwise it happens with the first use; after `disconnected` only with this. */
  connect(): void;
  /** Ends the connection. What waits is rejected with `CLOSED`, what is unanswered with `INTERRUPTED`. Handlers stay for `connect()`. */
  close(): void;
  /** The pipe of this name. Nothing happens before it is used. */
  pipe(name: string): Pipe<Sent, Received>;
  /** Calls a function of the application and returns what it answers. */
  action<Result = unknown>(name: string, args?: unknown): Promise<Result>;
  /** Hands a message to a queue of the application. Resolved once it is stored. */
  enqueue(queue: string, data?: unknown): Promise<void>;
  /** Sends a message to a user, a connection or everybody of a role, tenant or organisation, where a rule allows it. */
  push<Name extends EventName<Sent>>(to: PushTarget, event: Name, data: Sent[Name]): Promise<void>;
  /** Calls the handler for each message of this name that is pushed to this user or connection. */
  onPush<Name extends EventName<Received>>(event: Name, handler: (message: PushEvent<Received[Name], Name>) => void): Off;
  /** Has the rights decided anew, with a fresh token if there is `getToken`, without disconnecting. */
  refreshPipeAuth(): Promise<void>;
  /** Calls the handler whenever the status has changed. Does not connect. */
  onStatus(handler: (status: Status, detail: StatusDetail) => void): Off;
}
