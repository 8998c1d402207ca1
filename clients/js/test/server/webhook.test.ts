// The authorize webhook: PROTOCOL §1, rulings B13, B14, C24, INVARIANTS 31; and handlers in node:http.
import { createHmac } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  type Authorization,
  type AuthorizeCall,
  authorizeWebhook,
  createPipeHandler,
  nodeHandler,
  PipewardError,
} from '../../src/server/index.js';

const SECRET = 'a secret of the webhook, 32 bytes';
const silent = () => undefined;

const CALL = {
  kind: 'connect',
  delivery: 'd1',
  connection: '0-1-17-5a80b3f',
  ip: '192.0.2.1',
  headers: { cookie: 'session=1' },
  query: { room: 'a' },
  user: null,
};

function signed(call: unknown, secret = SECRET): Request {
  const body = JSON.stringify(call);
  const t = Math.floor(Date.now() / 1000);
  const v1 = createHmac('sha256', secret).update(`${t}.${body}`).digest('hex');
  return new Request('http://app/realtime/authorize', { method: 'POST', body, headers: { 'x-pipeward-signature': `t=${t},v1=${v1}` } });
}

describe('authorizeWebhook', () => {
  it('answers in the words of the wire', async () => {
    const authorize = vi.fn(async (call: AuthorizeCall): Promise<Authorization> => ({
      user: { id: call.headers.cookie!.slice(-1), team: 'red' },
      pipes: { 'team-red': { subscribe: true } },
      expiresAt: new Date(2e12),
      session: 's1',
      tokenId: 't1',
    }));
    const answer = await authorizeWebhook(authorize, { secret: SECRET })(signed(CALL));
    expect(answer.status).toBe(200);
    expect(await answer.json()).toEqual({
      user: { id: '1', team: 'red' },
      pipes: { 'team-red': { subscribe: true } },
      expires_at: 2e12,
      session: 's1',
      token_id: 't1',
    });
    expect(authorize).toHaveBeenCalledWith(CALL);
  });

  it('is asked at a refresh too', async () => {
    const handler = authorizeWebhook(({ kind, user }) => ({ userId: `${user!.id}-${kind}` }), { secret: SECRET });
    const answer = await handler(signed({ ...CALL, kind: 'refresh', user: { id: 'ann' } }));
    expect(await answer.json()).toMatchObject({ user: { id: 'ann-refresh' } });
  });

  it.each([
    ['null', () => null],
    ['nothing', () => undefined],
  ])('answers null for %s, which the server turns into 401', async (_, authorize) => {
    const answer = await authorizeWebhook(authorize, { secret: SECRET })(signed(CALL));
    expect([answer.status, await answer.text()]).toEqual([200, 'null']);
  });

  it.each([
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
        throw new Error('database password wrong');
      },
      500,
    ],
    ['an empty object', () => ({}) as Authorization, 500],
    ['a number for an id', () => ({ user: { id: 7 } }) as unknown as Authorization, 500],
  ])('answers %s with a status', async (_, authorize, status) => {
    const answer = await authorizeWebhook(authorize, { secret: SECRET, onError: silent })(signed(CALL));
    expect(answer.status).toBe(status);
    expect(await answer.text()).not.toContain('password');
  });

  it.each([
    ['another secret', () => signed(CALL, 'b'.repeat(32))],
    ['no signature', () => new Request('http://app/', { method: 'POST', body: JSON.stringify(CALL) })],
    ['a call of another kind', () => signed({ ...CALL, kind: 'action' })],
    ['no kind', () => signed({ ...CALL, kind: undefined })],
  ])('asks nobody for %s, and does not sign users out by it', async (_, request) => {
    const [authorize, told] = [vi.fn(() => ({ userId: 'ann' })), vi.fn()];
    const answer = await authorizeWebhook(authorize, { secret: SECRET, onError: told })(request());
    // 401 and 403 would be a verdict about the user.
    expect([answer.status, authorize.mock.calls.length, told.mock.calls.length]).toEqual([400, 0, 1]);
  });

  it('takes only POST', async () => {
    const answer = await authorizeWebhook(() => ({ userId: 'ann' }), { secret: SECRET })(new Request('http://app/'));
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'POST']);
  });

  it('fails at once for a bad secret', () => {
    expect(() => authorizeWebhook(() => null, { secret: 'short' })).toThrow(PipewardError);
    expect(() => authorizeWebhook(() => null, { secret: [] })).toThrow(PipewardError);
  });
});

