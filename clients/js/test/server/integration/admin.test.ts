// The server side against the real server: HP-4, HP-8, HP-9, HP-10, GD-6, SR-12, PROTOCOL §4.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createClient, type Client, type ClientOptions } from '../../../src/index.js';
import { NodeWebSocket } from '../../../src/node/index.js';
import { AdminError, type Authorization, createPipeHandler, pipeAdmin, signToken } from '../../../src/server/index.js';
import { startServer, type Server } from '../../support/server.js';

const CONFIG = `
[[control.key]]
name = "reader"
secret = "the-key-of-a-reader"
allow = ["stats"]
`;

let one: Server;
let two: Server;
const clients: Client[] = [];

beforeAll(async () => {
  [one, two] = await Promise.all([startServer(CONFIG), startServer(CONFIG)]);
});

afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

afterAll(async () => {
  await Promise.all([one, two].map((server) => server?.kill()));
});

const EVERYTHING: Authorization['pipes'] = { 'team-*': { subscribe: true, publish: true, presence: true } };

/** A user that no other test knows. */
let users = 0;
const someone = () => `user${(users += 1)}`;

function admin(servers: Server | Server[] = one, key = one.apiKey) {
  return pipeAdmin({ url: [servers].flat().map(({ control }) => control), key });
}

/** Connected by a token of the application. */
async function connect(authorization: Authorization, { server = one, ...options }: Partial<ClientOptions> & { server?: Server } = {}) {
  const getToken = () => signToken(authorization, { secret: server.secret });
  const client = createClient({ url: server.url, getToken, WebSocket: NodeWebSocket, onError: () => undefined, ...options });
  clients.push(client);
  client.connect();
  await until(() => client.status, 'connected');
  return client;
}

/** Subscribed, with the data of what it hears. */
async function listen(client: Client, name: string) {
  const heard: unknown[] = [];
  const pipe = client.pipe(name);
  pipe.onAny(({ data, sender }) => heard.push(sender === null ? data : [sender, data]));
  await pipe.subscribed;
  return { pipe, heard };
}

const until = <T>(look: () => T, value: T) => expect.poll(look, { timeout: 10_000, interval: 5 }).toEqual(value);

describe('tokens', () => {
  it('carry the whole identity and its grants to the server', async () => {
    const user = someone();
    const authorization: Authorization = {
      user: { id: user, name: 'Zoë', roles: ['member'], tenant: 't1', org: 'o1', features: ['chat'], info: { n: 1 } },
      pipes: { ...EVERYTHING, notices: { subscribe: true } },
    };
    const client = await connect(authorization);
    expect(client.user).toEqual({ id: user, name: 'Zoë' });
    const { heard } = await listen(client, 'team-red');
    await client.pipe('team-red').publish('message', { text: 'hello' });
    await until(() => heard, [[user, { text: 'hello' }]]);
    await expect(client.pipe('notices').publish('message', 1)).rejects.toMatchObject({ code: 'FORBIDDEN' });
    const { connections } = await admin().connections({ user, tenant: 't1' });
    expect(connections).toMatchObject([{ user, tenant: 't1', connection: client.connection, node: one.control }]);
  });

  it('come from the route, and end when they say', async () => {
    const user = someone();
    const handler = createPipeHandler({
      secret: one.secret,
      tokenExpiry: 3600,
      authorize: (request) => ({ userId: request.headers.get('x-user')!, pipes: EVERYTHING, expiresAt: Date.now() + 2000 }),
    });
    const answer = await handler(new Request('http://app/api/pipe', { method: 'POST', headers: { 'x-user': user } }));
    const { token, expires_at } = (await answer.json()) as { token: string; expires_at: number };
    const ends: { code: number; at: number }[] = [];
    const client = createClient({
      url: one.url,
      WebSocket: NodeWebSocket,
      onError: () => undefined,
      getToken: () => token,
      onStatus: (_, { closeCode }) => closeCode && ends.push({ code: closeCode, at: Date.now() }),
    });
    clients.push(client);
    client.connect();
    await until(() => client.status, 'connected');
    expect(client.user).toEqual({ id: user, name: null });
    await until(() => ends[0]?.code, 4401);
    expect(ends[0]!.at).toBeGreaterThanOrEqual(expires_at);
    expect(ends[0]!.at).toBeLessThan(expires_at + 1500);
  });

  it.each([
    ['another secret', 'another secret of 32 bytes length', undefined],
    ['an audience that the server does not know', undefined, 'elsewhere'],
  ])('with %s are refused', async (_, secret, audience) => {
    const token = await signToken({ userId: 'ann' }, { secret: secret ?? one.secret, audience });
    const client = createClient({ url: one.url, WebSocket: NodeWebSocket, getToken: () => token, onError: () => undefined });
    clients.push(client);
    const errors: unknown[] = [];
    client.onStatus((_, { error }) => error && errors.push(error.code));
    client.connect();
    await until(() => errors[0], 'UNAUTHENTICATED');
  });
});

