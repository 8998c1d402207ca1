// Runs the application and the edge beside each other, in one go: a fresh directory, fresh secrets, the server of
// `dist/server` in this process and the `pipeward` binary as a child. Used by start.mjs and by the tests.

import { randomBytes } from 'node:crypto';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { endEdge, startEdge } from './edge.mjs';

const here = import.meta.dirname;

/**
 * Port 0 stands for any free one. `log` gets the lines that the edge writes; `onExit` is called if it ends by itself.
 * @param {{ port: number, edgePort: number, controlPort: number, log(line: string): void, onExit?(): void }} options
 */
export async function run({ port, edgePort, controlPort, log, onExit = () => {} }) {
  const directory = await mkdtemp(join(tmpdir(), 'team-chat-'));
  const apiKey = randomBytes(24).toString('hex');
  const tokenSecret = randomBytes(32).toString('hex');
  const http = createServer();
  /** @type {Awaited<ReturnType<typeof startEdge>> | undefined} */
  let edge;

  /** @param {NodeJS.Signals[]} signals */
  const end = async (...signals) => {
    edge?.child.off('exit', onExit);
    if (edge) await endEdge(edge.child, ...signals);
  };
  const stop = async () => {
    http.closeAllConnections();
    http.close();
    // The second signal does not wait for the connections to go.
    await end('SIGTERM', 'SIGINT');
    await rm(directory, { recursive: true, force: true });
  };

  try {
    await copyFile(join(here, 'pipeward.toml'), join(directory, 'pipeward.toml'));
    await writeFile(join(directory, 'api-key'), apiKey, { mode: 0o600 });
    await new Promise((resolve, reject) => http.once('error', reject).listen(port, '127.0.0.1', () => resolve(null)));
    const address = http.address();
    if (address === null || typeof address === 'string') throw new Error('The application has no port');
    const env = {
      PIPEWARD_AUTH__TOKEN__HMAC_SECRET: tokenSecret,
      PIPEWARD_EDGE__ORIGINS: JSON.stringify(
        ['127.0.0.1', 'localhost'].map((host) => `http://${host}:${address.port}`),
      ),
    };
    /** @param {string} listen @param {string} control */
    const start = async (listen, control) => {
      edge = await startEdge({ directory, listen, control, env, log });
      edge.child.once('exit', onExit);
      return edge;
    };
    const { listen, control } = await start(`127.0.0.1:${edgePort}`, `127.0.0.1:${controlPort}`);

    const { teamChat } = await import(new URL('dist/server/main.js', import.meta.url).href);
    const page = join(here, 'dist/page');
    http.on('request', teamChat({ edge: `ws://${listen}`, control: `http://${control}`, apiKey, tokenSecret, page }));
    return {
      url: `http://127.0.0.1:${address.port}`,
      stop,
      /** Kills the edge, as a crash would. */
      crashEdge: () => end('SIGKILL'),
      /** Starts it again where it was. */
      restartEdge: () => start(listen, control),
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
