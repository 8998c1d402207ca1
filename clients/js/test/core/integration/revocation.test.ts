/** HP-7, HP-8, HP-9: what is taken is gone at once, stays gone, and comes back with the restore. */

import { expect, test } from 'vitest';

import { startProxy } from '../../support/proxy.js';
import { ALL, token } from '../../support/server.js';
import { collect, join, until, withServer } from './harness.js';

const server = withServer(`
[pipe."staff-{room}"]
subscribe = "has(user.role) && user.role == 'admin'"
`);

test('a revoked pipe: told once, nothing arrives, and after the restore it goes on by itself', async () => {
  const ann = join(server().url, { getToken: () => token('r-ann', { chat: ALL, side: ALL }) });
  const [chat, side] = [collect(ann.client, 'chat'), collect(ann.client, 'side')];
  await Promise.all([ann.client.pipe('chat').subscribed, ann.client.pipe('side').subscribed]);
  await server().api('revoke', { user: 'r-ann', pipe: 'chat' });
  await server().api('publish', { pipe: 'chat', event: 'message', data: 'unheard' });
  await server().api('publish', { pipe: 'side', event: 'message', data: 'heard' });
  await until('the other pipe goes on', () => side.length === 1);
  expect(ann.heard.revoked).toEqual(['chat']);
  expect(ann.client.pipe('chat')).toMatchObject({ status: 'revoked', error: { code: 'REVOKED' } });
  await expect(ann.client.pipe('chat').publish('message', 1)).rejects.toMatchObject({ code: 'REVOKED' });
  await server().api('restore', { user: 'r-ann', pipe: 'chat' });
  await until('it is back', () => ann.client.pipe('chat').status === 'subscribed');
  await server().api('publish', { pipe: 'chat', event: 'message', data: 'again' });
  await until('it arrives', () => chat.length === 1);
  expect([chat, ann.heard.restored, ann.heard.revoked]).toEqual([['again'], ['chat'], ['chat']]);
});

test('all pipes of a user, and only of that user', async () => {
  const ann = join(server().url, { getToken: () => token('all-ann', { x: ALL, y: ALL }) });
  const ben = join(server().url, { getToken: () => token('all-ben', { x: ALL }) });
  for (const { client } of [ann, ben]) collect(client, 'x');
  collect(ann.client, 'y');
  await Promise.all([ann.client.pipe('x').subscribed, ann.client.pipe('y').subscribed, ben.client.pipe('x').subscribed]);
  await server().api('revoke_all', { user: 'all-ann' });
  await until('it is told', () => ann.heard.allRevoked === 1);
  expect([ann.client.pipe('x').status, ann.client.pipe('y').status]).toEqual(['revoked', 'revoked']);
  await ben.client.pipe('x').publish('message', 1);
  expect(ben.client.pipe('x').status).toBe('subscribed');
  await server().api('restore', { user: 'all-ann' });
  await until('both are back', () => ann.client.pipe('x').status === 'subscribed' && ann.client.pipe('y').status === 'subscribed');
  expect(ann.heard).toMatchObject({ allRevoked: 1, revoked: [] });
});

test('revoked while away: told when it comes back', async () => {
  const proxy = await startProxy(server().url);
  const ann = join(proxy.url, { getToken: () => token('away-ann', { chat: ALL, side: ALL }) });
  collect(ann.client, 'chat');
  collect(ann.client, 'side');
  await Promise.all([ann.client.pipe('chat').subscribed, ann.client.pipe('side').subscribed]);
  proxy.refuse(true);
  proxy.cut();
  await until('it is away', () => ann.client.status === 'reconnecting');
  await server().api('revoke', { user: 'away-ann', pipe: 'chat' });
  proxy.refuse(false);
  await until('it is back', () => ann.client.pipe('side').status === 'subscribed');
  expect(ann.client.pipe('chat').status).toBe('revoked');
  expect(ann.heard.revoked).toEqual(['chat']);
  proxy.close();
});

test('a revoked session: closed with 4402, and it does not come back', async () => {
  let asked = 0;
  const ann = join(server().url, {
    getToken: () => {
      asked += 1;
      return token('s-ann', { chat: ALL }, { sid: 'session-1' });
    },
  });
  collect(ann.client, 'chat');
  await ann.client.pipe('chat').subscribed;
  await server().api('revoke_tokens', { session: 'session-1' });
  await until('it is told', () => ann.client.status === 'disconnected');
  expect(ann.heard.statuses.at(-1)).toMatchObject({ detail: { closeCode: 4402, error: { code: 'REVOKED' } } });
  await new Promise((next) => setTimeout(next, 1_500));
  expect(asked).toBe(1);
  // Also when asked to: the handshake is refused, and that is the end of it.
  ann.client.connect();
  await until('it is refused', () => ann.heard.statuses.length === 5);
  expect(ann.heard.statuses.at(-1)).toMatchObject({ status: 'disconnected', detail: { error: { code: 'REVOKED', status: 401 } } });
});

