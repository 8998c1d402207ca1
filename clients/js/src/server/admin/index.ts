/**
 * The server API for applications: `pipeAdmin({ url, key })`.
 *
 * Invariant: with several nodes a call is answered when all of them have answered, and fails if one of them fails; only a
 * push is content with one delivery. Source: PROTOCOL §4, rulings E1–E16, SR-12.
 */

import { PipewardError } from '../../core/error.js';
import type { AnyEvents, EventDefinitions, EventName } from '../../events.js';
import type { AdminError } from './error.js';
import { anyDelivery, everyNode, type Outcome, pipesOf, presenceOf, sameCommand, statsOf, sum } from './merge.js';
import { type Ask, askNode, type TransportOptions } from './transport.js';
import type * as T from './types.js';
import { camel, commandOf, isRepeatable, nodesOf, ownerOf, target, type WireCommand } from './wire.js';

export interface AdminOptions<Events extends object = AnyEvents> {
  /** The control listener, as in `http://127.0.0.1:8081`; with several nodes all of them. */
  url: string | readonly string[];
  /** The secret of a `[[control.key]]`. */
  key: string;
  /** From `defineEvents`: types, and validators if it was given some, for what is published and pushed. */
  events?: EventDefinitions<Events, object> | undefined;
  /** How long an answer is awaited, each time. Default 15,000: the server itself waits up to 10 s for its workers. */
  timeoutMs?: number | undefined;
  /** Further attempts, only where that is safe. Default 3. */
  retries?: number | undefined;
  /** Default: the runtime's own. */
  fetch?: typeof globalThis.fetch | undefined;
}

/** Every method rejects with an {@link AdminError}, or a `PipewardError` (`INVALID`, `INVALID_EVENT`) before anything was sent. */
export interface PipeAdmin<Events extends object = AnyEvents> {
  /** Sends an event to the subscribers of a pipe. */
  publish<Name extends EventName<Events>>(
    pipe: string,
    event: Name,
    data: Events[Name],
    options?: T.PublishOptions,
  ): Promise<T.Published>;
  /** Sends an event to connections, whatever they are subscribed to. `NOT_CONNECTED` if nobody got it. */
  push<Name extends EventName<Events>>(to: T.PushTo, event: Name, data: Events[Name]): Promise<T.Delivered>;
  /** The same without waiting for the outcome. */
  notify<Name extends EventName<Events>>(to: T.PushTo, event: Name, data: Events[Name]): Promise<T.Done>;
  /** Takes a pipe, or all that match a pattern, from a user: durable and in force when it resolves. */
  revoke(user: string, pipe: string, options?: T.RevokeOptions): Promise<T.Touched>;
  /** Takes all pipes from a user. The connections stay. */
  revokeAll(user: string, options?: T.RevokeOptions): Promise<T.Touched>;
  /** Lifts what was revoked under exactly this name or pattern; without `pipe` everything of the user. */
  restore(user: string, pipe?: string, options?: T.OfTenant): Promise<T.Touched>;
  /** Revokes tokens and closes their connections for good (4402). */
  revokeTokens(tokens: T.TokensTarget): Promise<T.TokensRevoked>;
  /** Closes connections. */
  disconnect(who: T.DisconnectTarget, options?: T.DisconnectOptions): Promise<T.Touched>;
  /** Ends subscriptions; the grant stays. */
  unsubscribe(who: T.UnsubscribeTarget, pipe: string): Promise<T.Touched>;
  /** Several commands in one request, in order, at most 1,000. One that fails does not stop the rest. */
  batch(commands: readonly T.Command<Events>[]): Promise<T.BatchResult[]>;
  /** Open connections, page by page, node by node. */
  connections(query?: T.ConnectionsQuery): Promise<T.Connections>;
  /** Pipes with subscribers, by name, page by page. */
  pipes(query?: T.Paging): Promise<T.Pipes>;
  /** Who is subscribed to a pipe. */
  presence(pipe: string): Promise<T.Presence>;
  /** Queues for the application, and what waits in them. */
  queues(): Promise<T.Queue[]>;
  /** Messages of a queue that were given up, page by page, node by node. */
  deadLetters(queue: string, query?: T.Paging): Promise<T.DeadLetters>;
  /** Has one dead letter tried again, or all for which the queue has room, behind whatever waits. */
  retryDeadLetters(queue: string, letter?: T.LetterTarget): Promise<T.Retried>;
  /** The state in numbers. */
  stats(): Promise<T.Stats>;
}

