// Tokens: PROTOCOL §1, rulings A1, B9, B15, B19.
import { createHmac } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Authorization, createPipeHandler, PipewardError, signToken, type TokenOptions } from '../../src/server/index.js';

const SECRET = 'a secret of 32 bytes for signing!';
const NOW_MS = Date.UTC(2030, 0, 1);

beforeEach(() => {
  vi.useFakeTimers({ now: NOW_MS, toFake: ['Date'] });
});

afterEach(() => {
  vi.useRealTimers();
});

function claims(token: string): Record<string, unknown> {
  const [header, payload, signature] = token.split('.');
  expect(JSON.parse(Buffer.from(header!, 'base64url').toString())).toEqual({ alg: 'HS256', typ: 'JWT' });
  expect(signature).toBe(createHmac('sha256', SECRET).update(`${header}.${payload}`).digest('base64url'));
  return JSON.parse(Buffer.from(payload!, 'base64url').toString()) as Record<string, unknown>;
}

const sign = (authorization: unknown, options: Partial<TokenOptions> = {}) =>
  signToken(authorization as Authorization, { secret: SECRET, ...options });

describe('signToken', () => {
  it('writes an authorization as claims', async () => {
    const token = await sign(
      {
        user: {
          id: 'ann',
          name: 'Ann Ö',
          role: 'admin',
          roles: ['member'],
          team: 'red',
          tenant: 't1',
          org: 'o1',
          features: ['chat'],
          info: { plan: 1 },
        },
        pipes: { 'team-red': { subscribe: true, publish: true }, 'notices:*': { subscribe: true } },
        session: 's1',
        tokenId: 'j1',
      },
      { issuer: 'app', audience: 'pipeward', tokenExpiry: '1h' },
    );
    expect(claims(token)).toEqual({
      sub: 'ann',
      name: 'Ann Ö',
      role: 'admin',
      roles: ['member'],
      team: 'red',
      tenant: 't1',
      org: 'o1',
      features: ['chat'],
      info: { plan: 1 },
      pipes: { 'team-red': { subscribe: true, publish: true }, 'notices:*': { subscribe: true } },
      sid: 's1',
      jti: 'j1',
      iss: 'app',
      aud: 'pipeward',
      iat: NOW_MS / 1000,
      exp: NOW_MS / 1000 + 3600,
    });
  });

  it('takes the short form, and gives every token an id of its own', async () => {
    const [one, two] = [claims(await sign({ userId: 'ann' })), claims(await sign({ userId: 'ann' }))];
    expect(one).toMatchObject({ sub: 'ann', pipes: {} });
    expect(one.jti).not.toBe(two.jti);
  });

  it('leaves out what is null', async () => {
    const written = claims(
      await sign({ user: { id: 'ann', name: null, team: null, roles: null }, pipes: null, session: null, expiresAt: null }),
    );
    expect(Object.keys(written).sort()).toEqual(['exp', 'iat', 'jti', 'pipes', 'sub']);
  });

  it('grants a right only for true', async () => {
    const written = claims(await sign({ userId: 'ann', pipes: { a: { subscribe: 1, publish: 'true', presence: true } } }));
    expect(written.pipes).toEqual({ a: { subscribe: false, publish: false, presence: true } });
  });

  it('has a name of a pipe that objects have too', async () => {
    const written = claims(await sign({ userId: 'ann', pipes: { constructor: { subscribe: true }, ['__proto__']: { publish: true } } }));
    expect(Object.entries(written.pipes as object)).toEqual([
      ['constructor', { subscribe: true }],
      ['__proto__', { publish: true }],
    ]);
  });

  it.each([
    [undefined, 900],
    [60, 60],
    ['45', 45],
    ['30s', 30],
    ['15m', 900],
    ['2h', 7200],
    ['7d', 604_800],
  ])('lasts for %j', async (tokenExpiry, seconds) => {
    expect(claims(await sign({ userId: 'ann' }, { tokenExpiry })).exp).toBe(NOW_MS / 1000 + seconds);
  });

  it.each([[0], [-5], ['0m'], ['soon'], ['1w'], [NaN], [''], ['1.5h']])('does not last for %j', async (tokenExpiry) => {
    await expect(sign({ userId: 'ann' }, { tokenExpiry })).rejects.toMatchObject({
      code: 'INVALID',
      message: expect.stringContaining('tokenExpiry'),
    });
  });

  it('ends with the authorization, if that is sooner', async () => {
    expect(claims(await sign({ userId: 'ann', expiresAt: NOW_MS + 10_900 })).exp).toBe(NOW_MS / 1000 + 10);
    expect(claims(await sign({ userId: 'ann', expiresAt: new Date(NOW_MS + 10_000) })).exp).toBe(NOW_MS / 1000 + 10);
    expect(claims(await sign({ userId: 'ann', expiresAt: NOW_MS + 1e9 })).exp).toBe(NOW_MS / 1000 + 900);
    await expect(sign({ userId: 'ann', expiresAt: NOW_MS })).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  it.each([
    ['nothing', undefined, 'object'],
    ['a text', 'ann', 'object'],
    ['an array', [], 'object'],
    ['nobody', {}, 'userId'],
    ['nobody, in full', { user: {} }, 'user.id'],
    ['both forms', { user: { id: 'ann' }, userId: 'bob' }, 'either'],
    ['a number for an id', { userId: 7 }, 'String(id)'],
    ['an empty id', { userId: '' }, 'userId'],
    ['an id with a pattern in it', { userId: '**' }, 'userId'],
    ['an id with a brace', { userId: '{user.id}' }, 'userId'],
    ['an id with a space', { userId: 'ann lee' }, 'userId'],
    ['an id with a line end', { userId: 'ann\n' }, 'userId'],
    ['an id that is too long', { userId: 'ö'.repeat(129) }, 'userId'],
    ['a tenant that is a pattern', { user: { id: 'ann', tenant: '*' } }, 'user.tenant'],
    ['a role that is a list', { user: { id: 'ann', role: ['admin'] } }, 'user.role'],
    ['roles that are a text', { user: { id: 'ann', roles: 'admin' } }, 'user.roles'],
    ['more roles than may be', { user: { id: 'ann', roles: Array.from({ length: 1001 }, () => 'r') } }, 'user.roles'],
    [
      'more grants than may be (B15)',
      { userId: 'ann', pipes: Object.fromEntries(Array.from({ length: 10_001 }, (_, at) => [at, {}])) },
      '10000',
    ],
    ['features that are an object', { user: { id: 'ann', features: { chat: true } } }, 'user.features'],
    ['a field that is not known', { userId: 'ann', expires_at: 1 }, 'expires_at'],
    ['a misspelt field of the user', { user: { id: 'ann', tenent: 't1' } }, 'tenent'],
    ['a misspelt right', { userId: 'ann', pipes: { a: { read: true } } }, 'read'],
    ['a grant that is no object', { userId: 'ann', pipes: { a: true } }, 'pipes'],
    ['pipes that are a list', { userId: 'ann', pipes: ['a'] }, 'pipes'],
    ['a name with a space', { userId: 'ann', pipes: { 'a b': {} } }, 'a b'],
    ['a name with a brace', { userId: 'ann', pipes: { 'user-{user.id}': {} } }, 'user-'],
    ['a name that is too long', { userId: 'ann', pipes: { ['a'.repeat(201)]: {} } }, 'pipes'],
    ['seconds for milliseconds', { userId: 'ann', expiresAt: NOW_MS / 1000 + 60 }, 'seconds'],
    ['a date that is none', { userId: 'ann', expiresAt: new Date('soon') }, 'expiresAt'],
    ['a text for a moment', { userId: 'ann', expiresAt: '2030-01-01' }, 'expiresAt'],
  ])('refuses %s', async (_, authorization, told) => {
    await expect(sign(authorization)).rejects.toMatchObject({
      name: 'PipewardError',
      code: 'INVALID',
      message: expect.stringContaining(told),
    });
  });

  it('refuses more than fits the head of a request (B16)', async () => {
    const pipes = Object.fromEntries(Array.from({ length: 400 }, (_, at) => [`room-number-${at}`, { subscribe: true }]));
    await expect(sign({ userId: 'ann', pipes })).rejects.toMatchObject({
      code: 'PAYLOAD_TOO_LARGE',
      message: expect.stringContaining('patterns'),
    });
  });

  it.each([[''], ['short'], [new Uint8Array(15)], [undefined as unknown as string]])('refuses the secret %j', async (secret) => {
    await expect(sign({ userId: 'ann' }, { secret })).rejects.toMatchObject({ code: 'INVALID' });
  });

  it('takes a secret in bytes', async () => {
    expect(claims(await sign({ userId: 'ann' }, { secret: new TextEncoder().encode(SECRET) }))).toMatchObject({ sub: 'ann' });
  });
});

describe('createPipeHandler', () => {
  const post = () => new Request('http://app/api/pipe', { method: 'POST' });
  const silent = () => undefined;

  it('answers a token, which nobody may keep', async () => {
    const handler = createPipeHandler({ secret: SECRET, tokenExpiry: 60, authorize: () => ({ userId: 'ann' }) });
    const answer = await handler(post());
    expect([answer.status, answer.headers.get('cache-control')]).toEqual([200, 'no-store']);
    const { token, expires_at } = (await answer.json()) as { token: string; expires_at: number };
    expect(claims(token)).toMatchObject({ sub: 'ann', exp: expires_at / 1000 });
    expect(expires_at).toBe(NOW_MS + 60_000);
  });

  it('hands the request and its context to authorize', async () => {
    const authorize = vi.fn(async (_: Request, locals: { user: string }) => ({ userId: locals.user }));
    const handler = createPipeHandler({ secret: SECRET, authorize });
    const request = post();
    await handler(request, { user: 'bob' });
    expect(authorize).toHaveBeenCalledWith(request, { user: 'bob' });
  });

  it.each([
    ['null', () => null, 401, 'UNAUTHENTICATED'],
    ['a promise of null', async () => null, 401, 'UNAUTHENTICATED'],
    ['an authorization that has expired', () => ({ userId: 'ann', expiresAt: NOW_MS - 1 }), 401, 'UNAUTHENTICATED'],
    [
      'a FORBIDDEN',
      () => {
        throw new PipewardError('FORBIDDEN', 'Suspended.');
      },
      403,
      'FORBIDDEN',
    ],
    [
      'an error',
      () => {
        throw new Error('database password wrong');
      },
      500,
      'INTERNAL',
    ],
    ['a malformed authorization', () => ({ userId: 7 }) as unknown as Authorization, 500, 'INTERNAL'],
    ['nothing', () => undefined, 401, 'UNAUTHENTICATED'],
    ['false', () => false as unknown as null, 500, 'INTERNAL'],
  ])('refuses where authorize returns %s', async (_, authorize, status, code) => {
    const answer = await createPipeHandler({ secret: SECRET, authorize, onError: silent })(post());
    const body = (await answer.json()) as Record<string, unknown>;
    expect([answer.status, body.code, body.token]).toEqual([status, code, undefined]);
    expect(JSON.stringify(body)).not.toContain('password');
  });

  it('tells the application, not the client, what failed', async () => {
    const told = vi.fn();
    const authorize = () => {
      throw new Error('database');
    };
    await createPipeHandler({ secret: SECRET, authorize, onError: told })(post());
    expect(told).toHaveBeenCalledWith(expect.objectContaining({ message: 'database' }));
  });

  it('answers with a response that was thrown', async () => {
    const authorize = () => {
      throw new Response(null, { status: 302, headers: { location: '/login' } });
    };
    const answer = await createPipeHandler({ secret: SECRET, authorize })(post());
    expect([answer.status, answer.headers.get('location')]).toEqual([302, '/login']);
  });

  it('has the form that route files want', async () => {
    const { GET, POST } = createPipeHandler({ secret: SECRET, authorize: () => ({ userId: 'ann' }) });
    expect([(await POST(post())).status, (await GET(new Request('http://app/'))).status]).toEqual([200, 200]);
  });

  it('asks nobody for another method', async () => {
    const authorize = vi.fn(() => ({ userId: 'ann' }));
    const answer = await createPipeHandler({ secret: SECRET, authorize })(new Request('http://app/', { method: 'DELETE' }));
    expect([answer.status, answer.headers.get('allow'), authorize.mock.calls.length]).toEqual([405, 'GET, POST', 0]);
  });

  it('fails at once for a bad secret', () => {
    expect(() => createPipeHandler({ secret: '', authorize: () => null })).toThrow(PipewardError);
  });
});
