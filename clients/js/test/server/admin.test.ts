// The server API from the application's side: names of the wire, what is not sent, errors. PROTOCOL §4, rulings E1–E16.
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { defineEvents, pipeAdmin, PipewardError } from '../../src/server/index.js';
import { admin, failure, KEY, node, refusal } from './node-double.js';

describe('what is sent', () => {
  type Admin = ReturnType<typeof admin>;
  it.each<[string, (a: Admin) => Promise<unknown>, string, unknown]>([
    ['publish', (a) => a.publish('team', 'message', { n: 1 }), '/v1/publish', { pipe: 'team', event: 'message', data: { n: 1 } }],
    [
      'publish with options',
      (a) => a.publish('team', 'message', 1, { sender: 'ann', count: true }),
      '/v1/publish',
      { pipe: 'team', event: 'message', data: 1, sender: 'ann', count: true },
    ],
    ['publish of nothing', (a) => a.publish('team', 'message', undefined), '/v1/publish', { pipe: 'team', event: 'message', data: null }],
    ['push to a user', (a) => a.push('ann', 'notice', 1), '/v1/push', { to: { user: 'ann' }, event: 'notice', data: 1 }],
    [
      'push to a role of a tenant',
      (a) => a.push({ role: 'admin', tenant: 't1' }, 'notice', 1),
      '/v1/push',
      { to: { role: 'admin', tenant: 't1' }, event: 'notice', data: 1 },
    ],
    [
      'push to a connection',
      (a) => a.push({ connection: '0-1-2-3', node: 'http://any' }, 'notice', 1),
      '/v1/push',
      { to: { connection: '0-1-2-3' }, event: 'notice', data: 1 },
    ],
    ['notify', (a) => a.notify({ org: 'o1' }, 'notice', 1), '/v1/notify', { to: { org: 'o1' }, event: 'notice', data: 1 }],
    [
      'revoke',
      (a) => a.revoke('ann', 'team-*', { ttlS: 60, until: 'reauthorized', tenant: 't1' }),
      '/v1/revoke',
      { user: 'ann', pipe: 'team-*', ttl_s: 60, until: 'reauthorized', tenant: 't1' },
    ],
    ['revokeAll', (a) => a.revokeAll('ann'), '/v1/revoke_all', { user: 'ann' }],
    ['restore', (a) => a.restore('ann', 'team-*', { tenant: 't1' }), '/v1/restore', { user: 'ann', pipe: 'team-*', tenant: 't1' }],
    ['restore of everything', (a) => a.restore('ann'), '/v1/restore', { user: 'ann' }],
    [
      'revokeTokens of a user',
      (a) => a.revokeTokens({ user: 'ann', issuedBeforeS: 5, exceptSession: 's', exceptToken: 't' }),
      '/v1/revoke_tokens',
      { user: 'ann', issued_before_s: 5, except_session: 's', except_token: 't' },
    ],
    ['revokeTokens of a session', (a) => a.revokeTokens({ session: 's1', ttlS: 5 }), '/v1/revoke_tokens', { session: 's1', ttl_s: 5 }],
    ['disconnect', (a) => a.disconnect('ann', { reconnect: true }), '/v1/disconnect', { user: 'ann', reconnect: true }],
    ['disconnect a session', (a) => a.disconnect({ session: 's1' }), '/v1/disconnect', { session: 's1' }],
    ['unsubscribe', (a) => a.unsubscribe({ connection: '0-1-2-3' }, 'team'), '/v1/unsubscribe', { connection: '0-1-2-3', pipe: 'team' }],
  ])('%s', async (_, call, path, body) => {
    const double = await node({ body: { ok: true, delivered: 2, connections: 3 } });
    await call(admin(double));
    expect(double.asked).toEqual([{ method: 'POST', path, key: `Bearer ${KEY}`, body }]);
  });

  it('asks for lists with percent signs where they belong', async () => {
    const double = await node({ body: { connections: [], pipes: [], members: [], total: 0, anonymous: 0 } });
    await admin(double).connections({ user: 'a&b', limit: 5 });
    await admin(double).pipes({ after: 'a/b?c' });
    await admin(double).presence('a/b?c');
    expect(double.asked.map(({ method, path }) => `${method} ${path}`)).toEqual([
      'GET /v1/connections?user=a%26b&limit=5',
      'GET /v1/pipes?after=a%2Fb%3Fc',
      'GET /v1/pipes/a%2Fb%3Fc/presence',
    ]);
  });

  it('says what came back in the names of this language', async () => {
    const double = await node(
      { body: { ok: true, connections: 1, issued_before_s: 7 } },
      { body: { connections: [{ connection: '0-0-0-0', user: null, ip: '::1', since: 1, pipes: ['a_b'], queue_bytes: 9 }] } },
      {
        body: {
          workers: [{ worker: 0, connections: 1, queue_bytes: 2, counters: { bytes_in: 3 } }],
          total: { connections: 1, queue_bytes: 2, counters: { bytes_in: 3 } },
        },
      },
    );
    expect(await admin(double).revokeTokens({ user: 'ann' })).toEqual({ ok: true, connections: 1, issuedBeforeS: 7 });
    expect((await admin(double).connections()).connections).toEqual([
      { connection: '0-0-0-0', node: double.url, user: null, ip: '::1', since: 1, pipes: ['a_b'], queueBytes: 9 },
    ]);
    expect(await admin(double).stats()).toMatchObject({
      workers: [{ node: double.url, worker: 0, queue_bytes: 2, counters: { bytes_in: 3 } }],
      total: { queue_bytes: 2 },
    });
  });

  it('sends a batch as one request', async () => {
    const double = await node({
      body: {
        results: [
          { ok: true, delivered: 1 },
          { ok: false, code: 'INVALID', error: 'No' },
          { ok: true, connections: 1, issued_before_s: 5 },
        ],
      },
    });
    const results = await admin(double).batch([
      { method: 'publish', pipe: 'team', event: 'message', data: undefined, count: true },
      { method: 'revokeAll', user: 'ann', ttlS: 5 },
      { method: 'revokeTokens', user: 'ann' },
    ]);
    expect(double.asked[0]).toMatchObject({
      path: '/v1/batch',
      body: {
        commands: [
          { method: 'publish', pipe: 'team', event: 'message', data: null, count: true },
          { method: 'revoke_all', user: 'ann', ttl_s: 5 },
          { method: 'revoke_tokens', user: 'ann' },
        ],
      },
    });
    expect(results).toEqual([
      { ok: true, delivered: 1 },
      { ok: false, code: 'INVALID', error: 'No' },
      { ok: true, connections: 1, issuedBeforeS: 5 },
    ]);
  });

  it("goes by the fetch that it was given, which is nobody's method", async () => {
    const double = await node();
    const seen: unknown[] = [];
    // Workers throw "Illegal invocation" otherwise.
    const fetch = function (this: unknown, ...request: Parameters<typeof globalThis.fetch>) {
      seen.push(this);
      return globalThis.fetch(...request);
    };
    await admin(double, { fetch }).revokeAll('ann');
    expect([seen, double.asked.length]).toEqual([[undefined], 1]);
  });

  it('keeps a path before the calls, and no slash twice', async () => {
    const double = await node();
    await admin(`${double.url}/realtime/`).revokeAll('ann');
    expect(double.asked[0]!.path).toBe('/realtime/v1/revoke_all');
  });
});

