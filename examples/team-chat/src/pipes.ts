// The one connection to the edge, and what the application does when its permissions change.

import { createPipeClient } from 'pipeward/react';
import { events } from '../shared/events';
import { loadMe, removedFrom } from './me';

export const { PipeProvider, usePipe, usePresence, usePush, useStatus, refreshPipeAuth } = createPipeClient({
  url: document.querySelector<HTMLMetaElement>('meta[name=edge]')!.content,
  getToken: '/api/pipe',
  events,
  onPipeRevoked: removedFrom,
  onAllPipesRevoked: () => void loadMe(),
  // Tokens made while the person was out do not name the team: get one that does before the room opens again. If there is
  // none, the room says so.
  onPipeRestored: () =>
    void refreshPipeAuth()
      .catch(() => undefined)
      .then(loadMe),
});
