// The application's end of the server's calls, against the real server: HP-1, HP-7, RK-1…RK-3, PROTOCOL §1 and §5.
import { createServer, type IncomingMessage, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { createClient, type Client } from '../../../src/index.js';
import { NodeWebSocket } from '../../../src/node/index.js';
import {
  type AuthorizeCall,
  authorizeWebhook,
  type Call,
  type Decision,
  nodeHandler,
  pipeAdmin,
  PipewardError,
  readCall,
} from '../../../src/server/index.js';
import { startServer, type Server } from '../../support/server.js';

const SECRET = 'the secret of calls to the application';

/** What the application answers the queue with. */
let status: number;

type AskedFor = Call & { user: { id: string }; args?: unknown; data?: unknown; id?: string };

let server: Server;
let application: HttpServer;
/** What the application says, test by test. */
let decide: (call: AuthorizeCall) => Decision;
let secret: string;
const authorized: AuthorizeCall[] = [];
const asked: AskedFor[] = [];
const errors: unknown[] = [];
const clients: Client[] = [];

/** `secret` is read anew each time, so that a test can get it wrong. */
const authorize = (request: Request) =>
  authorizeWebhook(
    (call) => {
      authorized.push(call);
      return decide(call);
    },
    { secret, onError: (error) => errors.push(error) },
  )(request);

async function perform(request: Request): Promise<Response> {
  try {
    const call = await readCall<AskedFor>(request, { secret: SECRET, kind: ['action', 'queue'] });
    asked.push(call);
    return Response.json({ by: call.user.id, args: call.args ?? null }, { status });
  } catch (error) {
    if (error instanceof PipewardError) return Response.json({ error }, { status: 400 });
    throw error;
  }
}

beforeAll(async () => {
  const [gate, work] = [nodeHandler<IncomingMessage>(authorize), nodeHandler<IncomingMessage>(perform)];
  application = createServer((request, response) => (request.url === '/authorize' ? gate : work)(request, response));
  application.listen(0, '127.0.0.1');
  await new Promise((resolve) => application.once('listening', resolve));
  const url = `http://127.0.0.1:${(application.address() as AddressInfo).port}`;
  server = await startServer(`
[auth.webhook]
url = "${url}/authorize"
secret = "${SECRET}"
[action.greet]
allow = "true"
url = "${url}/work"
[queue.jobs]
publish = "true"
url = "${url}/work"
`);
});

beforeEach(() => {
  secret = SECRET;
  status = 200;
  decide = ({ query }) => ({ userId: query.user!, pipes: { team: { subscribe: true, publish: true } } });
  for (const list of [authorized, asked, errors]) list.length = 0;
});

afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

afterAll(async () => {
  await server?.kill();
  application?.closeAllConnections();
  application?.close();
});

/** The codes of what goes wrong, and the client. */
function connect(user: string): { client: Client; failures: unknown[] } {
  const failures: unknown[] = [];
  const client = createClient({
    url: `${server.url}/v1/connect?user=${user}`,
    WebSocket: NodeWebSocket,
    onError: () => undefined,
    onStatus: (_, { error }) => error && failures.push(error.status ?? error.code),
  });
  clients.push(client);
  client.connect();
  return { client, failures };
}

const until = <T>(look: () => T, value: T) => expect.poll(look, { timeout: 10_000, interval: 5 }).toEqual(value);

it('decides who connects, and with which rights', async () => {
  const { client } = connect('ann');
  await until(() => client.status, 'connected');
  expect(client.user).toEqual({ id: 'ann', name: null });
  await client.pipe('team').publish('message', 1);
  await expect(client.pipe('other').publish('message', 1)).rejects.toMatchObject({ code: 'FORBIDDEN' });
  expect(authorized).toMatchObject([
    { kind: 'connect', ip: '127.0.0.1', query: { user: 'ann' }, user: null, connection: client.connection },
  ]);
  expect(authorized[0]!.delivery).toEqual(expect.any(String));
});

it.each([
  ['null', () => null, 401],
  [
    'FORBIDDEN',
    () => {
      throw new PipewardError('FORBIDDEN', 'Suspended.');
    },
    403,
  ],
  [
    'an error',
    () => {
      throw new Error('the database is away');
    },
    503,
  ],
  ['something malformed', () => ({ userId: 7 }) as unknown as Decision, 503],
])('refuses where it answers %s', async (_, answer, status) => {
  decide = answer;
  const { client, failures } = connect('ann');
  await until(() => failures[0], status);
  expect(client.user).toBeNull();
});

it('is asked again at a refresh, with the identity, and grants change in place', async () => {
  const { client } = connect('ann');
  await until(() => client.status, 'connected');
  decide = ({ user }) => ({ userId: user!.id, pipes: { other: { publish: true } } });
  await client.refreshPipeAuth();
  await client.pipe('other').publish('message', 1);
  await expect(client.pipe('team').publish('message', 1)).rejects.toMatchObject({ code: 'FORBIDDEN' });
  expect(authorized.map(({ kind, user }) => [kind, user?.id])).toEqual([
    ['connect', undefined],
    ['refresh', 'ann'],
  ]);
});

it('is not asked by somebody with another secret, and nobody is signed out by the mistake', async () => {
  const { client } = connect('ann');
  await until(() => client.status, 'connected');
  secret = 'a secret that the server does not have';
  await expect(client.refreshPipeAuth()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect([client.status, authorized.length]).toEqual(['connected', 1]);
  expect(errors).toEqual([expect.objectContaining({ code: 'UNAUTHENTICATED' })]);
  const { failures } = connect('bob');
  await until(() => failures[0], 503);
});

it('reads actions and messages of queues that the server has signed', async () => {
  const { client } = connect('ann');
  await until(() => client.status, 'connected');
  expect(await client.action('greet', { text: 'Zoë 👋' })).toEqual({ by: 'ann', args: { text: 'Zoë 👋' } });
  await client.enqueue('jobs', { n: 1 });
  await until(() => asked.map(({ kind }) => kind), ['action', 'queue']);
  expect(asked[1]).toMatchObject({ data: { n: 1 }, id: expect.anything(), user: { id: 'ann' } });
});

it('finds what it would not take among the dead letters, and has it tried again', async () => {
  const { client } = connect('ann');
  await until(() => client.status, 'connected');
  const admin = pipeAdmin({ url: server.control, key: server.apiKey });
  status = 422;
  await client.enqueue('jobs', { text: 'cannot be done' });
  await expect.poll(async () => (await admin.queues())[0]?.dead, { timeout: 10_000 }).toBe(1);
  const { letters } = await admin.deadLetters('jobs');
  expect(letters).toMatchObject([{ data: { text: 'cannot be done' }, user: { id: 'ann' }, node: server.control }]);
  status = 200;
  expect(await admin.retryDeadLetters('jobs', { id: letters[0]!.id })).toEqual({ ok: true, retried: 1 });
  await until(() => asked.length, 2);
  expect(asked[0]!.id).toBe(asked[1]!.id);
  await expect.poll(async () => (await admin.queues())[0]?.depth, { timeout: 10_000 }).toBe(0);
  expect(await admin.retryDeadLetters('jobs')).toEqual({ ok: true, retried: 0 });
  await expect(admin.deadLetters('nothing')).rejects.toMatchObject({ code: 'NOT_FOUND' });
});