describe('pipeAdmin', () => {
  it('has every call of the server API', async () => {
    const answer = await fetch(`${one.control}/openapi.json`, { headers: { authorization: `Bearer ${one.apiKey}` } });
    const { paths } = (await answer.json()) as { paths: Record<string, object> };
    const renamed: Record<string, string> = { dead: 'deadLetters', retry: 'retryDeadLetters' };
    const calls = Object.keys(paths)
      .filter((path) => path.startsWith('/v1/'))
      .map((path) =>
        path
          .split('/')
          .at(-1)!
          .replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
      )
      .map((name) => renamed[name] ?? name);
    expect(calls.length).toBeGreaterThanOrEqual(17);
    expect(Object.keys(admin()).sort()).toEqual(calls.sort());
  });

  it('publishes (HP-4)', async () => {
    const client = await connect({ userId: someone(), pipes: EVERYTHING });
    const { heard } = await listen(client, 'team-a/b?c');
    expect(await admin().publish('team-a/b?c', 'message', { n: 1 })).toEqual({ ok: true });
    expect(await admin().publish('team-a/b?c', 'message', 'two', { sender: 'bob', count: true })).toEqual({ ok: true, delivered: 1 });
    expect(await admin().publish('team-nobody', 'message', undefined, { count: true })).toEqual({ ok: true, delivered: 0 });
    await until(() => heard, [{ n: 1 }, ['bob', 'two']]);
    expect((await admin().presence('team-a/b?c')).members).toHaveLength(1);
    expect((await admin().pipes({ after: 'team-a/b?' })).pipes).toContainEqual({ pipe: 'team-a/b?c', subscribers: 1 });
  });

  it('pushes and notifies (SR-12)', async () => {
    const user = someone();
    await expect(admin().push(user, 'notice', 1)).rejects.toMatchObject({ code: 'NOT_CONNECTED', status: 404 });
    const authorization: Authorization = { user: { id: user, role: 'admin', tenant: 'push-tenant', org: 'push-org' } };
    const both = [await connect(authorization), await connect(authorization)];
    const heard: unknown[] = [];
    for (const client of both) client.onPush('notice', ({ data }) => heard.push(data));
    expect(await admin().push(user, 'notice', 1)).toEqual({ ok: true, delivered: 2 });
    expect(await admin().push({ connection: both[0]!.connection! }, 'notice', 2)).toEqual({ ok: true, delivered: 1 });
    expect(await admin().push({ role: 'admin', tenant: 'push-tenant' }, 'notice', 3)).toEqual({ ok: true, delivered: 2 });
    expect(await admin().push({ tenant: 'push-tenant' }, 'notice', 4)).toEqual({ ok: true, delivered: 2 });
    expect(await admin().push({ org: 'push-org' }, 'notice', 5)).toEqual({ ok: true, delivered: 2 });
    expect(await admin().notify(user, 'notice', 6)).toEqual({ ok: true });
    await until(() => [...heard].sort(), [1, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6]);
  });

  it('revokes, also for those who are not there, and restores (HP-8)', async () => {
    const user = someone();
    const revoked: string[] = [];
    const client = await connect({ userId: user, pipes: EVERYTHING }, { onPipeRevoked: (pipe) => revoked.push(pipe) });
    const { pipe, heard } = await listen(client, 'team-red');
    expect(await admin().revoke(user, 'team-red')).toEqual({ ok: true, connections: 1 });
    await until(() => pipe.status, 'revoked');
    await admin().publish('team-red', 'message', 'unheard');
    const later = await connect({ userId: user, pipes: EVERYTHING });
    await expect(later.pipe('team-red').publish('message', 1)).rejects.toMatchObject({ code: 'REVOKED' });
    expect(await admin().restore(user, 'team-red')).toEqual({ ok: true, connections: 2 });
    await until(() => pipe.status, 'subscribed');
    await admin().publish('team-red', 'message', 'heard');
    await until(() => heard, ['heard']);
    expect(revoked).toEqual(['team-red']);
    expect(await admin().revoke(user, 'team-*', { ttlS: 0.2 })).toEqual({ ok: true, connections: 2 });
    await until(() => pipe.status, 'revoked');
    await until(() => pipe.status, 'subscribed');
  });

  it('revokes everything (HP-9)', async () => {
    const user = someone();
    const client = await connect({ userId: user, pipes: EVERYTHING });
    const [red, blue] = [await listen(client, 'team-red'), await listen(client, 'team-blue')];
    expect(await admin().revokeAll(user, { until: 'reauthorized' })).toEqual({ ok: true, connections: 1 });
    await until(() => [red.pipe.status, blue.pipe.status, client.status], ['revoked', 'revoked', 'connected']);
    expect(await admin().restore(user)).toEqual({ ok: true, connections: 1 });
    await until(() => [red.pipe.status, blue.pipe.status], ['subscribed', 'subscribed']);
  });

  it('revokes tokens (GD-6)', async () => {
    const user = someone();
    const closed: number[] = [];
    const onStatus: ClientOptions['onStatus'] = (_, { closeCode }) => closeCode && closed.push(closeCode);
    const [away, here] = [
      await connect({ userId: user, session: `${user}-away` }, { onStatus }),
      await connect({ userId: user, session: `${user}-here` }),
    ];
    const { issuedBeforeS, ...answer } = await admin().revokeTokens({ user, exceptSession: `${user}-here` });
    expect(answer).toEqual({ ok: true, connections: 1 });
    expect(issuedBeforeS! * 1000).toBeLessThanOrEqual(Date.now());
    await until(() => away.status, 'disconnected');
    expect([closed, here.status]).toEqual([[4402], 'connected']);
    expect(await admin().revokeTokens({ session: `${user}-here` })).toEqual({ ok: true, connections: 1 });
    await until(() => here.status, 'disconnected');
    // A token minted after the answer is good (D9).
    await connect({ userId: user, session: `${user}-again` });
    const named = await connect({ userId: user, tokenId: `${user}-token` });
    expect(await admin().revokeTokens({ token: `${user}-token`, ttlS: 60 })).toEqual({ ok: true, connections: 1 });
    await until(() => named.status, 'disconnected');
  });

  it('disconnects and unsubscribes', async () => {
    const user = someone();
    const client = await connect({ userId: user, pipes: EVERYTHING, session: `${user}-s` });
    const { pipe } = await listen(client, 'team-red');
    expect(await admin().unsubscribe(user, 'team-red')).toEqual({ ok: true, connections: 1 });
    await until(() => pipe.status, 'denied');
    const before = client.connection;
    expect(await admin().disconnect({ connection: before! }, { reconnect: true })).toEqual({ ok: true, connections: 1 });
    await until(() => client.status === 'connected' && client.connection !== before, true);
    expect(await admin().disconnect({ session: `${user}-s` })).toEqual({ ok: true, connections: 1 });
    await until(() => client.status, 'disconnected');
    expect(await admin().disconnect(user)).toEqual({ ok: true, connections: 0 });
  });

  it('carries out a batch in order, and one that fails does not stop the rest', async () => {
    const user = someone();
    const client = await connect({ userId: user, pipes: EVERYTHING });
    const { heard } = await listen(client, 'team-batch');
    const results = await admin().batch([
      { method: 'publish', pipe: 'team-batch', event: 'message', data: 1, count: true },
      { method: 'publish', pipe: 'not a name', event: 'message', data: 2 },
      { method: 'push', to: someone(), event: 'notice', data: 3 },
      { method: 'notify', to: user, event: 'notice', data: 4 },
      { method: 'revokeAll', user: someone(), ttlS: 1 },
      { method: 'restore', user },
      { method: 'revokeTokens', session: 'nobody', ttlS: 1 },
      { method: 'unsubscribe', user: someone(), pipe: 'team-batch' },
      { method: 'disconnect', user: someone() },
      { method: 'publish', pipe: 'team-batch', event: 'message', data: 5 },
    ]);
    expect(results.map((result) => (result.ok ? 'ok' : result.code))).toEqual([
      'ok',
      'INVALID',
      'NOT_CONNECTED',
      'ok',
      'ok',
      'ok',
      'ok',
      'ok',
      'ok',
      'ok',
    ]);
    expect(results[0]).toEqual({ ok: true, delivered: 1 });
    await until(() => heard, [1, 5]);
    await expect(admin().batch(Array.from({ length: 1001 }, () => ({ method: 'restore', user }) as const))).rejects.toMatchObject({
      code: 'INVALID',
      status: 400,
    });
    await expect(admin().batch([])).resolves.toEqual([]);
  });

  it('lists connections page by page', async () => {
    const user = someone();
    const made = await Promise.all(Array.from({ length: 5 }, () => connect({ userId: user })));
    const seen: string[] = [];
    let after: string | undefined;
    do {
      const page = await admin().connections({ user, limit: 2, after });
      expect(page.connections.length).toBeLessThanOrEqual(2);
      seen.push(...page.connections.map(({ connection }) => connection));
      after = page.next;
    } while (after);
    expect(seen.sort()).toEqual(made.map(({ connection }) => connection).sort());
    const { total, workers } = await admin().stats();
    expect([workers.length, total.connections >= 5, typeof total.queue_bytes]).toEqual([2, true, 'number']);
  });

  it('says what a key may not', async () => {
    await expect(admin(one, 'not-a-key-at-all').stats()).rejects.toMatchObject({ code: 'UNAUTHENTICATED', status: 401 });
    const reader = admin(one, 'the-key-of-a-reader');
    expect((await reader.stats()).workers).toHaveLength(2);
    const refused = await reader.revokeAll('ann').catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(AdminError);
    expect(refused).toMatchObject({ code: 'FORBIDDEN', status: 403, failures: [{ node: one.control, code: 'FORBIDDEN' }] });
  });
});

