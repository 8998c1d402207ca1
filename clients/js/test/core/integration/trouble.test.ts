/** The client and the real server when things go wrong between them: cuts, stalls, restarts, drain, expiry, rates. */

import { expect, test, vi } from 'vitest';

import { startProxy } from '../../support/proxy.js';
import { ALL, startServer, token } from '../../support/server.js';
import { collect, join, until, withServer } from './harness.js';

const server = withServer();
const later = (ms: number) => new Promise((next) => setTimeout(next, ms));

test('cut ten times in the middle of things: subscribed again, and what was confirmed arrived in order', async () => {
  const proxy = await startProxy(server().url);
  const ann = join(proxy.url, { getToken: () => token('cut-ann', { room: ALL }) });
  const ben = join(server().url, { getToken: () => token('cut-ben', { room: ALL }) });
  const [heard, own] = [collect(ben.client, 'room'), collect(ann.client, 'room')];
  await Promise.all([ann.client.pipe('room').subscribed, ben.client.pipe('room').subscribed]);
  const outcomes: string[] = [];
  let n = 0;
  // No waiting between the cuts: the backoff has tests of its own.
  const random = vi.spyOn(Math, 'random').mockReturnValue(0);
  for (let round = 0; round < 10; round += 1) {
    await until('it is connected', () => ann.client.status === 'connected');
    for (let i = 0; i < 5; i += 1) {
      const mine = (n += 1);
      void ann.client.pipe('room').publish('message', mine).then(() => (outcomes[mine] = 'ok'), ({ code }: { code: string }) => (outcomes[mine] = code));
    }
    if (round % 2) await later(3);
    proxy.cut();
    await until('it noticed', () => proxy.accepted > round + 1);
  }
  random.mockRestore();
  await until('all are settled', () => outcomes.filter(Boolean).length === 50);
  await ann.client.pipe('room').subscribed;
  await ann.client.pipe('room').publish('message', 'last');
  await until('the last arrives at both', () => heard.at(-1) === 'last' && own.at(-1) === 'last');
  const numbers = heard.filter((data): data is number => typeof data === 'number');
  expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
  expect(new Set(numbers).size).toBe(numbers.length);
  for (let mine = 1; mine <= 50; mine += 1) {
    expect(['ok', 'INTERRUPTED']).toContain(outcomes[mine]);
    if (outcomes[mine] === 'ok') expect(numbers).toContain(mine);
  }
  proxy.close();
});

test('what is published while there is no connection arrives after it, in order', async () => {
  const proxy = await startProxy(server().url);
  const ann = join(proxy.url, { getToken: () => token('off-ann', { room2: ALL }) });
  const heard = collect(ann.client, 'room2');
  await ann.client.pipe('room2').subscribed;
  proxy.refuse(true);
  proxy.cut();
  await until('it is away', () => ann.client.status === 'reconnecting');
  const sent = Array.from({ length: 100 }, (_, n) => ann.client.pipe('room2').publish('message', n));
  await expect(ann.client.pipe('room2').publish('message', 'too many')).rejects.toMatchObject({ code: 'OFFLINE' });
  proxy.refuse(false);
  await Promise.all(sent);
  await until('all have arrived', () => heard.length === 100);
  expect(heard).toEqual(Array.from({ length: 100 }, (_, n) => n));
  proxy.close();
});

test('a connection that is dead without a word is noticed and replaced', async () => {
  const fast = await startServer('[edge]\nping_s = 1');
  const proxy = await startProxy(fast.url);
  const ann = join(proxy.url, { getToken: () => token('ann', { room: ALL }) });
  const heard = collect(ann.client, 'room');
  await ann.client.pipe('room').subscribed;
  proxy.stall();
  await until('it noticed', () => ann.client.status === 'reconnecting');
  await until('it is back', () => ann.client.pipe('room').status === 'subscribed');
  await ann.client.pipe('room').publish('message', 1);
  await until('it arrives', () => heard.length === 1);
  proxy.close();
  await fast.kill();
}, 30_000);

test('the server is killed and comes back: so do all of its clients', async () => {
  const mortal = await startServer();
  const clients = Array.from({ length: 5 }, (_, n) => join(mortal.url, { getToken: () => token(`u${n}`, { room: ALL }) }));
  const heard = clients.map(({ client }) => collect(client, 'room'));
  await Promise.all(clients.map(({ client }) => client.pipe('room').subscribed));
  await mortal.kill();
  await until('all noticed', () => clients.every(({ client }) => client.status === 'reconnecting'));
  await mortal.restart();
  await until('all are back', () => clients.every(({ client }) => client.pipe('room').status === 'subscribed'));
  await clients[0]!.client.pipe('room').publish('message', 'back');
  await until('all hear it', () => heard.every(([first]) => first === 'back'));
  await mortal.kill();
}, 30_000);

test('a drain: told with a delay, closed with 4503, and back at the new process', async () => {
  const draining = await startServer('[edge]\ndrain_s = 2');
  const clients = Array.from({ length: 4 }, (_, n) => join(draining.url, { getToken: () => token(`u${n}`, { room: ALL }) }));
  for (const { client } of clients) collect(client, 'room');
  await Promise.all(clients.map(({ client }) => client.pipe('room').subscribed));
  expect(await draining.stop()).toBe(0);
  await until('all noticed', () => clients.every(({ heard }) => heard.statuses.some(({ status }) => status === 'reconnecting')));
  for (const { heard } of clients) {
    const { detail } = heard.statuses.find(({ status }) => status === 'reconnecting')!;
    expect(detail).toMatchObject({ closeCode: 4503, error: { code: 'DRAINING' } });
    expect(detail.retryInMs).toBeLessThanOrEqual(detail.error!.retryAfterMs!);
  }
  await draining.restart();
  await until('all are back', () => clients.every(({ client }) => client.pipe('room').status === 'subscribed'));
  await draining.kill();
}, 30_000);

