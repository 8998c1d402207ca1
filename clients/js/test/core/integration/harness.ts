/** Clients of a real server, and waiting for what they hear. */

import { afterEach, beforeAll, afterAll } from 'vitest';

import { createClient, type Client, type ClientOptions, type PipewardError, type Status, type StatusDetail } from '../../../src/index.js';
import { NodeWebSocket } from '../../../src/node/index.js';
import { startServer, type Server } from '../../support/server.js';

/** Longer than anything here takes, shorter than anybody would wait. */
const PATIENCE_MS = 12_000;

export async function until(what: string, holds: () => boolean): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await new Promise((next) => setTimeout(next, 5));
  }
}

export interface Heard {
  readonly statuses: { status: Status; detail: StatusDetail }[];
  readonly errors: PipewardError[];
  readonly revoked: string[];
  readonly restored: string[];
  readonly throttled: number[];
  allRevoked: number;
}

const open: Client[] = [];
afterEach(() => {
  for (const client of open.splice(0)) client.close();
});

export function join(url: string, options: Partial<ClientOptions> = {}): { client: Client; heard: Heard } {
  const heard: Heard = { statuses: [], errors: [], revoked: [], restored: [], throttled: [], allRevoked: 0 };
  const client = createClient({
    url,
    WebSocket: NodeWebSocket,
    onStatus: (status, detail) => heard.statuses.push({ status, detail }),
    onError: (error) => heard.errors.push(error),
    onPipeRevoked: (pipe) => heard.revoked.push(pipe),
    onAllPipesRevoked: () => (heard.allRevoked += 1),
    onPipeRestored: (pipe) => heard.restored.push(pipe),
    onThrottled: (ms) => heard.throttled.push(ms),
    ...options,
  });
  open.push(client);
  return { client, heard };
}

/** One server for all tests of a file. */
export function withServer(config = ''): () => Server {
  let server: Server | undefined;
  beforeAll(async () => {
    server = await startServer(config);
  });
  afterAll(() => server?.kill());
  return () => server!;
}

/** What arrived, in order. */
export function collect(client: Client, pipe: string, event = 'message'): unknown[] {
  const data: unknown[] = [];
  client.pipe(pipe).on(event, (message) => data.push(message.data));
  return data;
}
