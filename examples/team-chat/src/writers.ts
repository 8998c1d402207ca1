import { useEffect, useRef, useState } from 'react';

/** Somebody who says nothing more about it has stopped: a little longer than the time between two `typing` events. */
const FORGOTTEN_MS = 3000;

/** Who is writing at this moment. */
export function useWriters() {
  const [all, setAll] = useState<string[]>([]);
  const timers = useRef(new Map<string, ReturnType<typeof setTimeout>>());

  useEffect(() => {
    const running = timers.current;
    return () => {
      for (const timer of running.values()) clearTimeout(timer);
      running.clear();
    };
  }, []);

  const stopped = (user: string) => {
    clearTimeout(timers.current.get(user));
    timers.current.delete(user);
    setAll((writers) => (writers.includes(user) ? writers.filter((writer) => writer !== user) : writers));
  };
  const started = (user: string) => {
    clearTimeout(timers.current.get(user));
    timers.current.set(
      user,
      setTimeout(() => stopped(user), FORGOTTEN_MS),
    );
    setAll((writers) => (writers.includes(user) ? writers : [...writers, user]));
  };
  return { all, started, stopped };
}