/**
 * The server API at one or several addresses.
 *
 * @throws PipewardError `INVALID`, at once, for an address or key that is not valid.
 */
export function pipeAdmin<Events extends object = AnyEvents>(options: AdminOptions<Events>): PipeAdmin<Events> {
  const nodes = nodesOf(options.url);
  const transport = transportOf(options);

  async function ask<Answer>(node: string, request: Ask): Promise<Outcome<Answer>> {
    try {
      return { node, value: await askNode<Answer>(node, request, transport) };
    } catch (error) {
      return { node, error: error as AdminError };
    }
  }

  const askAll = <Answer>(which: readonly string[], request: Ask) =>
    Promise.all(which.map((node) => ask<Answer>(node, request)));

  async function act<Answer extends { ok: true }>(command: T.Command<AnyEvents>): Promise<Answer> {
    const { wire, node } = checked(command);
    const { method, ...body } = wire;
    const request: Ask = {
      name: command.method,
      method: 'POST',
      path: `/v1/${method}`,
      body: text(body),
      repeatable: isRepeatable(command),
      accepts: ({ ok }) => ok === true,
    };
    const outcomes = await askAll<Answer>(node ? [node] : nodes, request);
    const answers = outcomes.map((outcome) =>
      'value' in outcome ? { ...outcome, value: camel<Answer>(outcome.value) } : outcome,
    );
    if (command.method === 'push') {
      return anyDelivery(answers as Outcome<Answer & { delivered: number }>[]) as unknown as Answer;
    }
    return sum(everyNode(command.method, answers));
  }

  function checked(command: T.Command<AnyEvents>): { wire: WireCommand; node?: string } {
    if ('event' in command) {
      const verdict = options.events?.check?.(command.event, command.data);
      if (verdict?.ok === false) throw new PipewardError('INVALID_EVENT', `${verdict.reason}. It was not sent.`);
    }
    return commandOf(command, nodes);
  }

  /** `list` is what the answer must have. */
  async function get<Answer>(
    name: string,
    path: string,
    list: keyof Answer & string,
    query: object = {},
    which = nodes,
  ): Promise<{ node: string; value: Answer }[]> {
    const given = Object.entries(query).filter(([, value]) => value !== undefined);
    const search = new URLSearchParams(given.map(([field, value]) => [field, String(value)])).toString();
    const request: Ask = {
      name,
      method: 'GET',
      path: search ? `${path}?${search}` : path,
      repeatable: true,
      accepts: (answer) => Array.isArray(answer[list]),
    };
    const values = everyNode(name, await askAll<Answer>(which, request));
    return values.map((value, at) => ({ node: which[at]!, value }));
  }

  /** One page of one node's list. A cursor is the place of the node and, behind a colon, the node's own. */
  async function page<Row extends { node: string }>(
    name: string,
    path: string,
    list: string,
    { after, ...query }: T.Paging = {},
  ): Promise<{ rows: Row[]; next?: string }> {
    const [place = '', from] = (after ?? '0:').split(':', 2);
    const at = Number(place);
    const node = nodes[at];
    if (!place || node === undefined) {
      throw new PipewardError('INVALID', '`after` is the `next` of an answer before, from the same nodes.');
    }
    type Answer = Record<string, object[]> & { next?: string | number };
    const search = { ...query, after: from || undefined };
    const [answer] = await get<Answer>(name, path, list, search, [node]);
    const { [list]: rows = [], next: rest } = answer!.value;
    const next = rest !== undefined ? `${at}:${rest}` : at + 1 < nodes.length ? `${at + 1}:` : undefined;
    return { rows: rows.map((row) => ({ ...camel<Row>(row), node })), ...(next !== undefined && { next }) };
  }

  return {
    publish: async (pipe, event, data, more) => act({ method: 'publish', pipe, event, data, ...more }),
    push: async (to, event, data) => act({ method: 'push', to, event, data }),
    notify: async (to, event, data) => act({ method: 'notify', to, event, data }),
    revoke: async (user, pipe, more) => act({ method: 'revoke', user, pipe, ...more }),
    revokeAll: async (user, more) => act({ method: 'revokeAll', user, ...more }),
    restore: async (user, pipe, more) => act({ method: 'restore', user, pipe, ...more }),
    revokeTokens: async (tokens) => act({ method: 'revokeTokens', ...tokens }),
    disconnect: async (who, more) => act({ method: 'disconnect', ...target(who), ...more }),
    unsubscribe: async (who, pipe) => act({ method: 'unsubscribe', pipe, ...target(who) }),

    async batch(commands) {
      const wire = commands.map((command) => {
        const { wire: each, node } = checked(command as T.Command<AnyEvents>);
        if (node) {
          const what = 'A batch goes to all nodes: make calls that name a connection by themselves.';
          throw new PipewardError('INVALID', what);
        }
        return each;
      });
      const repeatable = commands.every((command) => isRepeatable(command as T.Command<AnyEvents>));
      const request: Ask = {
        name: 'batch',
        method: 'POST',
        path: '/v1/batch',
        body: text({ commands: wire }),
        repeatable,
        accepts: ({ results }) => Array.isArray(results) && results.length === commands.length,
      };
      const answers = everyNode('batch', await askAll<{ results: T.BatchResult[] }>(nodes, request));
      return commands.map(({ method }, at) => {
        const results = answers.map(({ results }) => camel<T.BatchResult>(results[at]!));
        return sameCommand(results, method === 'push');
      });
    },

    async connections(query) {
      const { rows, ...next } = await page<T.Connection>('connections', '/v1/connections', 'connections', query);
      return { connections: rows, ...next };
    },

    async pipes(query) {
      return pipesOf((await get<T.Pipes>('pipes', '/v1/pipes', 'pipes', query)).map(({ value }) => value));
    },

    async presence(pipe) {
      const answers = await get<T.Presence>('presence', `/v1/pipes/${encodeURIComponent(pipe)}/presence`, 'members');
      return presenceOf(answers.map(({ value }) => value));
    },

    async queues() {
      const answers = await get<{ queues: T.Queue[] }>('queues', '/v1/queues', 'queues');
      return answers.flatMap(({ node, value }) => value.queues.map((row) => ({ ...camel<T.Queue>(row), node })));
    },

    async deadLetters(queue, query) {
      const path = `/v1/queues/${encodeURIComponent(queue)}/dead`;
      const { rows, ...next } = await page<T.DeadLetter>('deadLetters', path, 'letters', query);
      return { letters: rows, ...next };
    },

    async retryDeadLetters(queue, letter) {
      const { node } = letter ? ownerOf('dead letter', letter.node, nodes) : {};
      const request: Ask = {
        name: 'retryDeadLetters',
        method: 'POST',
        path: `/v1/queues/${encodeURIComponent(queue)}/retry`,
        body: text({ id: letter?.id }),
        repeatable: false,
        accepts: ({ ok }) => ok === true,
      };
      return sum(everyNode(request.name, await askAll<T.Retried>(node ? [node] : nodes, request)));
    },

    async stats() {
      return statsOf(
        (await get<T.Stats>('stats', '/v1/stats', 'workers')).map(({ node, value }) => ({ node, stats: value })),
      );
    },
  };
}

function transportOf(options: Pick<AdminOptions, 'key' | 'timeoutMs' | 'retries' | 'fetch'>): TransportOptions {
  const { key, timeoutMs = 15_000, retries = 3, fetch = (...request) => globalThis.fetch(...request) } = options;
  if (typeof key !== 'string' || !/^[!-~]+$/.test(key)) {
    throw new PipewardError(
      'INVALID',
      "pipeAdmin needs a key: the secret of a [[control.key]] of the server's configuration.",
    );
  }
  return { key, timeoutMs, retries, fetch };
}

function text(body: unknown): string {
  try {
    return JSON.stringify(body);
  } catch (cause) {
    throw new PipewardError('INVALID', `The data cannot be written as JSON (${String(cause)}).`, { cause });
  }
}
