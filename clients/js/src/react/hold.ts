/**
 * Letting go a moment later.
 *
 * React's strict mode and fast refresh run an effect's cleanup and the effect again in one go. What is let go only after
 * that never notices.
 */

import type { Off } from '../core/types.js';

/** What a provider needs of a client. */
interface Connectable {
  connect(): void;
  close(): void;
}

const holders = new WeakMap<Connectable, number>();

/** Keeps a client connected until everybody who holds it has let go. */
export function hold(client: Connectable): Off {
  const count = (by: number) => {
    const now = (holders.get(client) ?? 0) + by;
    holders.set(client, now);
    return now;
  };
  // Only the first: one that the server has sent away for good is not to be brought back by a component further down.
  if (count(1) === 1) client.connect();
  return later(() => {
    if (count(-1) === 0) client.close();
  });
}

/** Calls `off` soon after it was asked to, once. */
export function later(off: Off): Off {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    setTimeout(off, 0);
  };
}
