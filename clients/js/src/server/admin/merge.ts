/** Answers of several nodes as one. A single node's answer comes through unchanged. */

import { AdminError } from './error.js';
import type { BatchResult, NodeFailure, Numbers, Pipes, Presence, Stats } from './types.js';

/** What one node came to. */
export type Outcome<T> = { node: string; value: T } | { node: string; error: AdminError };

type Counted = { ok: true; delivered?: number; connections?: number; retried?: number; issuedBeforeS?: number };

/**
 * All values, if every node did it.
 *
 * @throws AdminError with the first failure's code, naming all that failed.
 */
export function everyNode<T>(name: string, outcomes: readonly Outcome<T>[]): T[] {
  const failed = outcomes.flatMap((outcome) => ('error' in outcome ? [outcome.error] : []));
  const [first] = failed;
  if (!first) return outcomes.flatMap((outcome) => ('value' in outcome ? [outcome.value] : []));
  if (outcomes.length === 1) throw first;
  const done = outcomes.flatMap((outcome) => ('value' in outcome ? [outcome.node] : []));
  const failures = failed.flatMap((error) => error.failures);
  const told = failures.map(({ node, error }) => `${node}: ${error}`).join('; ');
  throw new AdminError(first.code, `${name}: ${failures.length} of ${outcomes.length} nodes did not do it (${told}).`, {
    status: first.status,
    retryAfterMs: first.retryAfterMs,
    cause: first,
    failures,
    done,
  });
}

/** Numbers add up; a cut-off is the latest. */
export function sum<T extends Counted>(answers: readonly T[]): T {
  return answers.reduce((total, answer) => {
    const merged: Counted = { ...total };
    for (const field of ['delivered', 'connections', 'retried'] as const) {
      if (answer[field] !== undefined) merged[field] = (total[field] ?? 0) + answer[field];
    }
    if (answer.issuedBeforeS !== undefined)
      merged.issuedBeforeS = Math.max(total.issuedBeforeS ?? 0, answer.issuedBeforeS);
    return merged as T;
  });
}

/**
 * A push has succeeded if it was delivered anywhere (SR-12).
 *
 * @throws AdminError `NOT_CONNECTED` if every node says so, otherwise the failure of one that could not be asked.
 */
export function anyDelivery(
  outcomes: readonly Outcome<Counted & { delivered: number }>[],
): Counted & { delivered: number; failures?: NodeFailure[] } {
  const delivered = outcomes.reduce((total, outcome) => total + ('value' in outcome ? outcome.value.delivered : 0), 0);
  const errors = outcomes.flatMap((outcome) => ('error' in outcome ? [outcome.error] : []));
  const failed = errors.filter((error) => error.code !== 'NOT_CONNECTED');
  const failures = failed.flatMap((error) => error.failures);
  if (delivered > 0) return { ok: true, delivered, ...(failures.length && { failures }) };
  throw failed[0] ?? errors[0]!;
}

/** The results of one command on all nodes. */
export function sameCommand(results: readonly BatchResult[], isPush: boolean): BatchResult {
  const good = results.filter((result) => result.ok);
  const bad = results.filter((result) => !result.ok);
  const counts = isPush ? bad.filter((result) => result.code !== 'NOT_CONNECTED') : bad;
  if (good.length && !counts.length) return sum(good);
  return counts[0] ?? bad[0]!;
}

/** Pages of the nodes' lists as one page: up to the first name where a node has more. */
export function pipesOf(pages: readonly Pipes[]): Pipes {
  const ends = pages.flatMap((page) => (page.next === undefined ? [] : [page.next])).sort(byName);
  const [next] = ends;
  const subscribers = new Map<string, number>();
  for (const row of pages.flatMap((page) => page.pipes)) {
    if (next !== undefined && byName(row.pipe, next) > 0) continue;
    subscribers.set(row.pipe, (subscribers.get(row.pipe) ?? 0) + row.subscribers);
  }
  const pipes = [...subscribers]
    .map(([pipe, count]) => ({ pipe, subscribers: count }))
    .sort((a, b) => byName(a.pipe, b.pipe));
  return { pipes, ...(next !== undefined && { next }) };
}

/** The same person on two nodes is one member. */
export function presenceOf(answers: readonly Presence[]): Presence {
  const members = new Map<string, Presence['members'][number]>();
  for (const member of answers.flatMap((answer) => answer.members)) {
    const key = JSON.stringify([member.tenant, member.user]);
    const connections = (members.get(key)?.connections ?? 0) + member.connections;
    members.set(key, { ...member, connections });
  }
  const listed = answers.reduce((total, answer) => total + answer.members.length, 0);
  const total = answers.reduce((all, answer) => all + answer.total, 0) - (listed - members.size);
  const anonymous = answers.reduce((all, answer) => all + answer.anonymous, 0);
  return { members: [...members.values()], total, anonymous };
}

/** Everything counted, added up. */
export function statsOf(answers: readonly { node: string; stats: Stats }[]): Stats {
  const workers = answers.flatMap(({ node, stats }) => stats.workers.map((worker) => ({ ...worker, node })));
  return { workers, total: answers.map(({ stats }) => stats.total).reduce(added) };
}

function added(left: object, right: object): Numbers {
  const names = new Set([...Object.keys(left), ...Object.keys(right)]);
  const of = (side: object, name: string): unknown => (side as Record<string, unknown>)[name];
  const total = [...names].map((name) => {
    const [a, b] = [of(left, name), of(right, name)];
    const nested = typeof (a ?? b) === 'object';
    return [name, nested ? added(a ?? {}, b ?? {}) : Number(a ?? 0) + Number(b ?? 0)];
  });
  return Object.fromEntries(total) as Numbers;
}

/** Names are ASCII: the order of their bytes, which is the server's. */
function byName(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
