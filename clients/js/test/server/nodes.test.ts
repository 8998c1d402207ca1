// Several nodes: acknowledged when all have. SR-12.
import { describe, expect, it } from 'vitest';
import { admin, type Answer, failure, node, nowhere, refusal } from './node-double.js';

describe('several nodes', () => {
  const touched = (connections: number): Answer => ({ body: { ok: true, connections } });
  const NOBODY = refusal(404, 'NOT_CONNECTED');

  it('have all done it, and the numbers add up', async () => {
    const [a, b] = [await node(touched(2)), await node(touched(3))];
    expect(await admin([a, b]).revoke('ann', 'team')).toEqual({ ok: true, connections: 5 });
    expect([a.asked.length, b.asked.length]).toEqual([1, 1]);
  });

  it('fail as a whole where one fails, and say which', async () => {
    const [a, b] = [await node(touched(2)), await node(refusal(500, 'INTERNAL'))];
    const error = await failure(admin([a, b]).revoke('ann', 'team'));
    expect(error).toMatchObject({ code: 'INTERNAL', status: 500, done: [a.url], failures: [{ node: b.url, code: 'INTERNAL' }] });
    expect(error.message).toContain(b.url);
  });

  it('are each waited for', async () => {
    const [a, b] = [await node('reset', touched(2)), await node(touched(3))];
    expect(await admin([a, b]).revokeAll('ann')).toEqual({ ok: true, connections: 5 });
    expect([a.asked.length, b.asked.length]).toEqual([2, 1]);
  });

  it('have delivered a push if one of them has (SR-12)', async () => {
    const [a, b] = [await node(NOBODY), await node({ body: { ok: true, delivered: 2 } })];
    expect(await admin([a, b]).push('ann', 'notice', 1)).toEqual({ ok: true, delivered: 2 });
    const gone = await nowhere();
    const partly = await admin([gone, b.url], { retries: 0 }).push('ann', 'notice', 1);
    expect(partly).toEqual({ ok: true, delivered: 2, failures: [expect.objectContaining({ node: gone, code: 'UNAVAILABLE' })] });
  });

  it('have not delivered it if none has, and one that is away is not nobody', async () => {
    const [a, b] = [await node(NOBODY), await node(NOBODY)];
    expect((await failure(admin([a, b]).push('ann', 'notice', 1))).code).toBe('NOT_CONNECTED');
    expect((await failure(admin([a.url, await nowhere()], { retries: 0 }).push('ann', 'notice', 1))).code).toBe('UNAVAILABLE');
  });

  it('answer a batch command by command', async () => {
    const [a, b] = [
      await node({
        body: {
          results: [
            { ok: true, delivered: 1 },
            { ok: false, code: 'NOT_CONNECTED', error: '' },
            { ok: true, connections: 1 },
            { ok: false, code: 'NOT_CONNECTED', error: '' },
          ],
        },
      }),
      await node({
        body: {
          results: [
            { ok: true, delivered: 2 },
            { ok: true, delivered: 1 },
            { ok: false, code: 'TOO_MANY', error: 'Full' },
            { ok: false, code: 'NOT_CONNECTED', error: '' },
          ],
        },
      }),
    ];
    const push = { method: 'push', to: 'ann', event: 'notice', data: 1 } as const;
    expect(
      await admin([a, b]).batch([
        { method: 'publish', pipe: 'team', event: 'message', data: 1, count: true },
        push,
        { method: 'revokeAll', user: 'ann' },
        push,
      ]),
    ).toEqual([
      { ok: true, delivered: 3 },
      { ok: true, delivered: 1 },
      { ok: false, code: 'TOO_MANY', error: 'Full' },
      { ok: false, code: 'NOT_CONNECTED', error: '' },
    ]);
  });

  it('never guess whose connection is meant', async () => {
    // Both have a connection of this id, and they belong to different people.
    const [a, b] = [await node(touched(1)), await node(touched(1))];
    const both = admin([a, b]);
    for (const wrong of [
      both.disconnect({ connection: '0-0-0-0' }),
      both.push({ connection: '0-0-0-0' }, 'notice', 1),
      both.unsubscribe({ connection: '0-0-0-0', node: 'http://elsewhere' }, 'team'),
      both.batch([{ method: 'disconnect', connection: '0-0-0-0', node: b.url }]),
    ]) {
      await expect(wrong).rejects.toMatchObject({ code: 'INVALID', message: expect.stringMatching(/connection/) });
    }
    expect(await both.disconnect({ connection: '0-0-0-0', node: b.url })).toEqual({ ok: true, connections: 1 });
    expect([a.asked.length, b.asked.length]).toEqual([0, 1]);
    expect(b.asked[0]!.body).toEqual({ connection: '0-0-0-0' });
  });

  it('list their connections one after the other', async () => {
    const row = (connection: string) => ({ connection, user: 'ann', ip: '::1', since: 1, pipes: [], queue_bytes: 0 });
    const a = await node({ body: { connections: [row('0-0-0-1')], next: '0-0-0-1' } }, { body: { connections: [row('0-0-0-2')] } });
    const b = await node({ body: { connections: [row('0-0-0-1')] } });
    const seen: string[] = [];
    let after: string | undefined;
    do {
      const page = await admin([a, b]).connections({ limit: 1, after });
      seen.push(...page.connections.map(({ node: at, connection }) => `${at === a.url ? 'a' : 'b'} ${connection}`));
      after = page.next;
    } while (after !== undefined);
    expect(seen).toEqual(['a 0-0-0-1', 'a 0-0-0-2', 'b 0-0-0-1']);
    expect(a.asked.map(({ path }) => path)).toEqual(['/v1/connections?limit=1', '/v1/connections?limit=1&after=0-0-0-1']);
    await expect(admin([a, b]).connections({ after: '7:' })).rejects.toMatchObject({ code: 'INVALID' });
    await expect(admin([a, b]).connections({ after: '0-0-0-1' })).rejects.toMatchObject({ code: 'INVALID' });
  });

  it('list their queues and dead letters, each with its node', async () => {
    const letter = (id: string) => ({ id, enqueued_at: 1, died_at: 2, attempts: 3, error: 'gone', user: null, data: { a_b: 1 } });
    const queue = { queue: 'jobs', configured: true, depth: 1, bytes: 9, oldest: 1, attempts: 0, last_error: null, dead: 1, delivered: 0 };
    const a = await node(
      { body: { queues: [queue] } },
      { body: { letters: [letter('1')], next: 1 } },
      { body: { letters: [letter('2')] } },
    );
    const b = await node({ body: { queues: [queue] } }, { body: { letters: [letter('1')] } }, { body: { ok: true, retried: 1 } });
    const both = admin([a, b]);
    expect((await both.queues()).map(({ node: at, lastError }) => [at, lastError])).toEqual([
      [a.url, null],
      [b.url, null],
    ]);
    const first = await both.deadLetters('jobs', { limit: 1 });
    const second = await both.deadLetters('jobs', { limit: 1, after: first.next });
    const third = await both.deadLetters('jobs', { limit: 1, after: second.next });
    expect(first.letters).toEqual([
      { id: '1', node: a.url, enqueuedAt: 1, diedAt: 2, attempts: 3, error: 'gone', user: null, data: { a_b: 1 } },
    ]);
    expect([second.letters[0]?.id, third.letters[0]?.node, third.next]).toEqual(['2', b.url, undefined]);
    await expect(both.retryDeadLetters('jobs', { id: '1' })).rejects.toMatchObject({ code: 'INVALID' });
    expect(await both.retryDeadLetters('jobs', { id: '1', node: b.url })).toEqual({ ok: true, retried: 1 });
    expect([a.asked.length, b.asked.at(-1)]).toEqual([3, expect.objectContaining({ path: '/v1/queues/jobs/retry', body: { id: '1' } })]);
  });

  it('list their pipes by name, none left out and none twice', async () => {
    const page = (names: string[], next?: string) => ({ body: { pipes: names.map((pipe) => ({ pipe, subscribers: 1 })), next } });
    const a = await node(page(['a', 'b'], 'b'), page(['c', 'd'], 'd'), page([]));
    const b = await node(page(['b', 'e'], 'e'), page(['e', 'f']), page(['e', 'f']));
    const all = admin([a, b]);
    const first = await all.pipes({ limit: 2 });
    expect(first).toEqual({
      pipes: [
        { pipe: 'a', subscribers: 1 },
        { pipe: 'b', subscribers: 2 },
      ],
      next: 'b',
    });
    const second = await all.pipes({ limit: 2, after: first.next });
    expect(second).toEqual({
      pipes: [
        { pipe: 'c', subscribers: 1 },
        { pipe: 'd', subscribers: 1 },
      ],
      next: 'd',
    });
    expect(await all.pipes({ limit: 2, after: second.next })).toEqual({
      pipes: [
        { pipe: 'e', subscribers: 1 },
        { pipe: 'f', subscribers: 1 },
      ],
    });
  });

  it('have one presence, in which a person is one', async () => {
    const a = await node({
      body: {
        members: [
          { user: 'ann', connections: 1 },
          { user: 'ann', tenant: 't1', connections: 1 },
        ],
        total: 2,
        anonymous: 1,
      },
    });
    const b = await node({
      body: {
        members: [
          { user: 'ann', connections: 2 },
          { user: 'bob', connections: 1 },
        ],
        total: 2,
        anonymous: 2,
      },
    });
    expect(await admin([a, b]).presence('team')).toEqual({
      members: [
        { user: 'ann', connections: 3 },
        { user: 'ann', tenant: 't1', connections: 1 },
        { user: 'bob', connections: 1 },
      ],
      total: 3,
      anonymous: 3,
    });
  });

  it('add up their numbers', async () => {
    const stats = (n: number): Answer => ({
      body: {
        workers: [{ worker: 0, connections: n, counters: { in: n } }],
        total: { connections: n, counters: { in: n, [`only${n}`]: 1 } },
      },
    });
    const [a, b] = [await node(stats(1)), await node(stats(2))];
    expect(await admin([a, b]).stats()).toEqual({
      workers: [
        { node: a.url, worker: 0, connections: 1, counters: { in: 1 } },
        { node: b.url, worker: 0, connections: 2, counters: { in: 2 } },
      ],
      total: { connections: 3, counters: { in: 3, only1: 1, only2: 1 } },
    });
  });
});
