// What is tried again: nothing twice that may not be done twice.
import { describe, expect, it } from 'vitest';
import { admin, type Answer, failure, node, nowhere, refusal } from './node-double.js';

describe('retries', () => {
  const FINE: Answer = { body: { ok: true, connections: 1, delivered: 1 } };
  type Call = (a: ReturnType<typeof admin>) => Promise<unknown>;
  const REPEATABLE: [string, Call][] = [
    ['revoke', (a) => a.revoke('ann', 'team')],
    ['revokeAll', (a) => a.revokeAll('ann')],
    ['restore', (a) => a.restore('ann')],
    ['revokeTokens', (a) => a.revokeTokens({ token: 't' })],
    ['presence', (a) => a.presence('team')],
    [
      'a batch of those',
      (a) =>
        a.batch([
          { method: 'revokeAll', user: 'ann' },
          { method: 'restore', user: 'bob' },
        ]),
    ],
  ];
  const ONCE: [string, Call][] = [
    ['publish', (a) => a.publish('team', 'message', 1)],
    ['push', (a) => a.push('ann', 'message', 1)],
    ['notify', (a) => a.notify('ann', 'message', 1)],
    ['disconnect', (a) => a.disconnect('ann')],
    ['unsubscribe', (a) => a.unsubscribe('ann', 'team')],
    [
      'a batch with one of those',
      (a) =>
        a.batch([
          { method: 'revokeAll', user: 'ann' },
          { method: 'publish', pipe: 'team', event: 'message', data: 1 },
        ]),
    ],
  ];
  const fineFor = (name: string): Answer => ({
    body: {
      ok: true,
      connections: 1,
      delivered: 1,
      members: [],
      total: 0,
      anonymous: 0,
      results: name.includes('batch') ? [{ ok: true }, { ok: true }] : undefined,
    },
  });

  it.each(REPEATABLE)('%s: again after a connection that broke', async (name, call) => {
    const double = await node('reset', 'reset', fineFor(name));
    await call(admin(double));
    expect(double.asked.length).toBe(3);
  });

  it.each(REPEATABLE)('%s: again after silence, and after a gateway', async (name, call) => {
    const double = await node('hang', { status: 502, text: 'Bad gateway' }, refusal(503, 'OVERLOADED'), fineFor(name));
    await call(admin(double, { timeoutMs: 200 }));
    expect(double.asked.length).toBe(4);
  });

  it.each(ONCE)('%s: never twice where it may have been done', async (_, call) => {
    for (const answer of ['reset', 'hang', { status: 502, text: '' }, { status: 504, text: '' }] as const) {
      const double = await node(answer, FINE);
      const error = await failure(call(admin(double, { timeoutMs: 200 })));
      expect([double.asked.length, error.code]).toEqual([1, answer === 'hang' ? 'TIMEOUT' : 'UNAVAILABLE']);
    }
  });

  it('publish is not repeated where a worker may do it late, notify is, because nothing was taken', async () => {
    const late = await node(refusal(503, 'OVERLOADED'), FINE);
    expect((await failure(admin(late).publish('team', 'message', 1))).code).toBe('OVERLOADED');
    const full = await node(refusal(503, 'OVERLOADED'), FINE);
    await admin(full).notify('ann', 'message', 1);
    expect([late.asked.length, full.asked.length]).toEqual([1, 2]);
  });

  it.each([...ONCE, ...REPEATABLE])('%s: again where the server did nothing', async (name, call) => {
    const double = await node(refusal(503, 'DRAINING'), fineFor(name));
    await call(admin(double));
    expect(double.asked.length).toBe(2);
  });

  it.each([ONCE[0]!, REPEATABLE[0]!])('%s: again where nobody listens, and an error with a sentence in the end', async (_, call) => {
    const error = await failure(call(admin(await nowhere(), { retries: 1 })));
    expect(error).toMatchObject({ code: 'UNAVAILABLE', message: expect.stringContaining('ECONNREFUSED') });
  });

  it('waits as long as the server asks for', async () => {
    const double = await node(refusal(503, 'DRAINING', { 'retry-after': '1' }), FINE);
    const began = performance.now();
    await admin(double).publish('team', 'message', 1);
    expect(performance.now() - began).toBeGreaterThanOrEqual(990);
  });

  it('does not come back sooner than the server asks for, and does not hold the caller that long', async () => {
    const double = await node(refusal(503, 'DRAINING', { 'retry-after': '30' }), FINE);
    const error = await failure(admin(double).revokeAll('ann'));
    expect([double.asked.length, error.code, error.retryAfterMs]).toEqual([1, 'DRAINING', 30_000]);
  });

  it('gives up after the number of attempts', async () => {
    const double = await node('reset');
    expect((await failure(admin(double, { retries: 2 }).revokeAll('ann'))).code).toBe('UNAVAILABLE');
    expect(double.asked.length).toBe(3);
  });
});
