/** The client against the real server: everything that works, and what is refused. */

import { expect, test } from 'vitest';

import { ALL, token } from '../../support/server.js';
import { collect, join, until, withServer } from './harness.js';

const server = withServer('[limits]\nmessage_bytes = 4096');

test('an event arrives with its data, its sender and its time', async () => {
  const ann = join(server().url, { getToken: () => token('ann', { room: ALL }, { name: 'Ann' }) });
  const ben = join(server().url, { getToken: () => token('ben', { room: ALL }) });
  const heard: unknown[] = [];
  ann.client.pipe('room').on('message', (message) => heard.push(message));
  await ann.client.pipe('room').subscribed;
  expect(ann.client.user).toEqual({ id: 'ann', name: 'Ann' });
  await ben.client.pipe('room').publish('message', { text: 'hëllo', n: 1.5 });
  await until('it arrives', () => heard.length === 1);
  expect(heard[0]).toMatchObject({ pipe: 'room', event: 'message', data: { text: 'hëllo', n: 1.5 }, sender: 'ben' });
  expect(Math.abs((heard[0] as { ts: number }).ts - Date.now())).toBeLessThan(60_000);
});

test('echo: false leaves the own connection out, and only that', async () => {
  const ann = join(server().url, { getToken: () => token('ann', { quiet: ALL }) });
  const ben = join(server().url, { getToken: () => token('ben', { quiet: ALL }) });
  const [own, other] = [collect(ann.client, 'quiet'), collect(ben.client, 'quiet')];
  await Promise.all([ann.client.pipe('quiet').subscribed, ben.client.pipe('quiet').subscribed]);
  await ann.client.pipe('quiet').publish('message', 1, { echo: false });
  await ann.client.pipe('quiet').publish('message', 2);
  await until('both arrive', () => other.length === 2 && own.length === 1);
  expect([own, other]).toEqual([[2], [1, 2]]);
});

// The wrong user, the wrong right: each is refused with its code and disturbs nothing else.
test('what is not granted is refused, and the rest goes on', async () => {
  const { client, heard } = join(server().url, { getToken: () => token('ann', { mine: ALL, listen: { subscribe: true } }) });
  const events = collect(client, 'mine');
  client.pipe('theirs').on('message', () => undefined);
  await client.pipe('mine').subscribed;
  await expect(client.pipe('theirs').subscribed).rejects.toMatchObject({ code: 'FORBIDDEN' });
  await expect(client.pipe('listen').publish('message', 1)).rejects.toMatchObject({ code: 'FORBIDDEN' });
  await expect(client.pipe('theirs').presence()).rejects.toMatchObject({ code: 'FORBIDDEN' });
  await expect(client.action('nothing')).rejects.toMatchObject({ code: 'UNKNOWN_ACTION' });
  expect(heard.errors.map(({ code }) => code)).toEqual(['FORBIDDEN']);
  await client.pipe('mine').publish('message', 1);
  await until('it arrives', () => events.length === 1);
});

test('presence: who is there, who comes, who goes', async () => {
  const ann = join(server().url, { getToken: () => token('ann', { hall: ALL }, { name: 'Ann' }) });
  const ben = join(server().url, { getToken: () => token('ben', { hall: ALL }) });
  const seen: string[] = [];
  ann.client.pipe('hall').onPresence(({ members, joined, left }) => seen.push([...members.map(({ user }) => user), ...joined.map(({ user }) => `+${user}`), ...left.map(({ user }) => `-${user}`)].join(' ')));
  await ann.client.pipe('hall').subscribed;
  const off = ben.client.pipe('hall').on('message', () => undefined);
  await until('ben is seen', () => seen.length === 2);
  expect(await ben.client.pipe('hall').presence()).toEqual([{ user: 'ann', name: 'Ann', connections: 1 }, expect.objectContaining({ user: 'ben', connections: 1 })]);
  off();
  await until('ben is gone', () => seen.length === 3);
  expect(seen).toEqual(['ann +ann', 'ann ben +ben', 'ann -ben']);
});

