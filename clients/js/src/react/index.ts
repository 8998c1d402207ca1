'use client';
/**
 * React bindings: `createPipeClient` makes one client and the hooks that use it. React 18 or later.
 *
 * Invariants: rendering has no effect, so nothing connects on a server or in a discarded render; what an effect took up
 * is let go a moment after its cleanup, so that strict mode and fast refresh, which clean up and set up again at once,
 * never unsubscribe or disconnect; a handler that is called is always the one of the latest render.
 */

import { createContext, createElement, type ReactNode, useContext, useEffect } from 'react';
import { createClient } from '../index.js';
import type { Client, ClientOptions, PresenceState, Status } from '../core/types.js';
import type { AnyEvents, EventName } from '../events.js';
import { hold } from './hold.js';
import {
  type ActionState,
  type Handlers,
  type PipeState,
  type PushHandler,
  useActionOf,
  usePipeOf,
  usePresenceOf,
  usePushOf,
  useStatusOf,
} from './hooks.js';

export { PipewardError } from '../core/error.js';
export { defineEvents } from '../events.js';
export type { ActionState, Handlers, PipeState, PushHandler };

export interface PipeProviderProps<Sent extends object, Received extends object> {
  children?: ReactNode;
  /** Another client for the hooks below, such as one made for a test. Default: the one that came with the provider. */
  client?: Client<Sent, Received> | undefined;
}

/** One client, and the hooks that use it. */
export interface PipeClient<Sent extends object = AnyEvents, Received extends object = Sent> {
  /** The client itself, for code outside components. */
  readonly client: Client<Sent, Received>;
  /** Keeps the client connected while it is mounted. */
  readonly PipeProvider: (props: PipeProviderProps<Sent, Received>) => ReactNode;
  /**
   * Listens to a pipe while the component is mounted, to the events that have a handler; without handlers it does not
   * subscribe and is for `publish`. Components that listen to the same pipe share one subscription. `null`: not now.
   */
  readonly usePipe: (pipe: string | null, handlers?: Handlers<Received>) => PipeState<Sent>;
  /** Who is in the pipe. Empty until it is known. `null`: not now. */
  readonly usePresence: (pipe: string | null) => PresenceState;
  /** Calls the handler for each event of this name that is pushed to this user or connection. */
  readonly usePush: <Name extends EventName<Received>>(event: Name, handler: PushHandler<Received, Name>) => void;
  /** A function of the application, and what came of the last call. */
  readonly useAction: <Args = unknown, Result = unknown>(name: string) => ActionState<Args, Result>;
  /** How the connection stands. */
  readonly useStatus: () => Status;
  /** Has the rights decided anew without disconnecting: after a sign-in step, or when somebody was given more. */
  readonly refreshPipeAuth: () => Promise<void>;
}

/** Makes a client, with the options of `createClient`, and its hooks. Call it once, outside components. */
export function createPipeClient<Sent extends object = AnyEvents, Received extends object = Sent>(
  options: ClientOptions<Sent, Received>,
): PipeClient<Sent, Received> {
  const client = createClient(options);
  const Current = createContext(client);

  return {
    client,
    PipeProvider({ children, client: given = client }) {
      useEffect(() => hold(given), [given]);
      return createElement(Current.Provider, { value: given }, children);
    },
    usePipe: (pipe, handlers) => usePipeOf(useContext(Current), pipe, handlers),
    usePresence: (pipe) => usePresenceOf(useContext(Current), pipe),
    usePush: (event, handler) => usePushOf(useContext(Current), event, handler),
    useAction: (name) => useActionOf(useContext(Current), name),
    useStatus: () => useStatusOf(useContext(Current)),
    refreshPipeAuth: () => client.refreshPipeAuth(),
  };
}