test('a new connection during a drain is refused with Retry-After, which is kept', async () => {
  const draining = await startServer('[edge]\ndrain_s = 3');
  const holders = Array.from({ length: 6 }, (_, n) => join(draining.url, { getToken: () => token(`u${n}`, {}) }));
  for (const { client } of holders) client.connect();
  await until('all are there', () => holders.every(({ client }) => client.status === 'connected'));
  const stopped = draining.stop();
  await until('it drains', () => holders.some(({ client }) => client.status === 'reconnecting'));
  const late = join(draining.url, { getToken: () => token('late', {}) });
  late.client.connect();
  await until('it is refused', () => late.client.status === 'reconnecting');
  const { detail } = late.heard.statuses.at(-1)!;
  if (detail.error?.status === 503) {
    expect(detail.error.code).toBe('DRAINING');
    expect(detail.retryInMs).toBeGreaterThanOrEqual(detail.error.retryAfterMs!);
    expect(detail.error.retryAfterMs).toBeGreaterThanOrEqual(1_000);
  }
  await stopped;
}, 30_000);

test('a token that ends is renewed in place, again and again', async () => {
  let asked = 0;
  const ann = join(server().url, {
    getToken: () => {
      asked += 1;
      return token('exp-ann', { room3: ALL }, { ttlS: 4 });
    },
  });
  const heard = collect(ann.client, 'room3');
  await ann.client.pipe('room3').subscribed;
  const before = ann.client.connection;
  await later(9_000);
  await ann.client.pipe('room3').publish('message', 1);
  await until('it arrives', () => heard.length === 1);
  expect(asked).toBeGreaterThanOrEqual(3);
  expect(asked).toBeLessThanOrEqual(6);
  expect(ann.client.connection).toBe(before);
  expect(ann.heard.errors).toEqual([]);
}, 30_000);

test('a token that ends and cannot be renewed: 4401, and back with a new one', async () => {
  let renewals = 0;
  const ann = join(server().url, {
    getToken: (reason) => {
      if (reason === 'refresh') {
        renewals += 1;
        throw new Error('the application is down');
      }
      return token('end-ann', { room4: ALL }, { ttlS: 3 });
    },
  });
  collect(ann.client, 'room4');
  await ann.client.pipe('room4').subscribed;
  await until('it ended', () => ann.heard.statuses.some(({ detail }) => detail.closeCode === 4401));
  expect(renewals).toBeGreaterThan(0);
  await until('it is back', () => ann.client.status === 'connected' && ann.client.pipe('room4').status === 'subscribed');
  expect(ann.heard.errors[0]).toMatchObject({ code: 'UNAVAILABLE' });
}, 30_000);

test('over a rate: refused with a delay, told, held back, and well again', async () => {
  const strict = await startServer('[limits]\npublish = { per_s = 1, burst = 3 }');
  const ann = join(strict.url, { getToken: () => token('ann', { room: ALL }) });
  const heard = collect(ann.client, 'room');
  await ann.client.pipe('room').subscribed;
  const outcomes = await Promise.allSettled(Array.from({ length: 12 }, (_, n) => ann.client.pipe('room').publish('message', n)));
  const refused = outcomes.filter((outcome) => outcome.status === 'rejected').map(({ reason }) => reason as { code: string; retryAfterMs: number });
  expect(refused.length).toBeGreaterThan(0);
  for (const { code, retryAfterMs } of refused) {
    expect(code).toBe('RATE_LIMITED');
    expect(retryAfterMs).toBeGreaterThan(0);
  }
  await until('it was told', () => ann.heard.throttled.length > 0);
  await later(2_500);
  await ann.client.pipe('room').publish('message', 'after');
  await until('it arrives', () => heard.at(-1) === 'after');
  await strict.kill();
}, 40_000);

test('over a rate for too long: 4429, and back after the stated delay', async () => {
  const strict = await startServer('[limits]\nthrottle_s = 0\npublish = { per_s = 1, burst = 1 }');
  const ann = join(strict.url, { getToken: () => token('ann', { room: ALL }) });
  ann.client.connect();
  await until('connected', () => ann.client.status === 'connected');
  await Promise.allSettled(Array.from({ length: 5 }, (_, n) => ann.client.pipe('room').publish('message', n)));
  await until('it was closed', () => ann.heard.statuses.some(({ detail }) => detail.closeCode === 4429));
  const { detail } = ann.heard.statuses.find(({ status }) => status === 'reconnecting')!;
  expect(detail.error).toMatchObject({ code: 'RATE_LIMITED' });
  expect(detail.retryInMs).toBeGreaterThanOrEqual(detail.error!.retryAfterMs!);
  await until('it is back', () => ann.client.status === 'connected');
  await strict.kill();
}, 30_000);

test('a cap on connections: 429 with Retry-After, and in when there is room', async () => {
  const small = await startServer('[limits]\nconnections_per_user = 1');
  const [first, second] = [join(small.url, { getToken: () => token('ann', {}) }), join(small.url, { getToken: () => token('ann', {}) })];
  first.client.connect();
  await until('the first is in', () => first.client.status === 'connected');
  second.client.connect();
  await until('the second is refused', () => second.client.status === 'reconnecting');
  const { detail } = second.heard.statuses.at(-1)!;
  expect(detail.error).toMatchObject({ code: 'TOO_MANY_CONNECTIONS', status: 429 });
  expect(detail.retryInMs).toBeGreaterThanOrEqual(detail.error!.retryAfterMs!);
  first.client.close();
  await until('the second is in', () => second.client.status === 'connected');
  await small.kill();
}, 30_000);
