/** The SharedWorker that has the connection of all tabs: one for each address and `shareKey`. */

import { WireEngine } from '../core/engine.js';
import { PipewardError } from '../core/error.js';
import { Hub } from './hub.js';
import { newId, type FromTab } from './messages.js';

const hub = new Hub({ engine: (options, sink) => new WireEngine(options, sink), PipewardError });

// The types of a SharedWorker's own scope exclude those of a page, and a package has both.
(globalThis as unknown as { onconnect: (event: MessageEvent) => void }).onconnect = ({ ports: [port] }) => {
  if (!port) return;
  const tab = newId();
  port.onmessage = ({ data }: MessageEvent<FromTab>) => hub.heard(tab, data, (answer) => port.postMessage(answer));
  // Where the runtime tells that a page died; elsewhere it is noticed when it gives no token.
  port.addEventListener('close', () => hub.gone(tab));
  port.postMessage({ t: 'ready', hub: hub.id });
};
