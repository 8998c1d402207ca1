// What the compiler accepts and refuses. Checked by `npm run types`; an error that does not occur is an error.
import { expectTypeOf } from 'vitest';
import * as v from 'valibot';
import { z } from 'zod';
import { createClient, defineEvents, type PipeEvent, type ReceivedBy, type SentBy } from '../../src/index.js';
import { createPipeHandler, nodeHandler, pipeAdmin, signToken, type Authorization, type PipeAdmin } from '../../src/server/index.js';
import { createServer, type IncomingMessage } from 'node:http';

interface Events {
  message: { text: string };
  typing: { user: string; at?: number };
}

const url = 'wss://edge.example';

/** By types alone, in both ways of saying it. */
export function byTypes() {
  for (const client of [createClient<Events>({ url }), createClient({ url, events: defineEvents<Events>() })]) {
    const pipe = client.pipe('team');
    pipe.on('message', (message) => {
      expectTypeOf(message.data).toEqualTypeOf<{ text: string }>();
      expectTypeOf(message.event).toEqualTypeOf<'message'>();
      expectTypeOf(message.sender).toEqualTypeOf<string | null>();
      // @ts-expect-error no such field
      message.data.txt;
    });
    void pipe.publish('message', { text: 'hello' }, { echo: false });
    void pipe.publish('typing', { user: 'ann' });
    client.onPush('typing', ({ data }) => expectTypeOf(data.user).toEqualTypeOf<string>());
    void client.push({ user: 'ann' }, 'message', { text: 'hello' });

    // @ts-expect-error no such event
    pipe.on('massage', () => undefined);
    // @ts-expect-error no such event
    void pipe.publish('massage', { text: 'hello' });
    // @ts-expect-error the payload of another event
    void pipe.publish('message', { user: 'ann' });
    // @ts-expect-error wrong type of a field
    void pipe.publish('message', { text: 7 });
    // @ts-expect-error one field too many
    void pipe.publish('message', { text: 'hello', bold: true });
    // @ts-expect-error a field is missing
    void pipe.publish('typing', {});
    // @ts-expect-error there is a payload
    void pipe.publish('message');
    // @ts-expect-error no such event
    client.onPush('massage', () => undefined);
    // @ts-expect-error wrong payload
    void client.push({ user: 'ann' }, 'message', 'hello');
    // @ts-expect-error no such target
    void client.push({ everybody: true }, 'message', { text: 'hello' });
    // @ts-expect-error one of them, not two
    void client.push({ user: 'ann', role: 'admin' }, 'message', { text: 'hello' });
  }
}

/** By validators; where one transforms, both sides have their own type. */
export function bySchemas() {
  const events = defineEvents({
    message: z.object({ text: z.string(), bold: z.boolean().default(false) }),
    moved: v.object({
      when: v.pipe(
        v.string(),
        v.transform((text) => new Date(text)),
      ),
    }),
  });
  const client = createClient({ url, events });
  const pipe = client.pipe('team');
  pipe.on('message', ({ data }) => expectTypeOf(data).toEqualTypeOf<{ text: string; bold: boolean }>());
  pipe.on('moved', ({ data }) => expectTypeOf(data.when).toEqualTypeOf<Date>());
  void pipe.publish('message', { text: 'hello' });
  void pipe.publish('moved', { when: '2030-01-01' });
  // @ts-expect-error what travels is the text
  void pipe.publish('moved', { when: new Date() });
  // @ts-expect-error no such event
  pipe.on('massage', () => undefined);
  // @ts-expect-error not a validator
  defineEvents({ message: { text: 'string' } });

  const schemas = { message: z.object({ text: z.string().transform((text) => text.length) }) };
  expectTypeOf<SentBy<typeof schemas>>().toEqualTypeOf<{ message: { text: string } }>();
  expectTypeOf<ReceivedBy<typeof schemas>>().toEqualTypeOf<{ message: { text: number } }>();

  const admin = pipeAdmin({ url: 'http://127.0.0.1:8081', key: 'key', events });
  void admin.publish('team', 'moved', { when: '2030-01-01' });
  // @ts-expect-error what travels is the text
  void admin.publish('team', 'moved', { when: new Date() });
}

/** Without any declaration everything goes. */
export function undeclared() {
  const client = createClient({ url });
  client.pipe('team').on('anything', (message) => expectTypeOf(message).toEqualTypeOf<PipeEvent<any, 'anything'>>());
  void client.pipe('team').publish('anything', { at: 'all' });
  void pipeAdmin({ url: 'http://127.0.0.1:8081', key: 'key' }).publish('team', 'anything', 7);
}

/** The server API. */
export function administration(admin: PipeAdmin<Events>) {
  void admin
    .publish('team', 'message', { text: 'hello' }, { count: true })
    .then(({ delivered }) => expectTypeOf(delivered).toEqualTypeOf<number | undefined>());
  void admin.push('ann', 'typing', { user: 'bob' });
  void admin.push({ role: 'admin', tenant: 't1' }, 'message', { text: 'hello' });
  void admin.batch([
    { method: 'publish', pipe: 'team', event: 'message', data: { text: 'hello' }, sender: 'ann' },
    { method: 'notify', to: 'ann', event: 'typing', data: { user: 'bob' } },
    { method: 'revoke', user: 'ann', pipe: 'team-*', ttlS: 60, until: 'reauthorized' },
    { method: 'disconnect', session: 's1', reconnect: true },
  ]);

  // @ts-expect-error no such event
  void admin.publish('team', 'massage', { text: 'hello' });
  // @ts-expect-error wrong payload
  void admin.notify('ann', 'message', { user: 'bob' });
  // @ts-expect-error the payload of another event
  void admin.batch([{ method: 'publish', pipe: 'team', event: 'message', data: { user: 'bob' } }]);
  // @ts-expect-error no such method
  void admin.batch([{ method: 'drop', user: 'ann' }]);
  // @ts-expect-error whom?
  void admin.revokeTokens({});
  // @ts-expect-error a name of the wire
  void admin.revoke('ann', 'team', { ttl_s: 60 });
  // @ts-expect-error nothing else ends it
  void admin.revoke('ann', 'team', { until: 'tomorrow' });
}

/** Authorizations and handlers. */
export function authorizing() {
  const secret = 'a secret of 32 bytes for signing!';
  const good: Authorization[] = [
    { userId: 'ann', pipes: { team: { subscribe: true } } },
    { user: { id: 'ann', name: null, roles: ['admin'], info: { any: 1 } }, expiresAt: new Date(), session: 's1' },
  ];
  void signToken(good[0]!, { secret, tokenExpiry: '15m' });
  // @ts-expect-error an id is a text
  void signToken({ userId: 7 }, { secret });
  // @ts-expect-error one form or the other
  void signToken({ userId: 'ann', user: { id: 'ann' } }, { secret });
  // @ts-expect-error no such right
  void signToken({ userId: 'ann', pipes: { team: { read: true } } }, { secret });
  // @ts-expect-error nobody
  void signToken({ pipes: {} }, { secret });

  createPipeHandler({ secret, authorize: () => null })(new Request('http://app/'));
  const withLocals = createPipeHandler({ secret, authorize: (_, locals: { user: string }) => ({ userId: locals.user }) });
  void withLocals(new Request('http://app/'), { user: 'ann' });
  // @ts-expect-error authorize wants to know
  void withLocals(new Request('http://app/'));

  createServer(nodeHandler(createPipeHandler({ secret, authorize: () => null })));
  createServer(nodeHandler(createPipeHandler({ secret, authorize: (_, request: IncomingMessage) => ({ userId: request.url ?? '' }) })));
}
