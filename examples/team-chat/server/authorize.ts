// Who may do what. This is the one function that every token of the edge comes from; what it does not name is refused.

import type { Authorization, Grants } from 'pipeward/server';
import { ANNOUNCEMENTS, teamPipe } from '../shared/events';
import type { People } from './people';
import type { Sessions } from './sessions';

export function authorizer(people: People, sessions: Sessions) {
  return (request: Request): Authorization | null => {
    const session = sessions.of(request);
    if (!session) return null;
    const { person } = session;
    const isAdmin = person.role === 'admin';
    const pipes: Grants = { [ANNOUNCEMENTS]: { subscribe: true, publish: isAdmin } };
    for (const team of people.teamsOf(person)) {
      if (people.isRemoved(team, person)) continue;
      pipes[teamPipe(team.id)] = { subscribe: true, publish: true, presence: true };
    }
    return { user: { id: person.id, name: person.name, role: person.role }, pipes, session: session.id };
  };
}
