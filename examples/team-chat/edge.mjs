// The `pipeward` binary as a child process.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

export const repository = join(import.meta.dirname, '../..');

/** @returns {string} */
export function binary() {
  const given = process.env.PIPEWARD_BIN;
  if (given) return resolve(given);
  const built = ['target/release/pipeward', 'target/debug/pipeward'].map((path) => join(repository, path));
  const found = built.find((path) => existsSync(path));
  if (!found) throw new Error('There is no pipeward binary: run `cargo build --release` first, or set PIPEWARD_BIN');
  return found;
}

/** @typedef {import('node:child_process').ChildProcess} Child */

/**
 * Starts it with the `pipeward.toml` of a directory; there once it listens.
 * @param {{ directory: string, listen: string, control: string, env: Record<string, string>, log(line: string): void }} options
 * @returns {Promise<{ child: Child, listen: string, control: string }>} with the addresses as it says them itself
 */
export async function startEdge({ directory, listen, control, env, log }) {
  const flags = ['--config', 'pipeward.toml', '--listen', listen, '--control', control];
  const child = spawn(binary(), ['serve', ...flags], {
    cwd: directory,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  return new Promise((resolve, reject) => {
    let controlSaid = '';
    /** @type {string[]} */
    const said = [];
    createInterface(child.stdout).on('line', log);
    createInterface(child.stderr).on('line', (line) => {
      log(line);
      said.push(line);
      controlSaid = /server API on (\S+)/.exec(line)?.[1] ?? controlSaid;
      const listenSaid = / listening on (\S+)/.exec(line)?.[1];
      if (listenSaid) resolve({ child, listen: listenSaid, control: controlSaid });
    });
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`pipeward ended with ${code}:\n${said.join('\n')}`)));
  });
}

/** Ends it with these signals, one after the other. @param {Child} child @param {NodeJS.Signals[]} signals */
export async function endEdge(child, ...signals) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  for (const signal of signals) child.kill(signal);
  await ended;
}
