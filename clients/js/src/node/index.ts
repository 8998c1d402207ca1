/**
 * `pipeward/node`: a WebSocket for Node 20, which has none of its own. Pass it as `createClient({ WebSocket: NodeWebSocket })`.
 *
 * It has the part of the browser's interface that the client uses, and tells more about a refused handshake: the event of
 * `onclose` carries `refusal` with the status, the code and `Retry-After`, so that these are honoured, which no browser
 * allows. RFC 6455; no extensions, no binary messages.
 */

import { createHash, randomBytes } from 'node:crypto';
import { request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Duplex } from 'node:stream';

import type { Ending, Refusal } from '../core/protocol.js';
import { parse, text } from '../core/protocol.js';
import { retryAfter } from '../core/token.js';
import type { SocketLike } from '../core/types.js';

const ACCEPT_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
/** A longer message ends the connection with 1009: the server does not send such. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
const REFUSAL_BYTES_MAX = 64 * 1024;
/** How long the server's answer to our close frame is awaited. */
const CLOSE_WAIT_MS = 2_000;

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const enum Opcode {
  Continuation = 0,
  Text = 1,
  Binary = 2,
  Close = 8,
  Ping = 9,
  Pong = 10,
}

export class NodeWebSocket implements SocketLike {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSING = 2;
  static readonly CLOSED = 3;

  onopen: ((event: object) => void) | null = null;
  onmessage: ((event: { readonly data: string }) => void) | null = null;
  onerror: ((event: { readonly message: string }) => void) | null = null;
  onclose: ((event: Ending & { readonly wasClean: boolean }) => void) | null = null;
  readyState = NodeWebSocket.CONNECTING;
  protocol = '';
  #request: ClientRequest;
  #stream: Duplex | undefined;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  #wantedBytes = 2;
  #message: Buffer[] = [];
  #messageBytes = 0;
  /** The code and reason to tell, once known. */
  #ending: Ending = { code: 1006, reason: '' };
  #clean = false;
  #closeTimer: ReturnType<typeof setTimeout> | undefined;

  /** Throws for an address that is not `ws:` or `wss:`. `headers` go with the handshake, such as `cookie`. */
  constructor(url: string, protocols: readonly string[] = [], { headers = {} }: { headers?: Readonly<Record<string, string>> } = {}) {
    const address = new URL(url);
    if (!/^wss?:$/.test(address.protocol)) throw new SyntaxError(`the address must begin with ws: or wss:, not ${address.protocol}`);
    if (protocols.some((protocol) => !/^[!#$%&'*+.^_`|~\w-]+$/.test(protocol))) {
      throw new SyntaxError('a subprotocol, or the token, holds characters that cannot be sent');
    }
    const key = randomBytes(16).toString('base64');
    const secure = address.protocol === 'wss:';
    address.protocol = secure ? 'https:' : 'http:';
    this.#request = (secure ? httpsRequest : httpRequest)(address, {
      agent: false,
      headers: {
        ...headers,
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': key,
        ...(protocols.length > 0 && { 'sec-websocket-protocol': protocols.join(', ') }),
      },
    });
    this.#request.on('upgrade', (response, stream, head) => this.#upgraded(response, stream, head, key, protocols));
    this.#request.on('response', (response) => this.#refused(response));
    this.#request.on('error', (error) => this.#failed(error.message));
    this.#request.end();
  }

  send(message: string): void {
    if (this.readyState === NodeWebSocket.CONNECTING) throw new Error('the WebSocket is still connecting');
    if (this.readyState === NodeWebSocket.OPEN) this.#write(Opcode.Text, Buffer.from(message));
  }

  close(code?: number, reason = ''): void {
    if (this.readyState >= NodeWebSocket.CLOSING) return;
    const stream = this.#stream;
    this.readyState = NodeWebSocket.CLOSING;
    if (!stream) {
      this.#request.destroy();
      return this.#closed();
    }
    this.#sayClose(code, reason);
  }

  // ---- the handshake -------------------------------------------------------------------------------------------

