import { useState } from 'react';
import type { PersonView, TeamView } from '../shared/api';
import { teamPipe } from '../shared/events';
import { post } from './api';
import { Avatar } from './Avatar';
import { loadMe } from './me';
import { usePresence } from './pipes';

/** Who belongs to a team and who is there now; an admin removes people here and lets them back in. */
export function Members({ team, me }: { team: TeamView; me: PersonView }) {
  const { members: present } = usePresence(teamPipe(team.id));
  const [error, setError] = useState('');
  const ask = (call: string, person: string) => {
    setError('');
    post(call, { team: team.id, person }).then(loadMe, (reason: Error) => setError(reason.message));
  };

  return (
    <aside className="members" aria-label="Members">
      <h3>Members</h3>
      <ul>
        {team.members.map(({ id, name, removed }) => {
          const isPresent = present.some((member) => member.user === id);
          return (
            <li key={id} data-removed={removed}>
              <Avatar id={id} name={name} present={isPresent} />
              <span>
                {name}
                <small>{removed ? 'removed' : isPresent ? 'online' : 'away'}</small>
              </span>
              {id !== me.id && isPresent && (
                <button onClick={() => ask('/api/nudge', id)} aria-label={`Nudge ${name}`}>
                  Nudge
                </button>
              )}
              {id !== me.id && me.isAdmin && (
                <button
                  onClick={() => ask(removed ? '/api/restore' : '/api/remove', id)}
                  aria-label={`${removed ? 'Restore' : 'Remove'} ${name}`}
                >
                  {removed ? 'Restore' : 'Remove'}
                </button>
              )}
            </li>
          );
        })}
      </ul>
      {error && <p className="error">{error}</p>}
    </aside>
  );
}
