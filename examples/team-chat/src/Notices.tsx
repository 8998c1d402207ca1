import { useRef, useState } from 'react';
import { usePush } from './pipes';

const SHOWN_MS = 8000;

/** What the application tells this person alone. It is pushed to all of their devices, whichever pipes they have open. */
export function Notices() {
  const [notices, setNotices] = useState<{ number: number; text: string }[]>([]);
  const numbers = useRef(0);

  usePush('notice', ({ sender, data }) => {
    if (sender !== null) return; // the application's only
    const notice = { number: numbers.current++, text: data.text };
    setNotices((shown) => [...shown.slice(-3), notice]);
    setTimeout(() => setNotices((shown) => shown.filter((other) => other !== notice)), SHOWN_MS);
  });

  return (
    <ul className="notices" aria-live="polite" aria-label="Notices">
      {notices.map(({ number, text }) => (
        <li key={number}>{text}</li>
      ))}
    </ul>
  );
}
