import { useState } from 'react';
import { ANNOUNCEMENTS } from '../shared/events';
import { usePipe } from './pipes';

/** Everybody reads them; the edge lets only an admin write. */
export function Announcements({ canWrite }: { canWrite: boolean }) {
  const [latest, setLatest] = useState('');
  const [draft, setDraft] = useState('');
  const { publish, error } = usePipe(ANNOUNCEMENTS, { announcement: ({ data }) => setLatest(data.text) });
  const [refused, setRefused] = useState('');

  const announce = () => {
    publish('announcement', { text: draft }).then(
      () => setDraft(''),
      (reason: Error) => setRefused(reason.message),
    );
  };

  return (
    <header className="announcements" aria-label="Announcements">
      {latest && (
        <p role="status">
          <strong>News</strong> {latest}
          <button onClick={() => setLatest('')} aria-label="Dismiss">
            ×
          </button>
        </p>
      )}
      {canWrite && (
        <form
          onSubmit={(submit) => {
            submit.preventDefault();
            setRefused('');
            if (draft.trim()) announce();
          }}
        >
          <input
            value={draft}
            onChange={(change) => setDraft(change.target.value)}
            maxLength={2000}
            placeholder="Announce something to everybody"
            aria-label="Announcement"
          />
          <button>Announce</button>
        </form>
      )}
      {(refused || error) && <p className="error">{refused || error?.message}</p>}
    </header>
  );
}
