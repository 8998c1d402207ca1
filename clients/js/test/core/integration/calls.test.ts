/** Actions, queues and pushes of clients, with an application behind the server. */

import { createServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { ALL, startServer, token, type Server } from '../../support/server.js';
import { join, until } from './harness.js';

let [server, application]: [Server | undefined, HttpServer | undefined] = [undefined, undefined];
const received: { path: string; body: Record<string, unknown> }[] = [];

beforeAll(async () => {
  application = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>;
      received.push({ path: request.url!, body });
      if (request.url === '/actions/fail') {
        response.writeHead(409, { 'content-type': 'application/json' });
        return response.end('{"error":{"code":"TAKEN","message":"That name is taken"}}');
      }
      response.setHeader('content-type', 'application/json');
      return response.end(request.url?.startsWith('/actions/') ? JSON.stringify({ greeted: (body.args as { name: string } | null)?.name ?? null }) : '{}');
    });
  });
  await new Promise<void>((listening) => application!.listen(0, '127.0.0.1', listening));
  const home = `http://127.0.0.1:${(application.address() as AddressInfo).port}`;
  server = await startServer(`
[action.greet]
allow = true
url = "${home}/actions/greet"
[action.fail]
allow = true
url = "${home}/actions/fail"
[action.admin]
allow = "user.role == 'admin'"
url = "${home}/actions/admin"
[action.away]
allow = true
url = "http://127.0.0.1:1/"
[queue.jobs]
publish = "user.role == 'admin'"
url = "${home}/queues/jobs"
[push]
allow = "user.role == 'admin' || to.user == user.id"
`);
});
afterAll(async () => {
  await server?.kill();
  application?.close();
});

const as = (user: string, role = 'member') => join(server!.url, { getToken: () => token(user, { room: ALL }, { role }) }).client;

test('an action is answered with what the application returns', async () => {
  expect(await as('ann').action<{ greeted: string }>('greet', { name: 'Bén' })).toEqual({ greeted: 'Bén' });
  expect(received.at(-1)).toMatchObject({ path: '/actions/greet', body: { action: 'greet', args: { name: 'Bén' }, user: { id: 'ann' } } });
  expect(await as('ann').action('greet')).toEqual({ greeted: null });
});

test('an action that fails: the code of the application, of the rule, of nobody there', async () => {
  const ann = as('ann');
  await expect(ann.action('fail')).rejects.toMatchObject({ code: 'TAKEN', message: 'That name is taken' });
  await expect(ann.action('admin')).rejects.toMatchObject({ code: 'FORBIDDEN' });
  await expect(ann.action('unknown')).rejects.toMatchObject({ code: 'UNKNOWN_ACTION' });
  await expect(ann.action('away')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test('a queue takes what it may, and delivers it', async () => {
  await as('root', 'admin').enqueue('jobs', { n: 1 });
  await until('it was delivered', () => received.some(({ path }) => path === '/queues/jobs'));
  expect(received.find(({ path }) => path === '/queues/jobs')?.body).toMatchObject({ queue: 'jobs', data: { n: 1 } });
  await expect(as('ann').enqueue('jobs', 1)).rejects.toMatchObject({ code: 'FORBIDDEN' });
  await expect(as('ann').enqueue('unknown', 1)).rejects.toMatchObject({ code: 'FORBIDDEN' });
});

test('a push of a client goes where a rule lets it', async () => {
  const [root, ann] = [as('root', 'admin'), as('pushed')];
  const heard: unknown[] = [];
  ann.onPush('note', ({ data, sender }) => heard.push([data, sender]));
  await until('it is there', () => ann.status === 'connected');
  await root.push({ user: 'pushed' }, 'note', { n: 1 });
  await until('it arrives', () => heard.length === 1);
  expect(heard).toEqual([[{ n: 1 }, 'root']]);
  await expect(ann.push({ user: 'root' }, 'note', 1)).rejects.toMatchObject({ code: 'FORBIDDEN' });
  await expect(root.push({ user: 'nobody' }, 'note', 1)).rejects.toMatchObject({ code: 'NOT_CONNECTED' });
});
