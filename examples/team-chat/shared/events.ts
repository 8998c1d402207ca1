// Names and payloads of everything that travels, for both sides: a misspelt event or a wrong payload does not compile, and
// what arrives is checked before a handler sees it.

import { defineEvents } from 'pipeward';
import * as v from 'valibot';

const text = v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(2000));

export const events = defineEvents({
  /** In `team-{id}`, from one member to all. */
  message: v.object({ text }),
  /** In `team-{id}`: a member is writing, or is not any more. */
  typing: v.object({ active: v.boolean() }),
  /** In `announcements`, from the admin to everybody. */
  announcement: v.object({ text }),
  /** Pushed by the application to one person, on all of their devices. */
  notice: v.object({ text }),
});

export const ANNOUNCEMENTS = 'announcements';

export const teamPipe = (team: string): string => `team-${team}`;
