/**
 * One engine for several tabs. What they want of a pipe is joined, what arrives is given to those who want it, and what a
 * tab asks is answered to that tab alone.
 *
 * Invariant: when the engine stops for good, every tab is let go: none of them is connected again by what another one does,
 * which may be signed in as somebody else by then.
 */

import type { Engine, Session, Sink } from '../core/engine.js';
import type { PipewardError } from '../core/error.js';
import type { Frame } from '../core/protocol.js';
import type { Wish } from '../core/subscriptions.js';
import type { PipeStatus, PresenceState, Status, TokenReason, WebSocketClass } from '../core/types.js';
import { newId, plain, type Core, type FromHub, type FromTab, type PlainDetail, type PlainOptions } from './messages.js';

interface Tab {
  readonly post: (message: FromHub) => void;
  readonly wants: Map<string, Wish>;
  /** It gave no token when it was asked. */
  silent: boolean;
}

interface Known {
  status: PipeStatus;
  error: PipewardError | undefined;
  presence: PresenceState | undefined;
}

/** A tab that gives no token in this time is passed over: it may be frozen, or gone without a word. */
const TAB_TOKEN_WAIT_MS = 8_000;

export class Hub {
  readonly id = newId();
  readonly #core: Core;
  readonly #socketClass: WebSocketClass | undefined;
  readonly #tabs = new Map<string, Tab>();
  readonly #pipes = new Map<string, Known>();
  /** What the engine was last told. */
  readonly #joined = new Map<string, Wish>();
  readonly #tokens = new Map<number, (message: Extract<FromTab, { t: 'token' }>) => void>();
  #engine: Engine | undefined;
  #status: { status: Status; detail: PlainDetail; session: Session | null } = { status: 'idle', detail: {}, session: null };
  #lastToken = 0;

  constructor(core: Core, socketClass?: WebSocketClass) {
    this.#core = core;
    this.#socketClass = socketClass;
  }

  /** A message of a tab. `post` answers it. */
  heard(from: string, message: FromTab, post: (message: FromHub) => void): void {
    if (message.t === 'who') return post({ t: 'ready', hub: this.id });
    if (message.t === 'hello') return this.#hello(from, message.options, message.wants, post);
    if (message.t === 'token') return this.#tokens.get(message.id)?.(message);
    const tab = this.#tabs.get(from);
    if (!tab) return;
    if (message.t === 'bye') this.gone(from);
    else if (message.t === 'want') this.#want(tab, message.pipe, message.wish);
    else this.#ask(tab, message);
  }

  /** A tab was closed, or does not take part any more. */
  gone(from: string): void {
    const tab = this.#tabs.get(from);
    if (!this.#tabs.delete(from) || !tab) return;
    for (const pipe of tab.wants.keys()) this.#join(pipe, false);
    if (this.#tabs.size === 0) this.#engine?.close();
  }

  #hello(from: string, options: PlainOptions, wants: ReadonlyMap<string, Wish>, post: Tab['post']): void {
    const before = this.#tabs.get(from);
    // Last in the map: it is asked for a token first, being the one that was used last.
    this.#tabs.delete(from);
    const tab: Tab = { post, wants: new Map(wants), silent: false };
    this.#tabs.set(from, tab);
    this.#engine ??= this.#core.engine({ ...options, WebSocket: this.#socketClass }, this.#sink());
    this.#engine.connect();
    post({ t: 'status', ...this.#status });
    for (const pipe of new Set([...(before?.wants.keys() ?? []), ...wants.keys()])) {
      this.#join(pipe);
      this.#tell(tab, pipe);
    }
  }

  #want(tab: Tab, pipe: string, wish: Wish | null): void {
    if (wish) tab.wants.set(pipe, wish);
    else tab.wants.delete(pipe);
    this.#join(pipe, wish !== null);
    if (wish) this.#tell(tab, pipe);
    else tab.post({ t: 'pipe', pipe, status: 'idle' });
  }

  /** What all tabs together want of a pipe. That one of them leaves is no reason to ask anew for what the server has ended. */
  #join(pipe: string, anew = true): void {
    const wishes = [...this.#tabs.values()].flatMap(({ wants }) => wants.get(pipe) ?? []);
    const [events, presence] = [wishes.some((wish) => wish.events), wishes.some((wish) => wish.presence)];
    const before = this.#joined.get(pipe);
    if (wishes.length === 0) {
      this.#pipes.delete(pipe);
      this.#joined.delete(pipe);
      this.#engine?.want(pipe, null);
    } else if (anew || before?.events !== events || before.presence !== presence) {
      this.#joined.set(pipe, { events, presence });
      this.#engine?.want(pipe, { events, presence });
    }
  }

  /** How a pipe stands, for a tab that comes to it later than others. */
  #tell(tab: Tab, pipe: string): void {
    const known = this.#pipes.get(pipe);
    if (!known) return;
    tab.post({ t: 'pipe', pipe, status: known.status, error: known.error && plain(known.error) });
    if (known.presence && tab.wants.get(pipe)?.presence) tab.post({ t: 'presence', pipe, state: { ...known.presence, joined: [], left: [] } });
  }

  #ask(tab: Tab, message: Extract<FromTab, { t: 'ask' | 'refresh' }>): void {
    const { id } = message;
    const answer: Promise<Frame> = message.t === 'ask' ? this.#engine!.request(message.message) : this.#engine!.refresh().then(() => ({}));
    answer.then(
      (reply) => tab.post({ t: 'answer', id, reply }),
      (error: unknown) => tab.post({ t: 'answer', id, error: plain(error) }),
    );
  }