describe('what is not sent', () => {
  it.each([[''], ['127.0.0.1:8081'], ['ftp://a'], [[]], [['http://a', 'http://a/']], [undefined as unknown as string]])(
    'nothing to the address %j',
    (url) => {
      expect(() => pipeAdmin({ url, key: KEY })).toThrow(expect.objectContaining({ code: 'INVALID' }));
    },
  );

  it.each([[''], ['two words'], ['line\nend'], [undefined as unknown as string]])('nothing with the key %j', (key) => {
    expect(() => pipeAdmin({ url: 'http://127.0.0.1:1', key })).toThrow(expect.objectContaining({ code: 'INVALID' }));
  });

  it('an event that is not declared, or does not match', async () => {
    const double = await node();
    const events = defineEvents({ message: z.object({ text: z.string() }) });
    const typed = pipeAdmin({ url: double.url, key: KEY, events });
    await typed.publish('team', 'message', { text: 'hello' });
    for (const wrong of [
      typed.publish('team', 'message', { text: 7 } as never),
      typed.push('ann', 'massage' as never, { text: 'hello' } as never),
      typed.batch([{ method: 'publish', pipe: 'team', event: 'message', data: {} as never }]),
    ]) {
      await expect(wrong).rejects.toMatchObject({ name: 'PipewardError', code: 'INVALID_EVENT' });
    }
    expect(double.asked.map(({ body }) => body)).toEqual([{ pipe: 'team', event: 'message', data: { text: 'hello' } }]);
  });

  it('what is no JSON', async () => {
    const double = await node();
    const circle: unknown[] = [];
    circle.push(circle);
    await expect(admin(double).publish('team', 'message', circle)).rejects.toMatchObject({ code: 'INVALID' });
    await expect(admin(double).publish('team', 'message', 1n)).rejects.toMatchObject({ code: 'INVALID' });
    expect(double.asked).toEqual([]);
  });

  it('the key to another address', async () => {
    const [elsewhere, double] = [await node(), await node({ status: 307, headers: { location: 'http://127.0.0.1:1/' } })];
    expect((await failure(admin(double).revokeAll('ann'))).status).toBe(307);
    expect([elsewhere.asked.length, double.asked.length]).toEqual([0, 1]);
  });
});

