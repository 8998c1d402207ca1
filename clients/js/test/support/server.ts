/**
 * A real server process for integration tests: on free ports of 127.0.0.1, in a directory of its own, ended with the test.
 * The binary is `PIPEWARD_BIN`, or that of the checkout.
 */

import { spawn, type ChildProcess } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

const SECRET = 'a secret of the tests, long enough for HS256';
const API_KEY = 'an-api-key-of-the-tests';
const START_MS_MAX = 15_000;

export interface Server {
  /** For clients: `ws://127.0.0.1:PORT`. */
  readonly url: string;
  /** The server API: `http://127.0.0.1:PORT`. */
  readonly control: string;
  readonly apiKey: string;
  /** Signs tokens. */
  readonly secret: string;
  readonly log: readonly string[];
  /** Lets it drain and end. Returns its exit code. */
  stop(): Promise<number | null>;
  /** Kills it, whatever it does. */
  kill(): Promise<void>;
  /** Starts it again with what it has left behind, on the same ports. */
  restart(): Promise<void>;
  /** A call of the server API; throws unless it is answered with 2xx. */
  api(method: string, body: object): Promise<Record<string, unknown>>;
}

export interface Grant {
  subscribe?: boolean;
  publish?: boolean;
  presence?: boolean;
}

/** All rights. */
export const ALL: Grant = { subscribe: true, publish: true, presence: true };

/** A token of `SECRET`; `ttlS` seconds long, or without an end. */
export function token(user: string, pipes: Record<string, Grant>, { ttlS, ...claims }: { ttlS?: number; [claim: string]: unknown } = {}): string {
  const nowS = Math.floor(Date.now() / 1_000);
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const end = ttlS !== undefined && { exp: nowS + ttlS };
  const body = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, iat: nowS, ...end, pipes, ...claims })}`;
  return `${body}.${createHmac('sha256', SECRET).update(body).digest('base64url')}`;
}

function binary(): string {
  const root = resolve(import.meta.dirname, '../../../..');
  const candidates = [process.env.PIPEWARD_BIN, join(root, 'target/release/pipeward'), join(root, 'target/debug/pipeward')];
  const found = candidates.find((path) => path && existsSync(path));
  if (!found) throw new Error('There is no pipeward binary: run `cargo build`, or set PIPEWARD_BIN to one');
  return found;
}

/** Starts a server. `config` is put before what every test needs: keys and a store. */
export async function startServer(config = ''): Promise<Server> {
  const directory = mkdtempSync(join(tmpdir(), 'pipeward-js-'));
  const file = join(directory, 'pipeward.toml');
  const missing = (section: string, text: string) => (config.includes(`[${section}]`) ? '' : `\n[${section}]\n${text}\n`);
  writeFileSync(file, [
    config,
    `\n[[control.key]]\nname = "tests"\nsecret = "${API_KEY}"\nallow = ["*"]\n`,
    missing('auth.token', `hmac_secret = "${SECRET}"`),
    missing('audit', 'path = "audit.log"'),
  ].join('\n'));
  const log: string[] = [];
  let child: ChildProcess | undefined;
  let [edge, control] = ['127.0.0.1:0', '127.0.0.1:0'];

  const start = async () => {
    const ours = ([name]: [string, unknown]) => !name.startsWith('PIPEWARD_') || name === 'PIPEWARD_BACKEND';
    const environment = Object.fromEntries(Object.entries(process.env).filter(ours));
    const started = spawn(binary(), ['serve', '--config', file, '--listen', edge, '--control', control, '--workers', '2'], {
      env: { ...environment, RUST_LOG: 'info' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child = started;
    running.add(started);
    started.once('exit', () => running.delete(started));
    const heard = log.length;
    const lines = createInterface({ input: started.stderr });
    await new Promise<void>((listening, failed) => {
      const give = (why: string) => failed(new Error(`the server ${why}:\n${log.slice(heard).join('\n')}`));
      const timer = setTimeout(() => give('does not listen'), START_MS_MAX);
      started.once('exit', (code) => give(`ended with ${code}`));
      started.once('error', failed);
      lines.on('line', (line) => {
        log.push(line);
        edge = /listening on ([\d.:]+)/.exec(line)?.[1] ?? edge;
        control = /server API on ([\d.:]+)/.exec(line)?.[1] ?? control;
        const said = (words: string) => log.slice(heard).some((line) => line.includes(words));
        if (!said('listening on ') || !said('server API on ')) return;
        clearTimeout(timer);
        listening();
      });
    });
  };

  const end = async (signal: NodeJS.Signals): Promise<number | null> => {
    const ending = child;
    if (!ending || ending.exitCode !== null || ending.signalCode !== null) return ending?.exitCode ?? null;
    const gone = new Promise<number | null>((done) => ending.once('exit', done));
    ending.kill(signal);
    return gone;
  };

  await start();
  directories.add(directory);
  return {
    get url() {
      return `ws://${edge}`;
    },
    get control() {
      return `http://${control}`;
    },
    apiKey: API_KEY,
    secret: SECRET,
    log,
    stop: () => end('SIGTERM'),
    kill: async () => void (await end('SIGKILL')),
    restart: start,
    async api(method, body) {
      const response = await fetch(`http://${control}/v1/${method}`, {
        method: 'POST',
        headers: { authorization: `Bearer ${API_KEY}` },
        body: JSON.stringify(body),
      });
      const answer = (await response.json()) as Record<string, unknown>;
      if (!response.ok) throw new Error(`${method} answered ${response.status}: ${JSON.stringify(answer)}`);
      return answer;
    },
  };
}

const running = new Set<ChildProcess>();
const directories = new Set<string>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});
