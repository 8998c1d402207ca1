// One team: what is said, who is writing, who is there. Rooms stay mounted while another one is shown, so that nothing
// that is said in them is missed.

import { useEffect, useRef, useState } from 'react';
import type { PersonView, TeamView } from '../shared/api';
import { teamPipe } from '../shared/events';
import { Avatar } from './Avatar';
import { Members } from './Members';
import { usePipe } from './pipes';
import { useWriters } from './writers';

interface Message {
  number: number;
  sender: string;
  text: string;
  at: Date;
}

const MESSAGES_MAX = 500;

interface Props {
  team: TeamView;
  me: PersonView;
  isOpen: boolean;
  onUnread(): void;
}

export function Room({ team, me, isOpen, onUnread }: Props) {
  const [messages, setMessages] = useState<Message[]>([]);
  const numbers = useRef(0);
  const writers = useWriters();
  const end = useRef<HTMLLIElement>(null);
  const nameOf = (id: string) => team.members.find((member) => member.id === id)?.name ?? id;

  const pipe = usePipe(teamPipe(team.id), {
    message: ({ sender, data, ts }) => {
      if (!sender) return;
      writers.stopped(sender);
      const message = { number: numbers.current++, sender, text: data.text, at: new Date(ts) };
      setMessages((all) => [...all.slice(1 - MESSAGES_MAX), message]);
      if (!isOpen) onUnread();
    },
    typing: ({ sender, data }) => {
      if (!sender || sender === me.id) return;
      if (data.active) writers.started(sender);
      else writers.stopped(sender);
    },
  });

  useEffect(() => {
    end.current?.scrollIntoView({ block: 'end' });
  }, [messages, isOpen]);

  return (
    <section className="room" hidden={!isOpen} aria-label={team.name}>
      <div className="talk">
        <h2># {team.name}</h2>
        <ol aria-label="Messages">
          {messages.map(({ number, sender, text, at }) => (
            <li key={number} data-mine={sender === me.id}>
              <Avatar id={sender} name={nameOf(sender)} />
              <div>
                <strong>{nameOf(sender)}</strong> <time>{at.toLocaleTimeString([], { timeStyle: 'short' })}</time>
                <p>{text}</p>
              </div>
            </li>
          ))}
          <li ref={end} className="writing" aria-live="polite">
            {writers.all.length > 0 && `${writers.all.map(nameOf).join(', ')} is writing…`}
          </li>
        </ol>
        {pipe.error && <p className="error">{pipe.error.message}</p>}
        <Composer
          onSend={(text) => pipe.publish('message', { text })}
          onWriting={(active) => void pipe.publish('typing', { active }, { echo: false }).catch(() => undefined)}
        />
      </div>
      <Members team={team} me={me} />
    </section>
  );
}

/** At most one `typing` in this time; receivers forget a writer after a little more. */
const TYPING_EVERY_MS = 2000;

function Composer({ onSend, onWriting }: { onSend(text: string): Promise<void>; onWriting(active: boolean): void }) {
  const [text, setText] = useState('');
  const [error, setError] = useState('');
  const toldAt = useRef(0);

  const write = (value: string) => {
    setText(value);
    setError('');
    if (value === '' || Date.now() - toldAt.current < TYPING_EVERY_MS) return;
    toldAt.current = Date.now();
    onWriting(true);
  };
  const send = () => {
    if (text.trim() === '') return;
    toldAt.current = 0;
    setText('');
    // What could not be sent is given back, unless the next line was begun already.
    onSend(text).catch((reason: Error) => {
      setText((now) => now || text);
      setError(reason.message);
    });
  };

  return (
    <form
      onSubmit={(submit) => {
        submit.preventDefault();
        send();
      }}
    >
      {error && <p className="error">{error}</p>}
      <input
        value={text}
        onChange={(change) => write(change.target.value)}
        onBlur={() => {
          if (toldAt.current) onWriting(false);
          toldAt.current = 0;
        }}
        maxLength={2000}
        placeholder="Write a message"
        aria-label="Message"
      />
      <button>Send</button>
    </form>
  );
}
