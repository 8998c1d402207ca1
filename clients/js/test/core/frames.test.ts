/** What the server sends is not trusted: nothing of it throws into the application, and what is not understood is left. */

import { expect, test, vi } from 'vitest';

import { createClient, defineEvents, type StandardSchemaV1 } from '../../src/index.js';
import { client, connected, FakeSocket, setUp, settle, watch } from './harness.js';

setUp();

const NONSENSE: unknown[] = [
  undefined, null, 7, new ArrayBuffer(4), '', '{', 'null', '7', '"x"', '[]', '[{"type":"event"}]', '{}', '{"type":7}', '{"type":"of-the-future"}',
  '{"type":"welcome"}', '{"type":"reply"}', '{"type":"reply","id":null,"ok":true}', '{"type":"reply","id":{},"ok":true}', '{"type":"reply","id":"1","ok":true}',
  '{"type":"reply","id":999,"ok":false}', '{"type":"pong","id":[]}', '{"type":"event"}', '{"type":"event","pipe":"a"}', '{"type":"event","pipe":7,"event":"e"}',
  '{"type":"event","pipe":"a","event":{}}', '{"type":"event","pipe":"a","event":"unheard"}', '{"type":"event","pipe":"__proto__","event":"constructor"}',
  '{"type":"push"}', '{"type":"push","event":7}', '{"type":"push","event":"e","sender":7,"ts":"x"}', '{"type":"presence"}', '{"type":"presence","pipe":"a","members":7}',
  '{"type":"presence","pipe":"a","joined":[null,7,{}],"left":"x"}', '{"type":"presence","pipe":"b","members":[]}', '{"type":"system"}', '{"type":"system","event":7}',
  '{"type":"system","event":"of-the-future","pipe":"a"}', '{"type":"system","event":"pipe_revoked"}', '{"type":"system","event":"pipe_revoked","pipe":7}',
  '{"type":"system","event":"pipe_restored","pipe":null}', '{"type":"system","event":"unsubscribed","pipe":{}}', '{"type":"system","event":"grants_changed","pipes":7}',
  '{"type":"system","event":"expiring"}', '{"type":"system","event":"expiring","in_s":"x"}', '{"type":"system","event":"expiring","in_s":-1}',
  '{"type":"system","event":"draining","reconnect_in_ms":"soon"}', '{"type":"system","event":"lagged","pipe":"a","dropped":"many"}',
];

test('nonsense from the server is left, one piece after the other', async () => {
  const { client: made, told, socket } = await connected();
  const heard = vi.fn();
  made.pipe('a').on('e', heard);
  made.pipe('a').onPresence(heard);
  made.onPush('other', heard);
  await settle();
  socket.subscribed({ a: { ok: true, members: 'none', total: 'x' } });
  heard.mockClear();
  for (const piece of NONSENSE) expect(() => socket.raw(piece), String(piece)).not.toThrow();
  await settle();
  expect(made.status).toBe('connected');
  expect(told.errors).toEqual([]);
  expect(told.revoked).toEqual([]);
  // And it goes on as if nothing had been.
  socket.say({ type: 'event', pipe: 'a', event: 'e', data: 1, sender: null, ts: 1 });
  expect(heard).toHaveBeenLastCalledWith({ pipe: 'a', event: 'e', data: 1, sender: null, ts: 1 });
});

test('nonsense before the welcome, and a welcome that is half of one', async () => {
  const { client: made } = client();
  made.connect();
  await settle();
  for (const piece of NONSENSE.filter((piece) => !String(piece).includes('welcome'))) expect(() => FakeSocket.last.raw(piece)).not.toThrow();
  expect(made.status).toBe('connecting');
  FakeSocket.last.readyState = 1;
  FakeSocket.last.say({ type: 'welcome', connection: 7, user: 'ann', expires_at: 'soon', ping_s: -3, limits: 'none', pipes: null });
  expect(made).toMatchObject({ status: 'connected', user: null, connection: '' });
  const sent = watch(made.pipe('a').publish('e', 'x'.repeat(10_000)));
  expect(FakeSocket.last.requests('publish')).toHaveLength(1);
  expect(sent.times).toBe(0);
});

test.each([undefined, null, 7, {}, { a: 7 }, { a: null }, { b: { ok: true } }, []])('a batch answered with results %j is a refusal, not a hang', async (results) => {
  vi.spyOn(Math, 'random').mockReturnValue(1);
  const { client: made, socket } = await connected();
  made.pipe('a').on('e', () => undefined);
  await settle();
  socket.answer('subscribe', { results });
  expect(made.pipe('a').status).toBe('subscribing');
  await vi.advanceTimersByTimeAsync(1_000);
  expect(socket.requests('subscribe')).toHaveLength(2);
});

test('a refusal without code or text still has both', async () => {
  const { client: made, socket } = await connected();
  const sent = watch(made.action('a'));
  socket.answer('action', { ok: 'yes', code: 7 });
  await settle();
  expect(sent.error).toMatchObject({ code: 'INTERNAL' });
  expect(sent.error?.message).not.toBe('');
});

