/**
 * Tabs that share one connection, if asked to: by a SharedWorker, or by a tab that all agree on (Web Locks) and a
 * BroadcastChannel. Loaded only where `share` is set.
 *
 * Where the runtime lacks what is needed, each tab has a connection of its own. Tabs find each other by address and
 * `shareKey`; the browser keeps origins apart.
 */

import type { Engine, EngineOptions, Sink } from '../core/engine.js';
import { Hub } from './hub.js';
import { newId, type Core, type FromHub, type FromTab, type PlainOptions, type Wire } from './messages.js';
import { TabEngine } from './tab.js';

type Envelope = { readonly to: string; readonly from: string; readonly message: FromHub | FromTab };
const HUB = 'hub';
/** A worker that is there says so at once; loading it takes one request. */
const WORKER_WAIT_MS = 5_000;

/** Rejected where sharing was promised by the runtime and does not work, such as a worker that a policy of the page forbids. */
export async function open(
  mode: 'sharedworker' | 'broadcast',
  key: string | undefined,
  options: EngineOptions,
  sink: Sink,
  core: Core,
): Promise<Engine> {
  const { url, offline, timeoutMs, hasToken } = options;
  const plainOptions: PlainOptions = { url: new URL(url, globalThis.location?.href).href, offline, timeoutMs, hasToken };
  const name = `pipeward ${plainOptions.url} ${key ?? ''}`;
  if (mode === 'sharedworker' && typeof SharedWorker === 'function') return pageEngine(await workerWire(name), plainOptions, sink, core);
  if (typeof BroadcastChannel === 'function' && globalThis.navigator?.locks) {
    // Where a page may have no locks (a sandboxed frame) this is rejected.
    await navigator.locks.query();
    const id = newId();
    lead(name, options, core);
    return pageEngine(broadcastWire(name, id), plainOptions, sink, core);
  }
  return core.engine(options, sink);
}

/** A tab that is closed or put into the back-forward cache takes part no more until it is shown again. */
function pageEngine(wire: Wire<FromTab, FromHub>, options: PlainOptions, sink: Sink, core: Core): TabEngine {
  const engine = new TabEngine(wire, options, sink, core);
  globalThis.addEventListener?.('pagehide', () => engine.pause());
  globalThis.addEventListener?.('pageshow', (event) => (event as PageTransitionEvent).persisted && engine.resume());
  return engine;
}

/** Once the worker has said a first word: one that cannot be loaded says nothing. */
function workerWire(name: string): Promise<Wire<FromTab, FromHub>> {
  return new Promise((resolve, reject) => {
    // In this form bundlers find the worker and build it.
    const worker = new SharedWorker(new URL('./worker.js', import.meta.url), { type: 'module', name });
    const { port } = worker;
    const timer = setTimeout(() => reject(new Error('the worker is silent')), WORKER_WAIT_MS);
    worker.onerror = () => reject(new Error('the worker cannot be loaded'));
    port.onmessage = () => {
      clearTimeout(timer);
      resolve({
        post: (message) => port.postMessage(message),
        listen: (heard) => (port.onmessage = (event: MessageEvent<FromHub>) => heard(event.data)),
      });
    };
  });
}

function broadcastWire(name: string, id: string): Wire<FromTab, FromHub> {
  const channel = new BroadcastChannel(name);
  return {
    post: (message) => channel.postMessage({ to: HUB, from: id, message } satisfies Envelope),
    listen: (heard) => {
      channel.onmessage = ({ data }: MessageEvent<Envelope>) => {
        if (data.to === id || data.to === '*') heard(data.message as FromHub);
      };
    },
  };
}

const leading = new Set<string>();

/** Takes the lead when nobody has it, now or after the tab that has it is gone. The browser gives the lock to one only. */
function lead(name: string, options: EngineOptions, core: Core): void {
  if (leading.has(name)) return;
  leading.add(name);
  void navigator.locks.request(name, () => {
    const hub = new Hub(core, options.WebSocket);
    const channel = new BroadcastChannel(name);
    channel.onmessage = ({ data: { to, from, message } }: MessageEvent<Envelope>) => {
      if (to !== HUB) return;
      hub.heard(from, message as FromTab, (answer) => channel.postMessage({ to: from, from: HUB, message: answer } satisfies Envelope));
    };
    channel.postMessage({ to: '*', from: HUB, message: { t: 'ready', hub: hub.id } } satisfies Envelope);
    // Held as long as the page lives.
    return new Promise(() => undefined);
  });
}