describe('several nodes', () => {
  it('are one for whoever asks', async () => {
    const user = someone();
    const authorization: Authorization = { userId: user, pipes: EVERYTHING };
    const [here, there] = [await connect(authorization), await connect(authorization, { server: two })];
    const pipes = [await listen(here, 'team-nodes'), await listen(there, 'team-nodes')];
    const both = admin([one, two]);
    expect(await both.publish('team-nodes', 'message', 1, { count: true })).toEqual({ ok: true, delivered: 2 });
    expect(await both.presence('team-nodes')).toEqual({ members: [{ user, connections: 2 }], total: 1, anonymous: 0 });
    expect((await both.pipes()).pipes).toContainEqual({ pipe: 'team-nodes', subscribers: 2 });
    const { connections } = await both.connections({ user });
    const rest = await both.connections({ user, after: (await both.connections({ user })).next });
    expect([...connections, ...rest.connections].map(({ node }) => node).sort()).toEqual([one.control, two.control].sort());
    expect(await both.disconnect({ connection: there.connection!, node: two.control })).toEqual({ ok: true, connections: 1 });
    await until(() => there.status, 'disconnected');
    expect(await both.push(user, 'notice', 1)).toEqual({ ok: true, delivered: 1 });
    expect(await both.revoke(user, 'team-nodes')).toEqual({ ok: true, connections: 1 });
    await until(() => pipes[0]!.pipe.status, 'revoked');
  });

  it('have not acknowledged while one of them is away, and a call outlasts a restart', async () => {
    const third = await startServer(CONFIG);
    const user = someone();
    try {
      await third.kill();
      const impatient = pipeAdmin({ url: [one.control, third.control], key: one.apiKey, retries: 0 });
      await expect(impatient.revoke(user, 'team-red')).rejects.toMatchObject({
        code: 'UNAVAILABLE',
        done: [one.control],
        failures: [{ node: third.control }],
      });
      const patient = pipeAdmin({ url: [one.control, third.control], key: one.apiKey, retries: 30 }).revoke(user, 'team-red');
      await third.restart();
      expect(await patient).toEqual({ ok: true, connections: 0 });
      const client = await connect({ userId: user, pipes: EVERYTHING }, { server: third });
      await expect(client.pipe('team-red').publish('message', 1)).rejects.toMatchObject({ code: 'REVOKED' });
    } finally {
      await third.kill();
    }
  });
});