test('without the presence right the events are had all the same', async () => {
  const { client, heard } = join(server().url, { getToken: () => token('ann', { half: { subscribe: true, publish: true } }) });
  const events = collect(client, 'half');
  client.pipe('half').onPresence(() => undefined);
  await client.pipe('half').subscribed;
  await client.pipe('half').publish('message', 1);
  await until('it arrives', () => events.length === 1);
  expect(heard.errors.map(({ code }) => code)).toEqual(['FORBIDDEN']);
});

test('pushes of the application arrive, to the user and to the connection', async () => {
  const { client } = join(server().url, { getToken: () => token('push-me', {}) });
  const heard: unknown[] = [];
  client.onPush('note', ({ data, sender }) => heard.push([data, sender]));
  await until('connected', () => client.status === 'connected');
  await server().api('push', { to: { user: 'push-me' }, event: 'note', data: 1 });
  await server().api('push', { to: { connection: client.connection }, event: 'note', data: 2 });
  await until('both arrive', () => heard.length === 2);
  expect(heard).toEqual([[1, null], [2, null]]);
});

test('300 pipes in two messages, and back in two', async () => {
  const { client } = join(server().url, { getToken: () => token('many', { 'p-*': ALL }) });
  const statuses = new Map<string, string>();
  for (let n = 0; n < 250; n += 1) client.pipe(`p-${n}`).on('message', () => undefined);
  await Promise.all(Array.from({ length: 250 }, (_, n) => client.pipe(`p-${n}`).subscribed));
  // The server holds 256: the rest is refused one by one.
  for (let n = 250; n < 300; n += 1) {
    client.pipe(`p-${n}`).onStatus((status) => statuses.set(`p-${n}`, status));
    client.pipe(`p-${n}`).on('message', () => undefined);
  }
  await until('all are decided', () => [...statuses.values()].filter((status) => status !== 'subscribing').length === 50);
  expect([...statuses.values()].filter((status) => status === 'subscribed')).toHaveLength(6);
  expect(client.pipe('p-299').error?.code).toBe('TOO_MANY');
});

test('a message that is too long is refused before it ends the connection', async () => {
  const { client, heard } = join(server().url, { getToken: () => token('ann', { room: ALL }) });
  client.connect();
  await until('connected', () => client.status === 'connected');
  await expect(client.pipe('room').publish('message', 'x'.repeat(5_000))).rejects.toMatchObject({ code: 'PAYLOAD_TOO_LARGE' });
  await client.pipe('room').publish('message', 'x'.repeat(3_900));
  expect(heard.statuses.map(({ status }) => status)).toEqual(['connecting', 'connected']);
});

test('a wrong token is refused with 401, and tried again with another', async () => {
  let count = 0;
  const { client, heard } = join(server().url, { getToken: () => ((count += 1) === 1 ? `${token('ann', {})}x` : token('ann', { room: ALL })) });
  await client.pipe('room').publish('message', 1);
  expect(heard.statuses[1]).toMatchObject({ status: 'reconnecting', detail: { error: { code: 'UNAUTHENTICATED', status: 401 } } });
  expect(count).toBe(2);
});

test('without a token where one is needed it stops', async () => {
  const { client, heard } = join(server().url);
  await expect(client.pipe('room').publish('message', 1)).rejects.toMatchObject({ code: 'CLOSED' });
  expect(heard.statuses.at(-1)).toMatchObject({ status: 'disconnected', detail: { error: { code: 'UNAUTHENTICATED' } } });
});

test('where there is no such thing it says so', async () => {
  const { client, heard } = join(`${server().control.replace('http', 'ws')}/v1/connect`, { getToken: () => 't' });
  client.connect();
  await until('it was refused', () => heard.statuses.length > 1);
  expect(heard.statuses[1]?.detail.error?.status).toBeGreaterThanOrEqual(400);
});