  #upgraded(response: IncomingMessage, stream: Duplex, head: Buffer, key: string, protocols: readonly string[]): void {
    if (this.readyState !== NodeWebSocket.CONNECTING) return void stream.destroy();
    this.#stream = stream;
    stream.on('error', (error) => this.#failed(error.message));
    stream.on('close', () => this.#closed());
    const expected = createHash('sha1').update(key + ACCEPT_GUID).digest('base64');
    const { 'sec-websocket-accept': accept, 'sec-websocket-protocol': protocol = '' } = response.headers;
    if (accept !== expected || (protocol && !protocols.includes(protocol))) {
      return this.#failed('the answer to the handshake is not that of a WebSocket server');
    }
    this.protocol = protocol;
    this.readyState = NodeWebSocket.OPEN;
    (stream as Duplex & { setNoDelay?(on: boolean): void }).setNoDelay?.(true);
    this.onopen?.({});
    stream.on('data', (bytes: Buffer) => this.#take(bytes));
    stream.on('end', () => stream.end());
    if (head.length > 0) this.#take(head);
  }

  #refused(response: IncomingMessage): void {
    const chunks: Buffer[] = [];
    let size = 0;
    const done = () => {
      const body = parse(Buffer.concat(chunks).toString());
      this.#ending = {
        code: 1006,
        reason: '',
        refusal: refusal(response.statusCode ?? 0, text(body?.code), retryAfter(response.headers['retry-after'])),
      };
      this.#request.destroy();
      this.onerror?.({ message: `the handshake was refused with ${response.statusCode}` });
      this.#closed();
    };
    response.on('data', (bytes: Buffer) => {
      size += bytes.length;
      if (size <= REFUSAL_BYTES_MAX) chunks.push(bytes);
      else done();
    });
    response.on('end', done);
    response.on('error', done);
  }

  #failed(message: string): void {
    if (this.readyState === NodeWebSocket.CLOSED) return;
    this.onerror?.({ message });
    this.#stream?.destroy();
    this.#request.destroy();
    this.#closed();
  }

  #closed(): void {
    if (this.readyState === NodeWebSocket.CLOSED) return;
    this.readyState = NodeWebSocket.CLOSED;
    clearTimeout(this.#closeTimer);
    this.#received = [];
    this.#message = [];
    // Never in the turn of the call that caused it.
    queueMicrotask(() => this.onclose?.({ ...this.#ending, wasClean: this.#clean }));
  }

  // ---- frames --------------------------------------------------------------------------------------------------

  #take(bytes: Buffer): void {
    this.#received.push(bytes);
    this.#receivedBytes += bytes.length;
    // Chunks are joined when they make up what is waited for, so that a long frame is copied once.
    while (this.#receivedBytes >= this.#wantedBytes && this.readyState !== NodeWebSocket.CLOSED) {
      const all = this.#received.length === 1 ? this.#received[0]! : Buffer.concat(this.#received);
      const used = this.#takeFrame(all);
      if (used === undefined) return;
      this.#received = [all.subarray(used)];
      this.#receivedBytes = all.length - used;
    }
  }

  /** Bytes of a whole frame at the beginning that was dealt with; undefined after the end of the conversation. */
  #takeFrame(all: Buffer): number | undefined {
    const short = all[1]! & 127;
    const headBytes = short === 127 ? 10 : short === 126 ? 4 : 2;
    // No extension was agreed to, and a server does not mask.
    if (all[1]! & 128 || all[0]! & 0x70) return this.#fault(1002, 'protocol error');
    if (all.length < headBytes) return this.#wait(headBytes);
    const length = short === 127 ? Number(all.readBigUInt64BE(2)) : short === 126 ? all.readUInt16BE(2) : short;
    if (this.#messageBytes + length > MESSAGE_BYTES_MAX) return this.#fault(1009, 'message too big');
    if (all.length < headBytes + length) return this.#wait(headBytes + length);
    this.#wait(2);
    const payload = all.subarray(headBytes, headBytes + length);
    return this.#frame((all[0]! & 15) as Opcode, (all[0]! & 128) !== 0, payload) ? headBytes + length : undefined;
  }

  #wait(bytes: number): 0 {
    this.#wantedBytes = bytes;
    return 0;
  }

  #frame(opcode: Opcode, last: boolean, payload: Buffer): true | undefined {
    if (opcode >= Opcode.Close && (!last || payload.length > 125)) return this.#fault(1002, 'protocol error');
    switch (opcode) {
      case Opcode.Continuation:
      case Opcode.Text:
        if ((opcode === Opcode.Continuation) !== this.#message.length > 0) return this.#fault(1002, 'protocol error');
        return this.#fragment(last, payload);
      case Opcode.Ping:
        if (this.readyState === NodeWebSocket.OPEN) this.#write(Opcode.Pong, payload);
        return true;
      case Opcode.Pong:
        return true;
      case Opcode.Close:
        this.#heardClose(payload);
        return undefined;
      case Opcode.Binary:
        return this.#fault(1003, 'binary messages are not supported');
      default:
        return this.#fault(1002, 'protocol error');
    }
  }

  #fragment(last: boolean, payload: Buffer): true | undefined {
    this.#message.push(payload);
    this.#messageBytes += payload.length;
    if (!last) return true;
    const whole = this.#message.length === 1 ? payload : Buffer.concat(this.#message);
    this.#message = [];
    this.#messageBytes = 0;
    let data: string;
    try {
      data = decoder.decode(whole);
    } catch {
      return this.#fault(1007, 'text is not UTF-8');
    }
    if (this.readyState === NodeWebSocket.OPEN) this.onmessage?.({ data });
    return true;
  }

  #heardClose(payload: Buffer): void {
    const code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
    // Our own close, answered, is told as ours.
    this.#ending = { code, reason: payload.subarray(2).toString() };
    this.#clean = true;
    if (this.readyState === NodeWebSocket.OPEN) {
      this.readyState = NodeWebSocket.CLOSING;
      this.#write(Opcode.Close, payload.subarray(0, 2));
    }
    this.#stream?.end();
    this.#closeTimer ??= setTimeout(() => this.#stream?.destroy(), CLOSE_WAIT_MS);
  }

  #sayClose(code: number | undefined, reason: string): void {
    const payload = Buffer.alloc(code === undefined ? 0 : 2 + Buffer.byteLength(reason));
    if (code !== undefined) {
      payload.writeUInt16BE(code);
      payload.write(reason, 2);
    }
    this.#write(Opcode.Close, payload);
    this.#closeTimer ??= setTimeout(() => this.#stream?.destroy(), CLOSE_WAIT_MS);
  }

  #fault(code: number, reason: string): undefined {
    this.#ending = { code, reason };
    if (this.readyState === NodeWebSocket.OPEN) {
      this.readyState = NodeWebSocket.CLOSING;
      this.#sayClose(code, reason);
    }
    this.#stream?.end();
    return undefined;
  }

  #write(opcode: Opcode, payload: Buffer): void {
    const { length } = payload;
    const head = Buffer.alloc(length < 126 ? 2 : length < 65_536 ? 4 : 10);
    head[0] = 128 | opcode;
    head[1] = 128 | (length < 126 ? length : length < 65_536 ? 126 : 127);
    if (head.length === 4) head.writeUInt16BE(length, 2);
    if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2);
    const mask = randomBytes(4);
    const masked = Buffer.allocUnsafe(length);
    for (let place = 0; place < length; place += 1) masked[place] = payload[place]! ^ mask[place & 3]!;
    if (this.#stream?.writable) this.#stream.write(Buffer.concat([head, mask, masked]));
  }
}

