// Who is signed in, and which teams they are in at this moment: a store outside of React, because the edge changes it too.

import { useSyncExternalStore } from 'react';
import type { Me } from '../shared/api';
import { teamPipe } from '../shared/events';
import { get } from './api';

/** undefined: not known yet; null: nobody is signed in. */
let me: Me | null | undefined;
const listeners = new Set<() => void>();

function set(next: Me | null): void {
  me = next;
  for (const listener of listeners) listener();
}

export const useMe = (): Me | null | undefined =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => me,
  );

export async function loadMe(): Promise<void> {
  set(await get<Me>('/api/me'));
}

/** The edge has taken a team away. It is not asked of the application, which may be slower. */
export function removedFrom(pipe: string): void {
  if (!me) return;
  set({ ...me, teams: me.teams.map((team) => (teamPipe(team.id) === pipe ? { ...team, removed: true } : team)) });
}