  #sink(): Sink {
    const all = (message: FromHub) => this.#tabs.forEach((tab) => tab.post(message));
    const those = (pipe: string, wants: (wish: Wish) => boolean, message: FromHub) => {
      for (const tab of this.#tabs.values()) {
        const wish = tab.wants.get(pipe);
        if (wish && wants(wish)) tab.post(message);
      }
    };
    const known = (pipe: string): Known => {
      const found = this.#pipes.get(pipe) ?? { status: 'idle', error: undefined, presence: undefined };
      this.#pipes.set(pipe, found);
      return found;
    };
    return {
      status: (status, { error, ...detail }, session) => {
        this.#status = { status, detail: { ...detail, ...(error && { error: plain(error) }) }, session };
        all({ t: 'status', ...this.#status });
        if (status !== 'disconnected') return;
        const tabs = [...this.#tabs.values()];
        this.#tabs.clear();
        for (const { wants } of tabs) for (const pipe of wants.keys()) this.#join(pipe);
      },
      frame: (frame) => {
        const message: FromHub = { t: 'frame', frame };
        if (frame.type === 'event') those(String(frame.pipe), ({ events }) => events, message);
        else all(message);
      },
      pipe: (pipe, status, error) => {
        if (status === 'idle') this.#pipes.delete(pipe);
        else Object.assign(known(pipe), { status, error });
        those(pipe, () => true, { t: 'pipe', pipe, status, error: error && plain(error) });
      },
      presence: (pipe, state) => {
        known(pipe).presence = state;
        those(pipe, ({ presence }) => presence, { t: 'presence', pipe, state });
      },
      error: (error) => all({ t: 'error', error: plain(error) }),
      token: (reason) => this.#token(reason),
    };
  }

  /** Asks the tab that was used last; those that gave no answer before come after the others. */
  async #token(reason: TokenReason): Promise<string | null> {
    const asked = new Set<Tab>();
    for (;;) {
      const tabs = [...this.#tabs.values()].reverse().filter((tab) => !asked.has(tab));
      const tab = tabs.find(({ silent }) => !silent) ?? tabs[0];
      if (!tab) throw new this.#core.PipewardError('UNAVAILABLE', 'No tab gave a token');
      asked.add(tab);
      const id = ++this.#lastToken;
      const found = await new Promise<Extract<FromTab, { t: 'token' }> | undefined>((resolve) => {
        const timer = setTimeout(resolve, TAB_TOKEN_WAIT_MS);
        this.#tokens.set(id, (message) => {
          clearTimeout(timer);
          resolve(message);
        });
        tab.post({ t: 'token', id, reason });
      });
      this.#tokens.delete(id);
      tab.silent = !found;
      if (found?.error) throw new this.#core.PipewardError(found.error.code, found.error.message, found.error);
      if (found) return found.token ?? null;
    }
  }
}