test('a close event without anything in it is a lost connection', async () => {
  const { client: made, socket } = await connected();
  socket.onclose?.(undefined as never);
  expect(made.status).toBe('reconnecting');
});

test('a handler that throws does not keep the others from hearing, and is told', async () => {
  const { client: made, told, socket } = await connected();
  const heard = vi.fn();
  made.pipe('a').on('e', () => { throw new Error('mine'); });
  made.pipe('a').on('e', heard);
  made.pipe('a').onStatus(() => { throw new Error('mine too'); });
  await settle();
  socket.subscribed();
  expect(() => socket.say({ type: 'event', pipe: 'a', event: 'e', data: 1, sender: null, ts: 1 })).not.toThrow();
  expect(heard).toHaveBeenCalledTimes(1);
  expect(told.errors.map(({ code, message }) => [code, message.includes('mine')])).toContainEqual(['INTERNAL', true]);
});

test('an onStatus or onPipeRevoked that throws does no harm', async () => {
  const { client: made, told } = client({ onStatus: () => { throw new Error('x'); }, onPipeRevoked: () => { throw new Error('y'); } });
  made.connect();
  await settle();
  FakeSocket.last.welcome().say({ type: 'system', event: 'pipe_revoked', pipe: 'a' });
  expect(made.status).toBe('connected');
  expect(told.errors).toHaveLength(3);
});

test('without onError, and with one that throws, what is wrong is seen on the console', async () => {
  const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  for (const onError of [undefined, () => { throw new Error('x'); }]) {
    const { client: made, socket } = await connected({ onError });
    made.pipe('a').on('e', () => { throw new Error('mine'); });
    await settle();
    socket.subscribed();
    expect(() => socket.say({ type: 'event', pipe: 'a', event: 'e', data: 1, sender: null, ts: 1 })).not.toThrow();
  }
  expect(warn).toHaveBeenCalledTimes(2);
});

// ---- declared events -------------------------------------------------------------------------------------------------

const text: StandardSchemaV1<{ text: string }, { text: string; length: number }> = {
  '~standard': {
    version: 1,
    vendor: 'test',
    validate: (value) => {
      const found = (value as { text?: unknown } | null)?.text;
      return typeof found === 'string' ? { value: { text: found, length: found.length } } : { issues: [{ message: 'not a text', path: ['text'] }] };
    },
  },
};

async function declared() {
  const errors: string[] = [];
  const made = createClient({ url: 'wss://edge.example', WebSocket: FakeSocket, events: defineEvents({ message: text }), onError: ({ code }) => errors.push(code) });
  made.connect();
  await settle();
  return { made, errors, socket: FakeSocket.last.welcome() };
}

test('what does not match is not sent', async () => {
  const { made, socket } = await declared();
  await expect(made.pipe('a').publish('message', { text: 7 } as never)).rejects.toMatchObject({ code: 'INVALID_EVENT' });
  await expect(made.pipe('a').publish('mesage' as never, { text: 'x' } as never)).rejects.toMatchObject({ code: 'INVALID_EVENT' });
  await expect(made.push({ user: 'ben' }, 'message', 7 as never)).rejects.toMatchObject({ code: 'INVALID_EVENT' });
  expect(socket.sent).toEqual([]);
  void made.pipe('a').publish('message', { text: 'x' }).catch(() => undefined);
  await settle();
  expect(socket.requests('publish')[0].data).toEqual({ text: 'x' });
});

test('a push that nobody listens to is not looked at', async () => {
  const { errors, socket } = await declared();
  socket.say({ type: 'push', event: 'message', data: 7, sender: null, ts: 1 });
  expect(errors).toEqual([]);
});

test('what arrives and does not match reaches no handler, and is told', async () => {
  const { made, errors, socket } = await declared();
  const heard = vi.fn();
  made.pipe('a').on('message', ({ data }) => heard(data));
  made.onPush('message', ({ data }) => heard(data));
  made.pipe('a').onAny(({ event, data }) => heard([event, data]));
  await settle();
  socket.subscribed();
  for (const type of ['event', 'push']) socket.say({ type, pipe: type === 'event' ? 'a' : undefined, event: 'message', data: { text: 7 }, sender: null, ts: 1 });
  expect(heard).not.toHaveBeenCalled();
  expect(errors).toEqual(['INVALID_EVENT', 'INVALID_EVENT']);
  socket.say({ type: 'event', pipe: 'a', event: 'message', data: { text: 'four' }, sender: null, ts: 1 });
  socket.say({ type: 'event', pipe: 'a', event: 'undeclared', data: 1, sender: null, ts: 1 });
  expect(heard.mock.calls).toEqual([[{ text: 'four', length: 4 }], [['message', { text: 'four', length: 4 }]], [['undeclared', 1]]]);
});
