/** A server at the other end of a WebSocket that never leaves the process: it grants everything but what it is told to refuse. */
import type { SocketLike, WebSocketClass } from '../../src/core/types.js';

type Frame = Record<string, unknown>;

export class ServerDouble {
  /** Every message of every connection, without pings. */
  readonly said: Frame[] = [];
  /** Connections that were ever made, and those that are open. */
  readonly sockets: FakeSocket[] = [];
  /** Error codes by pipe or action. */
  readonly refused = new Map<string, string>();
  /** Who is in a pipe, as the reply to `presence: true`. */
  readonly members = new Map<string, Frame[]>();
  /** Answers actions; without it they have no result. */
  act: ((frame: Frame) => Promise<Frame> | Frame) | undefined;

  readonly WebSocket: WebSocketClass;

  constructor() {
    // eslint-disable-next-line @typescript-eslint/no-this-alias
    const server = this;
    this.WebSocket = class extends FakeSocket {
      constructor() {
        super(server);
      }
    };
  }

  get open(): FakeSocket[] {
    return this.sockets.filter((socket) => socket.readyState <= 1);
  }

  /** What was said of a type, as `subscribe a,b`. */
  log(...types: string[]): string[] {
    return this.said
      .filter(({ type }) => types.includes(String(type)))
      .map(({ type, pipes, pipe }) => `${String(type)} ${[pipes ?? pipe].flat().join(',')}`);
  }

  /** Sends a frame on every open connection. */
  send(frame: Frame): void {
    for (const socket of this.open) socket.deliver(frame);
  }

  event(pipe: string, event: string, data: unknown): void {
    this.send({ type: 'event', pipe, event, data, sender: 'bob', ts: 1 });
  }

  async answer(frame: Frame): Promise<Frame> {
    if (frame.type === 'action') return this.act ? this.act(frame) : { ok: true, result: null };
    const one = (pipe: string): Frame => {
      const code = this.refused.get(pipe);
      if (code) return { ok: false, code, error: 'Access denied' };
      const members = this.members.get(pipe) ?? [];
      return { ok: true, ...(frame.presence === true && { members, total: members.length, anonymous: 0 }) };
    };
    if (Array.isArray(frame.pipes)) return { ok: true, results: Object.fromEntries(frame.pipes.map((pipe: string) => [pipe, one(pipe)])) };
    return typeof frame.pipe === 'string' ? one(frame.pipe) : { ok: true };
  }
}

export class FakeSocket implements SocketLike {
  readyState = 0;
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: unknown) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  onclose: ((event: unknown) => void) | null = null;
  readonly #server: ServerDouble;

  constructor(server: ServerDouble) {
    this.#server = server;
    server.sockets.push(this);
    queueMicrotask(() => {
      if (this.readyState) return;
      this.readyState = 1;
      this.onopen?.({});
      this.deliver({
        type: 'welcome',
        protocol: 1,
        connection: '0-0-0-1',
        user: { id: 'ann', name: null },
        pipes: {},
        ping_s: 25,
        limits: { message_bytes: 65536 },
      });
    });
  }

  deliver(frame: Frame): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }

  send(text: string): void {
    const frame = JSON.parse(text) as Frame;
    if (frame.type === 'ping') return this.deliver({ type: 'pong' });
    this.#server.said.push(frame);
    void this.#server.answer(frame).then((answer) => {
      if (this.readyState === 1) this.deliver({ type: 'reply', id: frame.id, ...answer });
    });
  }

  close(code = 1000): void {
    if (this.readyState > 1) return;
    this.readyState = 3;
    this.onclose?.({ code, reason: '' });
  }
}
