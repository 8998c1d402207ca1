/** A node's control listener that answers what it is told to, and remembers what it was asked. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect } from 'vitest';
import { AdminError, type AdminOptions, pipeAdmin } from '../../src/server/index.js';

export const KEY = 'key-of-the-application';

export interface Asked {
  method: string;
  path: string;
  key: string | undefined;
  body: unknown;
}

/** An answer: status and JSON, or the connection is reset, or nothing comes. */
export type Answer = { status?: number; body?: unknown; text?: string; headers?: Record<string, string> } | 'reset' | 'hang';

export interface NodeDouble {
  url: string;
  asked: Asked[];
  close(): Promise<void>;
}

const doubles: NodeDouble[] = [];

afterEach(async () => {
  await Promise.all(doubles.splice(0).map((double) => double.close()));
});

/** Answers in turn; the last one again and again. Closed after the test. */
export async function node(...answers: Answer[]): Promise<NodeDouble> {
  const asked: Asked[] = [];
  const server = createServer(async (request, response) => {
    let text = '';
    for await (const piece of request) text += String(piece);
    const body: unknown = text ? JSON.parse(text) : undefined;
    asked.push({ method: request.method!, path: request.url!, key: request.headers.authorization, body });
    const answer = answers[Math.min(asked.length, answers.length) - 1] ?? {};
    if (answer === 'reset') return void request.socket.destroy();
    if (answer === 'hang') return;
    const { status = 200, headers = {} } = answer;
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(answer.text ?? JSON.stringify(answer.body ?? { ok: true }));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  const double = { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, close };
  doubles.push(double);
  return double;
}

/** An address where nobody listens. */
export async function nowhere(): Promise<string> {
  const { url, close } = await node();
  await close();
  return url;
}

/** An error as the server API answers it. */
export function refusal(status: number, code: string, headers: Record<string, string> = {}): Answer {
  return { status, body: { code, error: `About ${code}` }, headers };
}

export function admin(of: NodeDouble | string | (NodeDouble | string)[], options: Partial<AdminOptions> = {}) {
  const url = [of].flat().map((each) => (typeof each === 'string' ? each : each.url));
  return pipeAdmin({ url, key: KEY, ...options });
}

/** What a call fails with. */
export async function failure(promise: Promise<unknown>): Promise<AdminError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(AdminError);
  return error as AdminError;
}