describe('errors', () => {
  it('carry code, sentence, status and node', async () => {
    const double = await node(refusal(403, 'FORBIDDEN'));
    const error = await failure(admin(double).publish('team', 'message', 1));
    expect(error).toBeInstanceOf(PipewardError);
    expect(error).toMatchObject({
      code: 'FORBIDDEN',
      status: 403,
      message: 'publish: About FORBIDDEN.',
      failures: [{ node: double.url, code: 'FORBIDDEN' }],
    });
  });

  it.each([
    [401, 'UNAUTHENTICATED'],
    [404, 'NOT_CONNECTED'],
    [429, 'TOO_MANY'],
    [422, 'SCHEMA'],
    [500, 'INTERNAL'],
  ])('are not tried again for %i %s', async (status, code) => {
    const double = await node(refusal(status, code), { body: { ok: true, connections: 0 } });
    expect((await failure(admin(double).revokeAll('ann'))).code).toBe(code);
    expect(double.asked.length).toBe(1);
  });

  it.each([
    ['a page that is not there', { status: 404, text: '<h1>Not here</h1>' }],
    ['a page', { text: '<h1>Hello</h1>' }],
    ['null', { text: 'null' }],
    ['an empty object', { body: {} }],
    ['an answer to something else', { body: { ok: 'true', results: [], connections: 7, members: {} } }],
  ])('take %s for no acknowledgement', async (_, answer) => {
    const double = await node(answer);
    const calls = [
      () => admin(double).revokeAll('ann'),
      () => admin(double).batch([{ method: 'revokeAll', user: 'ann' }]),
      () => admin(double).connections(),
      () => admin(double).presence('team'),
    ];
    for (const call of calls) {
      expect(await failure(call())).toMatchObject({ code: 'INVALID', message: expect.stringContaining('control listener') });
    }
  });

  it('say after how long to try again', async () => {
    const double = await node(refusal(503, 'DRAINING', { 'retry-after': '7' }));
    expect(await failure(admin(double, { retries: 0 }).publish('team', 'message', 1))).toMatchObject({
      code: 'DRAINING',
      retryAfterMs: 7000,
    });
  });
});
