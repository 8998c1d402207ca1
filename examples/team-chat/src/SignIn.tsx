import { useEffect, useState } from 'react';
import type { PersonView } from '../shared/api';
import { get, post } from './api';
import { Avatar } from './Avatar';
import { loadMe } from './me';

export function SignIn() {
  const [people, setPeople] = useState<PersonView[]>([]);
  const [error, setError] = useState('');
  const failed = (reason: Error) => setError(reason.message);
  useEffect(() => void get<PersonView[]>('/api/people').then((all) => setPeople(all ?? []), failed), []);
  return (
    <main className="sign-in">
      <h1>Team chat</h1>
      <p>Who are you? Open a private window to be somebody else there.</p>
      <ul>
        {people.map(({ id, name, isAdmin }) => (
          <li key={id}>
            <button onClick={() => void post('/api/sign-in', { person: id }).then(loadMe).catch(failed)}>
              <Avatar id={id} name={name} />
              {name}
              {isAdmin && <span className="tag">admin</span>}
            </button>
          </li>
        ))}
      </ul>
      {error && <p className="error">{error}</p>}
    </main>
  );
}
