/**
 * The hooks, each for a given client. What they are for stands in `index.ts`.
 */

import { useCallback, useEffect, useInsertionEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react';
import { PipewardError } from '../core/error.js';
import type {
  Client,
  Pipe,
  PipeEvent,
  PipeStatus,
  PresenceState,
  PublishOptions,
  PushEvent,
  Status,
} from '../core/types.js';
import type { EventName } from '../events.js';
import { later } from './hold.js';

/** Handlers by event. */
export type Handlers<Received extends object> = {
  readonly [Name in EventName<Received>]?: (message: PipeEvent<Received[Name], Name>) => void;
};

export type PushHandler<Received extends object, Name extends EventName<Received>> = (
  message: PushEvent<Received[Name], Name>,
) => void;

/** What `usePipe` returns. */
export interface PipeState<Sent extends object> {
  /** Sends an event to the pipe. The function stays the same as long as the pipe does. */
  readonly publish: Pipe<Sent>['publish'];
  /** How the subscription stands. */
  readonly status: PipeStatus;
  /** Why it is `denied` or `revoked`. */
  readonly error: PipewardError | undefined;
}

/** What `useAction` returns. `result` and `error` are those of the call that was made last. */
export interface ActionState<Args, Result> {
  /** Calls it. Rejects as `client.action` does; a rejection that is not looked at is not reported as unhandled. */
  readonly run: (args: Args) => Promise<Result>;
  readonly pending: boolean;
  readonly result: Result | undefined;
  readonly error: unknown;
}

const NO_PRESENCE: PresenceState = { members: [], total: 0, anonymous: 0, complete: false, joined: [], left: [] };
const nothing = () => () => {};

export function usePipeOf<Sent extends object, Received extends object>(
  client: Client<Sent, Received>,
  name: string | null,
  handlers: Handlers<Received> = {},
): PipeState<Sent> {
  const pipe = useMemo(() => (name === null ? undefined : client.pipe(name)), [client, name]);
  const latest = useLatest(handlers as Record<string, ((message: PipeEvent) => void) | undefined>);
  // Names hold no white space.
  const events = Object.keys(handlers)
    .filter((event) => handlers[event as keyof typeof handlers])
    .sort()
    .join(' ');

  useEffect(() => {
    if (!pipe || !events) return undefined;
    let listening = true;
    const offs = events.split(' ').map((event) =>
      pipe.on(event as EventName<Received>, (message) => {
        if (listening) latest.current[event]?.(message);
      }),
    );
    const off = later(() => offs.forEach((each) => each()));
    return () => {
      listening = false;
      off();
    };
  }, [pipe, events, latest]);

  const watch = useCallback((changed: () => void) => pipe?.onStatus(changed) ?? nothing(), [pipe]);
  const status = useSyncExternalStore(
    watch,
    () => pipe?.status ?? 'idle',
    () => 'idle' as const,
  );
  const error = useSyncExternalStore(
    watch,
    () => pipe?.error,
    () => undefined,
  );
  const publish = useCallback(
    async (event: EventName<Sent>, data: never, options?: PublishOptions) => {
      if (!pipe) throw new PipewardError('INVALID', 'There is no pipe to publish to: usePipe was given null.');
      return pipe.publish(event, data, options);
    },
    [pipe],
  ) as Pipe<Sent>['publish'];
  return { publish, status, error };
}

export function usePresenceOf<Sent extends object, Received extends object>(
  client: Client<Sent, Received>,
  name: string | null,
): PresenceState {
  const pipe = useMemo(() => (name === null ? undefined : client.pipe(name)), [client, name]);
  const [known, setKnown] = useState<{ pipe: typeof pipe; presence: PresenceState }>();
  useEffect(() => {
    if (!pipe) return undefined;
    let listening = true;
    const off = later(
      pipe.onPresence((presence) => {
        if (listening) setKnown({ pipe, presence });
      }),
    );
    return () => {
      listening = false;
      off();
    };
  }, [pipe]);
  return pipe && known?.pipe === pipe ? known.presence : NO_PRESENCE;
}

export function usePushOf<Sent extends object, Received extends object, Name extends EventName<Received>>(
  client: Client<Sent, Received>,
  event: Name,
  handler: PushHandler<Received, Name>,
): void {
  const latest = useLatest(handler);
  useEffect(() => {
    return client.onPush(event, (message) => latest.current(message));
  }, [client, event, latest]);
}

export function useActionOf<Args, Result>(client: Pick<Client, 'action'>, name: string): ActionState<Args, Result> {
  const [state, setState] = useState<Omit<ActionState<Args, Result>, 'run'>>({
    pending: false,
    result: undefined,
    error: undefined,
  });
  const calls = useRef(0);
  const run = useCallback(
    (args: Args) => {
      calls.current += 1;
      const call = calls.current;
      const settle = (outcome: Partial<typeof state>) => {
        if (call === calls.current) setState({ pending: false, result: undefined, error: undefined, ...outcome });
      };
      setState((before) => ({ ...before, pending: true }));
      const answer = client.action<Result>(name, args);
      answer.then(
        (result) => settle({ result }),
        (error: unknown) => settle({ error }),
      );
      return answer;
    },
    [client, name],
  );
  return { run, ...state };
}

export function useStatusOf(client: Pick<Client, 'status' | 'onStatus'>): Status {
  const watch = useCallback((changed: () => void) => client.onStatus(changed), [client]);
  return useSyncExternalStore(
    watch,
    () => client.status,
    () => 'idle' as const,
  );
}

/** The value of the latest render that was carried out. */
function useLatest<Value>(value: Value): { readonly current: Value } {
  const latest = useRef(value);
  // Before any other effect, so that none of them sees an older one.
  useInsertionEffect(() => {
    latest.current = value;
  });
  return latest;
}
