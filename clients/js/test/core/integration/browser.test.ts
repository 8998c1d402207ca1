/**
 * The built package in headless Chromium against the real server: what no double can show. Pages load `dist` as it is,
 * without a bundler. Needs `npm run build` before, and Chromium at /usr/bin/chromium or where CHROMIUM says.
 */

import { existsSync, readFileSync } from 'node:fs';
import { createServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join as path } from 'node:path';

import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';

import type { Client } from '../../../src/index.js';
import { ALL, startServer, token, type Server } from '../../support/server.js';

const DIST = path(import.meta.dirname, '../../../dist');
const ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

const PAGE = '<!doctype html><script type="module">import * as pipeward from "/index.js"; window.pipeward = pipeward;</script>';

let [server, pages, browser]: [Server | undefined, HttpServer | undefined, Browser | undefined] = [undefined, undefined, undefined];
let context: BrowserContext | undefined;
let home = '';

// What the functions that run in pages find there.
declare global {
  interface Window {
    pipeward: typeof import('../../../src/index.js');
    client: Client;
    heard: unknown[];
    statuses: string[];
  }
}

beforeAll(async () => {
  if (!existsSync(path(DIST, 'index.js'))) throw new Error('There is no dist: run `npm run build` first');
  pages = createServer((request, response) => {
    const name = new URL(request.url!, 'http://x').pathname;
    const file = path(DIST, path('/', name));
    const script = name.endsWith('.js') && existsSync(file);
    response.writeHead(script || name === '/' ? 200 : 404, { 'content-type': script ? 'text/javascript' : 'text/html' });
    response.end(script ? readFileSync(file) : PAGE);
  });
  await new Promise<void>((listening) => pages!.listen(0, '127.0.0.1', listening));
  home = `http://127.0.0.1:${(pages.address() as AddressInfo).port}/`;
  server = await startServer(`[edge]\norigins = ["${home.slice(0, -1)}"]`);
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ARGUMENTS });
}, 60_000);
afterAll(async () => {
  await browser?.close();
  await server?.kill();
  pages?.close();
});
afterEach(async () => {
  await context?.close();
  context = undefined;
});

/** A tab with a client that listens to `room`. */
async function tab(user: string, share: 'sharedworker' | 'broadcast' | false): Promise<Page> {
  context ??= await browser!.newContext();
  const page = await context.newPage();
  await page.goto(home);
  await page.evaluate(
    async ({ url, its, share }) => {
      window.heard = [];
      window.statuses = [];
      window.client = window.pipeward.createClient({ url, share, getToken: () => its, onStatus: (status, { closeCode }) => window.statuses.push(closeCode ? `${status} ${closeCode}` : status) });
      window.client.pipe('room').on('message', ({ data }) => window.heard.push(data));
      await window.client.pipe('room').subscribed;
    },
    { url: server!.url, its: token(user, { room: ALL }), share },
  );
  return page;
}

const heard = (page: Page) => page.evaluate(() => window.heard);

async function hear(page: Page, data: unknown): Promise<void> {
  await page.waitForFunction((wanted) => window.heard.at(-1) === wanted, data, { timeout: 10_000 });
}

async function connections(user: string): Promise<number> {
  const response = await fetch(`${server!.control}/v1/connections?user=${user}`, { headers: { authorization: `Bearer ${server!.apiKey}` } });
  return ((await response.json()) as { connections: unknown[] }).connections.length;
}

const say = (data: unknown) => server!.api('publish', { pipe: 'room', event: 'message', data });

test('a page by itself: the token is a subprotocol, in no address', async () => {
  context = await browser!.newContext();
  const addresses: string[] = [];
  context.on('page', (page) => page.on('websocket', (socket) => addresses.push(socket.url())));
  const page = await tab('alone', false);
  await page.evaluate(() => window.client.pipe('room').publish('message', 'from a browser'));
  await hear(page, 'from a browser');
  expect(addresses).toEqual([`${server!.url}/v1/connect`]);
}, 30_000);

test('a page that is sent away for a while comes back', async () => {
  const page = await tab('away', false);
  await server!.api('disconnect', { user: 'away', reconnect: true });
  await page.waitForFunction(() => window.statuses.includes('reconnecting 4503'));
  await page.waitForFunction(() => window.client.pipe('room').status === 'subscribed', undefined, { timeout: 10_000 });
  await say('back');
  await hear(page, 'back');
}, 30_000);

test.each(['sharedworker', 'broadcast'] as const)('%s: three tabs, one connection, each hears everything once', async (share) => {
  const user = `shares-${share}`;
  const [first, second, third] = [await tab(user, share), await tab(user, share), await tab(user, share)];
  expect(await connections(user)).toBe(1);
  await say(`to all by ${share}`);
  for (const page of [first, second, third]) await hear(page, `to all by ${share}`);
  expect(await heard(second)).toHaveLength(1);
  await second.evaluate(() => window.client.pipe('room').publish('message', 'by one of them'));
  for (const page of [first, second, third]) await hear(page, 'by one of them');

  // The first had the connection, if a page had it. The others must hardly notice.
  await first.close();
  await expect.poll(() => second.evaluate(() => window.client.pipe('room').status), { timeout: 10_000 }).toBe('subscribed');
  await expect.poll(async () => {
    await say('after the first has gone');
    return (await heard(second)).includes('after the first has gone') && (await heard(third)).includes('after the first has gone');
  }, { timeout: 10_000, interval: 200 }).toBe(true);
  expect(await connections(user)).toBe(1);

  // Nobody left: nobody connected.
  await second.close();
  await third.evaluate(() => window.client.close());
  await expect.poll(() => connections(user), { timeout: 10_000 }).toBe(0);
}, 60_000);

test.each(['sharedworker', 'broadcast'] as const)('%s: revoked for all tabs, and none comes back by itself', async (share) => {
  const user = `revoked-${share}`;
  const [first, second] = [await tab(user, share), await tab(user, share)];
  await server!.api('revoke_tokens', { user });
  for (const page of [first, second]) await page.waitForFunction(() => window.statuses.at(-1) === 'disconnected 4402', undefined, { timeout: 10_000 });
  await new Promise((next) => setTimeout(next, 1_500));
  expect(await connections(user)).toBe(0);
  expect(await first.evaluate(() => window.client.status)).toBe('disconnected');
}, 60_000);
