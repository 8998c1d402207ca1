/** What the client wants and what the server has agree in the end, whatever happened on the way (HP-7, HP-8). */

import { expect, test } from 'vitest';

import { chance, client, FakeSocket, pass, refused, setUp, settle, type Json } from './harness.js';

setUp();

/** A server's subscriptions and rights, of the last connection. */
class Server {
  readonly has = new Map<string, { presence: boolean }>();
  readonly revoked = new Set<string>();
  hidesPresence = false;

  constructor(readonly pick: (below: number) => number) {}

  get socket(): FakeSocket {
    return FakeSocket.last;
  }

  /** Answers what has been asked. */
  work(): void {
    for (const message of this.socket.sent.splice(0)) {
      if (!['subscribe', 'unsubscribe', 'refresh'].includes(message.type)) continue;
      const results = (message.pipes ?? []).map((pipe: string) => [pipe, this.#do(message, pipe)]);
      this.socket.say({ type: 'reply', id: message.id, ok: true, results: Object.fromEntries(results) });
    }
  }

  hidePresence(hides: boolean): void {
    this.hidesPresence = hides;
    if (hides) this.has.forEach((one) => (one.presence = false));
  }

  cut(): void {
    this.socket.end(1006);
    this.has.clear();
  }

  system(event: string, pipe: string): void {
    this.socket.say({ type: 'system', event, pipe, reason: 'server' });
  }

  #do({ type, presence = false }: Json, pipe: string): Json {
    if (type === 'unsubscribe' || this.revoked.has(pipe)) this.has.delete(pipe);
    if (type === 'unsubscribe') return { ok: true };
    if (this.revoked.has(pipe)) return refused('REVOKED');
    if (presence && this.hidesPresence) return refused('FORBIDDEN');
    if (this.pick(12) === 0) return refused('RATE_LIMITED', { retry_after_ms: 50 });
    this.has.set(pipe, { presence });
    return { ok: true, ...(presence && { members: [], total: 0, anonymous: 0 }) };
  }
}

async function live(seed: number): Promise<string[]> {
  let state = seed * 2_654_435_761;
  const pick = (below: number) => ((state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) >>> 8) % below;
  FakeSocket.all = [];
  const { client: made } = client({ getToken: () => 't' });
  const server = new Server(pick);
  const offs = new Map<string, { off: () => void; presence: boolean }[]>(['p0', 'p1', 'p2'].map((pipe) => [pipe, []]));
  made.connect();
  await settle();
  for (let step = 0; step < 120; step += 1) {
    const name = `p${pick(3)}`;
    const pipe = made.pipe(name);
    const listening = offs.get(name)!;
    const { readyState } = server.socket;
    const isOpen = readyState === 1;
    const deed = pick(15);
    if (deed <= 2) listening.push({ off: pipe.on('e', () => undefined), presence: false });
    else if (deed === 3) listening.push({ off: pipe.onPresence(() => undefined), presence: true });
    else if (deed <= 5) listening.splice(pick(listening.length + 1), 1).forEach(({ off }) => off());
    else if (deed === 10 && isOpen) server.socket.readyState = 2;
    else if (deed === 11 && readyState === 2) server.cut();
    else if (deed === 12 && readyState === 0) server.socket.welcome();
    else if (deed === 13) await pass(pick(3_000));
    else if (!isOpen) continue;
    else if (deed === 6) {
      server.revoked.add(name);
      server.has.delete(name);
      server.system('pipe_revoked', name);
    } else if (deed === 7 && server.revoked.delete(name)) server.system('pipe_restored', name);
    else if (deed === 8 && server.has.delete(name)) server.system('unsubscribed', name);
    else if (deed === 9) {
      server.hidePresence(pick(2) === 0);
      void made.refreshPipeAuth().catch(() => undefined);
    } else server.work();
    if (pick(2)) await settle();
  }
  // Everything is allowed again, and nothing more happens.
  server.revoked.clear();
  server.hidePresence(false);
  if (server.socket.readyState === 2) server.cut();
  while (made.status !== 'connected') {
    if (server.socket.readyState === 0) server.socket.welcome();
    await pass(1_000);
  }
  void made.refreshPipeAuth().catch(() => undefined);
  for (let round = 0; round < 40; round += 1) {
    await pass(3_000);
    server.work();
  }
  const wrong = [...offs].flatMap(([name, listening]) => {
    const { status, error } = made.pipe(name);
    const has = server.has.get(name);
    const isEnded = status === 'denied' && error?.code === 'NOT_SUBSCRIBED';
    if (listening.length === 0) return status === 'idle' && !has ? [] : [`${seed} ${name}: ${status}, and nobody listens`];
    if (isEnded ? !has : status === 'subscribed' && has?.presence === listening.some(({ presence }) => presence)) return [];
    return [`${seed} ${name}: ${status} ${error?.code}, the server has ${JSON.stringify(has)}`];
  });
  made.close();
  return wrong;
}

test('what is wanted is what the server has, after every kind of trouble', async () => {
  chance(0.3);
  const wrong: string[] = [];
  for (let seed = 1; seed <= 300; seed += 1) wrong.push(...(await live(seed)));
  expect(wrong).toEqual([]);
});
