import { useState } from 'react';
import type { Me } from '../shared/api';
import { Announcements } from './Announcements';
import { post } from './api';
import { Avatar } from './Avatar';
import { Notices } from './Notices';
import { useStatus } from './pipes';
import { Room } from './Room';

export function Chat({ me: { person, teams } }: { me: Me }) {
  const [open, setOpen] = useState(teams[0]?.id);
  const [unread, setUnread] = useState<Record<string, number>>({});
  const status = useStatus();

  const show = (team: string) => {
    setOpen(team);
    setUnread((counts) => ({ ...counts, [team]: 0 }));
  };
  // Out of the team means out of this browser as well: the next session starts with a page that knows nothing.
  const signOut = () => void post('/api/sign-out').finally(() => location.reload());

  return (
    <div className="chat">
      <aside className="side">
        <h1>Team chat</h1>
        <p className="status" data-status={status} role="status">
          {status}
        </p>
        <nav aria-label="Teams">
          {teams.map(({ id, name, removed }) => (
            <button key={id} aria-current={id === open} data-removed={removed} onClick={() => show(id)}>
              <span># {name}</span>
              {removed && <span className="tag">removed</span>}
              {!removed && !!unread[id] && <span className="count">{unread[id]}</span>}
            </button>
          ))}
        </nav>
        <footer>
          <Avatar id={person.id} name={person.name} />
          <span>
            {person.name}
            {person.isAdmin && <span className="tag">admin</span>}
          </span>
          <button onClick={signOut}>Sign out</button>
        </footer>
      </aside>
      <main>
        <Announcements canWrite={person.isAdmin} />
        {teams.map((team) =>
          team.removed ? (
            <section key={team.id} className="removed" hidden={team.id !== open}>
              <h2># {team.name}</h2>
              <p>You were removed from this team. Nothing of it reaches you until an admin lets you back in.</p>
            </section>
          ) : (
            <Room
              key={team.id}
              team={team}
              me={person}
              isOpen={team.id === open}
              onUnread={() => setUnread((counts) => ({ ...counts, [team.id]: (counts[team.id] ?? 0) + 1 }))}
            />
          ),
        )}
      </main>
      <Notices />
    </div>
  );
}