describe('nodeHandler', () => {
  let server: Server | undefined;
  afterEach(() => server?.close());

  async function serve(listener: Parameters<typeof createServer>[1]): Promise<string> {
    server = createServer(listener!).listen(0, '127.0.0.1');
    await new Promise((resolve) => server!.once('listening', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  it('brings the body through byte for byte', async () => {
    const url = await serve(
      nodeHandler(authorizeWebhook(({ headers }) => ({ userId: headers.cookie!.slice(8) }), { secret: SECRET, onError: silent })),
    );
    const request = signed({ ...CALL, headers: { cookie: 'session=zoë' } });
    const answer = await fetch(url, { method: 'POST', headers: request.headers, body: await request.arrayBuffer() });
    expect([answer.status, await answer.json()]).toEqual([200, { user: { id: 'zoë' }, pipes: {} }]);
  });

  it('hands over the Node request, address and several cookies', async () => {
    const handler = async (request: Request, node: IncomingMessage & { session?: string }) => {
      const headers = new Headers({ 'x-url': request.url, 'x-session': node.session ?? '' });
      headers.append('set-cookie', 'a=1');
      headers.append('set-cookie', 'b=2');
      return new Response(null, { status: 204, headers });
    };
    const url = await serve((request, response) => nodeHandler(handler)(Object.assign(request, { session: 's1' }), response));
    const answer = await fetch(`${url}/a?b=c`);
    expect([answer.status, answer.headers.get('x-url'), answer.headers.get('x-session')]).toEqual([204, `${url}/a?b=c`, 's1']);
    expect(answer.headers.getSetCookie()).toEqual(['a=1', 'b=2']);
  });

  it('says what to do where the body was read before', async () => {
    const reads: Parameters<typeof createServer>[1] = async (request, response) => {
      for await (const _ of request) void _;
      await nodeHandler(authorizeWebhook(() => null, { secret: SECRET, onError: silent }))(request, response);
    };
    const answer = await fetch(await serve(reads), { method: 'POST', body: '{}' });
    expect([answer.status, await answer.text()]).toEqual([500, expect.stringContaining('express.json')]);
  });

  it('takes bytes that were kept', async () => {
    const keeps: Parameters<typeof createServer>[1] = async (request, response) => {
      const pieces: Buffer[] = [];
      for await (const piece of request) pieces.push(piece as Buffer);
      await nodeHandler(authorizeWebhook(() => ({ userId: 'ann' }), { secret: SECRET }))(
        Object.assign(request, { rawBody: Buffer.concat(pieces) }),
        response,
      );
    };
    const url = await serve(keeps);
    const request = signed(CALL);
    const answer = await fetch(url, { method: 'POST', headers: request.headers, body: await request.text() });
    expect(await answer.json()).toMatchObject({ user: { id: 'ann' } });
  });

  it('gives errors to the next one, and answers them where there is none', async () => {
    const fails = nodeHandler(async () => {
      throw new Error('secret detail');
    });
    const next = vi.fn();
    const url = await serve((request, response) =>
      fails(
        request,
        response,
        request.url === '/next'
          ? (error) => {
              next(error);
              response.end();
            }
          : undefined,
      ),
    );
    const answer = await fetch(url);
    expect([answer.status, await answer.text()]).toEqual([500, expect.not.stringContaining('detail')]);
    await fetch(`${url}/next`);
    expect(next).toHaveBeenCalledWith(expect.objectContaining({ message: 'secret detail' }));
  });

  it('survives a host that is none', async () => {
    const url = new URL(await serve(nodeHandler(createPipeHandler({ secret: SECRET, authorize: () => null }))));
    const { connect } = await import('node:net');
    const socket = connect(Number(url.port), url.hostname);
    socket.write('GET //x:y HTTP/1.1\r\nHost: a b]\r\nConnection: close\r\n\r\n');
    const text = await new Promise<string>((resolve) => {
      let all = '';
      socket.on('data', (piece) => (all += String(piece))).on('close', () => resolve(all));
    });
    expect(text).toMatch(/^HTTP\/1.1 401 /);
  });
});
