// Sessions in a cookie that scripts cannot read. The session's id also goes into the tokens (`sid`), so that signing out
// ends the connections which were opened with them.

import { randomBytes } from 'node:crypto';
import type { Person } from './people';

const LIFE_MS = 12 * 3600 * 1000;
const SESSIONS_MAX = 10_000;
const COOKIE = 'team_chat_session';

export interface Session {
  id: string;
  person: Person;
  expiresAt: number;
}

export class Sessions {
  /** In the order of their making, so that the oldest is the first. */
  readonly #live = new Map<string, Session>();

  create(person: Person): Session {
    if (this.#live.size >= SESSIONS_MAX) this.#live.delete(this.#live.keys().next().value!);
    const session = { id: randomBytes(24).toString('base64url'), person, expiresAt: Date.now() + LIFE_MS };
    this.#live.set(session.id, session);
    return session;
  }

  of(request: Request): Session | undefined {
    const id = new RegExp(`(?:^|; )${COOKIE}=([^;]*)`).exec(request.headers.get('cookie') ?? '')?.[1];
    const session = id === undefined ? undefined : this.#live.get(id);
    if (!session || session.expiresAt > Date.now()) return session;
    this.#live.delete(session.id);
    return undefined;
  }

  end(session: Session): void {
    this.#live.delete(session.id);
  }

  // Behind TLS, as in production, `Secure` belongs here too.
  static cookie(session: Session): string {
    return `${COOKIE}=${session.id}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${LIFE_MS / 1000}`;
  }

  static readonly noCookie = `${COOKIE}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0`;
}
