// The application: sessions, people, teams, and the calls that change who may do what. Messages never pass through here;
// the edge carries them, and knows from `authorize` and `pipeAdmin` who may see them.

import { createPipeHandler, nodeHandler, pipeAdmin, PipewardError } from 'pipeward/server';
import type { Me } from '../shared/api';
import { teamPipe } from '../shared/events';
import { authorizer } from './authorize';
import { body } from './body';
import { page } from './page';
import { People, type Person, type Team } from './people';
import { Refusal } from './refusal';
import { Sessions, type Session } from './sessions';

export interface Settings {
  /** Where browsers find the edge, and where the application finds its server API. */
  edge: string;
  control: string;
  apiKey: string;
  tokenSecret: string;
  /** The built page. */
  page: string;
}

type Handler = (request: Request) => Promise<Response>;

export function teamChat(settings: Settings) {
  const people = new People();
  const sessions = new Sessions();
  const admin = pipeAdmin({ url: settings.control, key: settings.apiKey });
  const token = createPipeHandler({
    secret: settings.tokenSecret,
    authorize: authorizer(people, sessions),
    tokenExpiry: '5m',
  });

  const open: Record<string, Handler> = {
    'GET /api/people': async () => Response.json(people.all.map(view)),

    // A real application asks for a password here, or sends people to an identity provider.
    'POST /api/sign-in': async (request) => {
      const person = people.find((await body(request)).person);
      if (!person) throw new Refusal(404, 'There is nobody of this name');
      return Response.json(null, { headers: { 'set-cookie': Sessions.cookie(sessions.create(person)) } });
    },

    'POST /api/pipe': token,
  };

  const signedIn: Record<string, (request: Request, session: Session) => Promise<Response>> = {
    'GET /api/me': async (_, { person }) => {
      const teams = people.teamsOf(person).map((team) => ({
        id: team.id,
        name: team.name,
        removed: people.isRemoved(team, person),
        members: team.members.map((member) => ({
          id: member.id,
          name: member.name,
          removed: people.isRemoved(team, member),
        })),
      }));
      return Response.json({ person: view(person), teams } satisfies Me);
    },

    // The session's tokens end with it, and so do the connections that were opened with them.
    'POST /api/sign-out': async (_, session) => {
      sessions.end(session);
      await admin.revokeTokens({ session: session.id });
      return Response.json(null, { headers: { 'set-cookie': Sessions.noCookie } });
    },

    'POST /api/nudge': async (request, { person }) => {
      const asked = await body(request);
      const team = people.team(asked.team, person);
      const other = people.find(asked.person);
      if (!team || people.isRemoved(team, person) || !other || !team.members.includes(other)) {
        throw new Refusal(403, 'You can nudge people of your teams only');
      }
      const text = `${person.name} nudges you in ${team.name}`;
      await admin.push({ user: other.id }, 'notice', { text }).catch((error: unknown) => {
        const offline = error instanceof PipewardError && error.code === 'NOT_CONNECTED';
        throw offline ? new Refusal(409, `${other.name} is not online`) : error;
      });
      return Response.json(null);
    },

    // First the truth, from which new tokens are made, then the edge. When `revoke` has answered, it holds on every
    // connection of this person, on those to come, and across a restart.
    'POST /api/remove': async (request, { person }) => {
      const { team, other } = await membership(request, person);
      if (other === person) throw new Refusal(409, 'You cannot remove yourself');
      people.setRemoved(team, other, true);
      await admin.revoke(other.id, teamPipe(team.id));
      await admin.notify({ user: other.id }, 'notice', { text: `${person.name} removed you from ${team.name}` });
      return Response.json(null);
    },

    'POST /api/restore': async (request, { person }) => {
      const { team, other } = await membership(request, person);
      people.setRemoved(team, other, false);
      await admin.restore(other.id, teamPipe(team.id));
      await admin.notify({ user: other.id }, 'notice', { text: `${person.name} let you back into ${team.name}` });
      return Response.json(null);
    },
  };

  /** The team and the person that an admin names. */
  async function membership(request: Request, person: Person): Promise<{ team: Team; other: Person }> {
    if (person.role !== 'admin') throw new Refusal(403, 'Admins only');
    const asked = await body(request);
    const other = people.find(asked.person);
    const team = other && people.team(asked.team, other);
    if (!other || !team) throw new Refusal(404, 'There is no such member');
    return { team, other };
  }

  async function answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (!pathname.startsWith('/api/')) return page(settings.page, settings.edge, request);
    if (request.method === 'POST' && !isSameOrigin(request)) throw new Refusal(403, 'Not from another site');
    const call = `${request.method} ${pathname}`;
    if (Object.hasOwn(open, call)) return open[call]!(request);
    if (!Object.hasOwn(signedIn, call)) throw new Refusal(404, 'There is no such call');
    const session = sessions.of(request);
    if (!session) throw new Refusal(401, 'Sign in first');
    return signedIn[call]!(request, session);
  }

  return nodeHandler((request) =>
    answer(request).catch((error: unknown) => {
      if (error instanceof Refusal) return Response.json({ error: error.message }, { status: error.status });
      if (error instanceof PipewardError) {
        console.error(`pipeward: ${error.code}: ${error.message}`);
        return Response.json({ error: 'The realtime server did not take it; try again' }, { status: 502 });
      }
      console.error(error);
      return Response.json({ error: 'Something is wrong here; try again' }, { status: 500 });
    }),
  );
}

const view = (person: Person) => ({ id: person.id, name: person.name, isAdmin: person.role === 'admin' });

/** Browsers send `Origin` with every POST; a page elsewhere cannot hide or fake it. */
function isSameOrigin(request: Request): boolean {
  const origin = request.headers.get('origin');
  return origin === null || (URL.canParse(origin) && new URL(origin).host === request.headers.get('host'));
}
