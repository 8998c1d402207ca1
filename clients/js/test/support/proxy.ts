/** A TCP proxy that can cut, stall and turn away: the network between a client and its server. */

import { createServer, connect, type AddressInfo, type Socket } from 'node:net';

export interface Proxy {
  /** `ws://127.0.0.1:PORT` */
  readonly url: string;
  /** Connections that were accepted so far. */
  readonly accepted: number;
  /** Ends every connection without a word. */
  cut(): void;
  /** Nothing passes any more, and nobody is told: as when a cable is pulled. */
  stall(): void;
  /** New connections are ended at once; `false` takes them again. */
  refuse(refusing: boolean): void;
  close(): void;
}

export async function startProxy(target: string): Promise<Proxy> {
  const { hostname, port } = new URL(target);
  const pairs = new Set<[Socket, Socket]>();
  let [accepted, refusing] = [0, false];
  const server = createServer((client) => {
    client.on('error', () => undefined);
    if (refusing) return void client.destroy();
    accepted += 1;
    const upstream = connect(Number(port), hostname);
    const pair: [Socket, Socket] = [client, upstream];
    pairs.add(pair);
    for (const [one, other] of [pair, [upstream, client] as const]) {
      one.on('error', () => undefined);
      one.on('close', () => {
        other.destroy();
        pairs.delete(pair);
      });
      one.pipe(other);
    }
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get accepted() {
      return accepted;
    },
    cut: () => pairs.forEach(([client, upstream]) => [client.destroy(), upstream.destroy()]),
    stall: () => pairs.forEach(([client, upstream]) => [client.unpipe(), client.pause(), upstream.unpipe(), upstream.pause()]),
    refuse: (now) => (refusing = now),
    close: () => {
      server.close();
      pairs.forEach(([client, upstream]) => [client.destroy(), upstream.destroy()]);
    },
  };
}
