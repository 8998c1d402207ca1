/** Commands and answers between this language's names (`revokeAll`, `ttlS`) and those of the wire (`revoke_all`, `ttl_s`). */

import { PipewardError } from '../../core/error.js';
import type { AnyEvents } from '../../events.js';
import type { Command, ConnectionTarget, UserTarget } from './types.js';

/** A command as it is sent. */
export type WireCommand = { method: string } & Record<string, unknown>;

/** Calls that come to the same when they are made twice. */
const REPEATABLE: ReadonlySet<string> = new Set(['revoke', 'revokeAll', 'restore', 'revokeTokens']);

/** Whether the command may be sent again although it may have been carried out. */
export function isRepeatable(command: Command<AnyEvents>): boolean {
  return REPEATABLE.has(command.method);
}

/** A user id stands for the user. */
export function target<Target extends object>(who: string | Target): Target | UserTarget {
  return typeof who === 'string' ? { user: who } : who;
}

/**
 * The command as it is sent and, where it names a connection of one of several nodes, which.
 *
 * @throws PipewardError `INVALID`, see {@link ownerOf}.
 */
export function commandOf(command: Command<AnyEvents>, nodes: readonly string[]): { wire: WireCommand; node?: string } {
  const wire: WireCommand = { method: snake(command.method) };
  for (const [field, value] of Object.entries(command)) {
    if (field !== 'method' && field !== 'node' && value !== undefined) wire[snake(field)] = value;
  }
  if ('event' in command) wire.data = command.data ?? null;
  let place: object = command;
  if ('to' in command) {
    place = target<object>(command.to);
    const { node: _, ...to } = place as ConnectionTarget;
    wire.to = to;
  }
  const { connection, node } = place as Partial<ConnectionTarget>;
  return connection === undefined ? { wire } : { wire, ...ownerOf('connection', node, nodes) };
}

/**
 * Which of several nodes is meant; nothing where there is one.
 *
 * @throws PipewardError `INVALID`: ids are a node's own, and the same one may be another's on each of them.
 */
export function ownerOf(what: string, node: string | undefined, nodes: readonly string[]): { node?: string } {
  if (nodes.length === 1) return {};
  const known = nodes.find((each) => each === node?.replace(/\/+$/, ''));
  if (known !== undefined) return { node: known };
  const rule = `With several nodes a ${what} is named together with its node`;
  throw new PipewardError('INVALID', `${rule}: hand over the \`node\` that it was listed with.`);
}

/**
 * The addresses, without a slash at the end.
 *
 * @throws PipewardError `INVALID` for one that is none.
 */
export function nodesOf(url: string | readonly string[]): string[] {
  const nodes = [url].flat().map((each) => String(each).replace(/\/+$/, ''));
  const isAddress = (each: string) => /^https?:\/\//.test(each) && URL.canParse(each);
  if (!nodes.length || !nodes.every(isAddress) || new Set(nodes).size < nodes.length) {
    throw new PipewardError(
      'INVALID',
      'pipeAdmin needs the addresses of control listeners, each once, such as http://127.0.0.1:8081.',
    );
  }
  return nodes;
}

/** The names of one object's fields, not of what is in them. */
export function camel<Answer>(answer: object): Answer {
  const named = Object.entries(answer).map(([field, value]) => [
    field.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
    value,
  ]);
  return Object.fromEntries(named) as Answer;
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
