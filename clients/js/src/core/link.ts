/**
 * One connection, from the first byte to its end.
 *
 * Invariant: `ended` is called exactly once unless `drop` came first, and nothing is called after either. A link never
 * reconnects: that is the engine's.
 *
 * A browser does not show pings, so a connection that died without a word (a closed laptop, a changed network) is found by
 * asking: after `ping_s` of silence, and whenever there is reason to doubt, `ping` must be answered in time.
 */

import { millis, parse, SUBPROTOCOL, type Ending, type Frame } from './protocol.js';
import type { SocketLike, WebSocketClass } from './types.js';

export interface LinkEvents {
  welcome(frame: Frame): void;
  frame(frame: Frame): void;
  ended(ending: Ending): void;
}

/** From the handshake to the welcome. */
const WELCOME_WAIT_MS = 15_000;
/** How long a `pong` is awaited. */
const PONG_WAIT_MS = 8_000;
/** A timer that comes later than this was held up: the machine slept, or the tab was frozen. */
const LATE_MS = 5_000;

const LOST_CODE = 1006;
const OPEN = 1;

export class Link {
  /** When the server said welcome; 0 before. Unix milliseconds. */
  welcomedAt = 0;
  #socket: SocketLike;
  #events: LinkEvents | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #heardAt = 0;
  #silenceMs = 25_000;
  #probing = false;

  /** Throws what the WebSocket class throws for an address or a token that it cannot use. */
  constructor(socketClass: WebSocketClass, url: string, token: string | null, events: LinkEvents) {
    this.#socket = new socketClass(url, token === null ? [SUBPROTOCOL] : [SUBPROTOCOL, `pipeward.token.${token}`]);
    this.#events = events;
    this.#socket.onmessage = (event: { data?: unknown }) => this.#received(event?.data);
    this.#socket.onclose = (event: Partial<Ending> | undefined) =>
      this.#end({ code: event?.code ?? LOST_CODE, reason: String(event?.reason ?? ''), refusal: event?.refusal });
    // What matters of an error is told by the close that follows it.
    this.#socket.onerror = () => undefined;
    this.#wait(WELCOME_WAIT_MS, () => this.#abandon('no welcome'));
  }

  get ready(): boolean {
    return this.welcomedAt > 0 && this.#events !== undefined && this.#socket.readyState === OPEN;
  }

  /** Whether it was handed to the socket. */
  send(text: string): boolean {
    if (!this.ready) return false;
    try {
      this.#socket.send(text);
      return true;
    } catch {
      return false;
    }
  }

  /** Asks for a sign of life, unless one is being waited for. */
  probe(): void {
    if (!this.ready || this.#probing) return;
    this.#probing = true;
    this.send('{"type":"ping"}');
    const due = Date.now() + PONG_WAIT_MS;
    this.#wait(PONG_WAIT_MS, () => {
      // Held up itself, the timer proves nothing about the server.
      if (Date.now() - due <= LATE_MS) return this.#abandon('no answer');
      this.#probing = false;
      this.probe();
    });
  }

  /** Ends it without a call of `ended`. */
  drop(): void {
    clearTimeout(this.#timer);
    if (!this.#events) return;
    this.#events = undefined;
    try {
      this.#socket.close(1000);
    } catch {
      // Already closed, or never opened: it is gone either way.
    }
  }

  #received(data: unknown): void {
    if (!this.#events) return;
    const frame = parse(data);
    if (this.welcomedAt) {
      this.#heard();
      if (frame) this.#events.frame(frame);
    } else if (frame?.type === 'welcome') {
      this.welcomedAt = Date.now();
      this.#silenceMs = Math.max(1_000, millis(Number(frame.ping_s) * 1_000) ?? this.#silenceMs);
      this.#heardAt = this.welcomedAt;
      this.#watch(this.#silenceMs);
      this.#events.welcome(frame);
    }
  }

  #heard(): void {
    this.#heardAt = Date.now();
    // Otherwise the timer is left running and looks at #heardAt when it fires: frames are many.
    if (this.#probing) this.#watch(this.#silenceMs);
    this.#probing = false;
  }

  #watch(inMs: number): void {
    const due = Date.now() + inMs;
    this.#wait(inMs, () => {
      const now = Date.now();
      const silence = now - this.#heardAt;
      if (silence >= this.#silenceMs || now - due > LATE_MS || silence < 0) this.probe();
      else this.#watch(this.#silenceMs - silence);
    });
  }

  #wait(inMs: number, then: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, inMs);
  }

  #abandon(reason: string): void {
    const events = this.#events;
    this.drop();
    events?.ended({ code: LOST_CODE, reason });
  }

  #end(ending: Ending): void {
    clearTimeout(this.#timer);
    const events = this.#events;
    this.#events = undefined;
    events?.ended(ending);
  }
}