type Row = readonly [code: string, message: string, stop?: true];

/** docs/protocol.md, "Refusals". Where another attempt can help there is no `stop`. */
const REFUSALS: Readonly<Record<number, Row>> = {
  400: ['INVALID', 'The server did not accept the handshake; look at the url', true],
  401: ['UNAUTHENTICATED', 'The server did not accept the token; see that both have the same key, and that it has not expired'],
  403: ['FORBIDDEN', 'The server refused this origin or user', true],
  405: ['INVALID', 'There is no WebSocket at this address; look at the url', true],
  408: ['TIMEOUT', 'The handshake took too long; the client tries again'],
  426: ['INVALID', 'There is no WebSocket at this address; look at the url', true],
  429: ['TOO_MANY_CONNECTIONS', 'Too many connections; the client tries again after the stated delay'],
  431: ['INVALID', 'The token is too long for a handshake; let authorize grant patterns, or use the webhook', true],
  503: ['OVERLOADED', 'The server is overloaded or going away; the client tries again after the stated delay'],
};

function refusal(status: number, said: string | undefined, retryAfterMs: number | undefined): Refusal {
  const [code, message, stop] = REFUSALS[status] ?? ['UNAVAILABLE', `The server answered ${status} to the handshake; the client tries again`];
  // A revoked token is refused here as it is closed with 4402 when it is live.
  const revoked = said === 'REVOKED';
  return {
    status,
    code: said ?? code,
    message: revoked ? 'The session was revoked; sign in again, then call connect()' : message,
    stop: stop === true || revoked,
    retryAfterMs,
  };
}