test('disconnected by the application: 4403, and it does not come back', async () => {
  const ann = join(server().url, { getToken: () => token('d-ann', { chat: ALL }) });
  collect(ann.client, 'chat');
  await ann.client.pipe('chat').subscribed;
  await server().api('disconnect', { user: 'd-ann' });
  await until('it is told', () => ann.client.status === 'disconnected');
  expect(ann.heard.statuses.at(-1)).toMatchObject({ detail: { closeCode: 4403, error: { code: 'FORBIDDEN' } } });
  await new Promise((next) => setTimeout(next, 1_500));
  expect(ann.heard.statuses.map(({ status }) => status)).toEqual(['connecting', 'connected', 'disconnected']);
});

test('disconnected with reconnect: it comes back within the stated time', async () => {
  const ann = join(server().url, { getToken: () => token('b-ann', { chat: ALL }) });
  const chat = collect(ann.client, 'chat');
  await ann.client.pipe('chat').subscribed;
  await server().api('disconnect', { user: 'b-ann', reconnect: true });
  await until('it is told', () => ann.client.status === 'reconnecting');
  const { detail } = ann.heard.statuses.at(-1)!;
  expect(detail).toMatchObject({ closeCode: 4503, error: { retryAfterMs: 1_000 } });
  expect(detail.retryInMs).toBeLessThanOrEqual(1_000);
  await until('it is back', () => ann.client.pipe('chat').status === 'subscribed');
  await server().api('publish', { pipe: 'chat', event: 'message', data: 1 });
  await until('it arrives', () => chat.length === 1);
});

test('unsubscribed by the application stays so', async () => {
  const ann = join(server().url, { getToken: () => token('u-ann', { chat: ALL }) });
  collect(ann.client, 'chat');
  await ann.client.pipe('chat').subscribed;
  await server().api('unsubscribe', { user: 'u-ann', pipe: 'chat' });
  await until('it is told', () => ann.client.pipe('chat').status === 'denied');
  expect(ann.client.pipe('chat').error?.code).toBe('NOT_SUBSCRIBED');
  collect(ann.client, 'chat');
  await ann.client.pipe('chat').subscribed;
});

test('refreshPipeAuth: rights come and go without disconnecting', async () => {
  let pipes: Parameters<typeof token>[1] = { old: ALL, both: ALL };
  const ann = join(server().url, { getToken: () => token('f-ann', pipes) });
  for (const pipe of ['old', 'both', 'new']) collect(ann.client, pipe);
  await Promise.all([ann.client.pipe('old').subscribed, ann.client.pipe('both').subscribed]);
  await until('the third is denied', () => ann.client.pipe('new').status === 'denied');
  const before = ann.client.connection;
  pipes = { both: ALL, new: ALL };
  await ann.client.refreshPipeAuth();
  await until('the new one is there', () => ann.client.pipe('new').status === 'subscribed');
  expect([ann.client.pipe('old').status, ann.client.pipe('both').status]).toEqual(['denied', 'subscribed']);
  expect(ann.client.connection).toBe(before);
});

test('refreshPipeAuth: another role opens what a rule had refused', async () => {
  let role = 'member';
  const ann = join(server().url, { getToken: () => token('r-ann', {}, { role }) });
  collect(ann.client, 'staff-1');
  await until('it is denied', () => ann.client.pipe('staff-1').status === 'denied');
  role = 'admin';
  await ann.client.refreshPipeAuth();
  await until('it is open', () => ann.client.pipe('staff-1').status === 'subscribed');
});

test('refreshPipeAuth: presence that was taken and given back goes on', async () => {
  let rights: typeof ALL = ALL;
  const ann = join(server().url, { getToken: () => token('q-ann', { hall: rights }) });
  collect(ann.client, 'hall');
  let there: string[] = [];
  ann.client.pipe('hall').onPresence(({ members }) => (there = members.map(({ user }) => user)));
  await until('she sees herself', () => there.length === 1);
  rights = { subscribe: true };
  await ann.client.refreshPipeAuth();
  await until('the loss is told', () => ann.heard.errors.some(({ code }) => code === 'FORBIDDEN'));
  rights = ALL;
  await ann.client.refreshPipeAuth();
  const ben = join(server().url, { getToken: () => token('q-ben', { hall: ALL }) });
  collect(ben.client, 'hall');
  await until('she sees who comes', () => there.includes('q-ben'));
});

test('another user at a refresh: 4403', async () => {
  let user = 'i-ann';
  const ann = join(server().url, { getToken: () => token(user, { chat: ALL }) });
  collect(ann.client, 'chat');
  await ann.client.pipe('chat').subscribed;
  user = 'i-ben';
  const done = ann.client.refreshPipeAuth().then(() => 'done', ({ code }: { code: string }) => code);
  await until('it is closed', () => ann.client.status === 'disconnected');
  expect(await done).toMatch(/INTERRUPTED|CLOSED|FORBIDDEN|UNAUTHENTICATED/);
  expect(ann.heard.statuses.at(-1)).toMatchObject({ detail: { closeCode: 4403 } });
});
