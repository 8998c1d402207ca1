// The tutorial in docs/clients.md, typed in as it stands: its files are written, its packages installed, its commands run.
// Only the ports are others.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { binary, repository } from '../edge.mjs';
import { launch } from './chromium.mjs';

const run = promisify(execFile);

/** A port that is free at this moment. @returns {Promise<number>} */
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return address !== null && typeof address === 'object' ? address.port : 0;
}

/** Waits until a process says that. @param {import('node:child_process').ChildProcess} child @param {RegExp} what */
async function says(child, what) {
  /** @type {string[]} */
  const said = [];
  await new Promise((resolve, reject) => {
    for (const output of [child.stdout, child.stderr]) {
      if (!output) continue;
      createInterface(output).on('line', (line) => {
        said.push(line);
        if (what.test(line)) resolve(null);
      });
    }
    child.once('exit', (code) => reject(new Error(`ended with ${code}:\n${said.join('\n')}`)));
  });
}

test('the tutorial holds as it is written', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'tutorial-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const page = await readFile(join(repository, 'docs/clients.md'), 'utf8');
  const ports = { 3000: await freePort(), 8080: await freePort(), 8081: await freePort() };
  const here = (/** @type {string} */ text) =>
    text.replace(/\b(?:3000|8080|8081)\b/g, (port) => `${Reflect.get(ports, port)}`);

  const files = [...page.matchAll(/^```\w+ (\S+)\n([^]*?)^```$/gm)];
  assert.deepEqual(
    files.map(([, name]) => name),
    ['pipeward.toml', 'server.mjs', 'index.html', 'main.jsx'],
  );
  for (const [, name = '', text = ''] of files) await writeFile(join(directory, name), here(text));

  const install = /^npm install (.*) \.\.\/pipeward\/clients\/js (.*)$/m.exec(page);
  assert.ok(install, 'the tutorial installs the package');
  const [, flags = '', others = ''] = install;
  await run('npm', ['init', '-y'], { cwd: directory });
  await run('npm', ['pkg', 'set', 'type=module'], { cwd: directory });
  const words = [
    'install',
    '--no-audit',
    '--no-fund',
    ...flags.split(' '),
    join(repository, 'clients/js'),
    ...others.split(' '),
  ];
  await run('npm', words, { cwd: directory });

  const edge = spawn(binary(), ['serve', '--config', 'pipeward.toml'], { cwd: directory });
  t.after(() => edge.kill('SIGKILL'));
  await says(edge, / listening on /);
  const server = spawn('node', ['server.mjs'], { cwd: directory });
  t.after(() => server.kill('SIGKILL'));
  await says(server, /^http:/);

  const browser = await launch();
  t.after(() => browser.close());
  const visit = async (/** @type {string} */ name) => {
    const visitor = await (await browser.newContext()).newPage();
    visitor.on('dialog', (dialog) => void dialog.accept(name));
    await visitor.goto(`http://localhost:${ports[3000]}`);
    await visitor.getByText('connected · here now').waitFor();
    return visitor;
  };
  const [ada, ben] = [await visit('ada'), await visit('ben')];
  await Promise.all([ada, ben].map((visitor) => visitor.getByText('here now: ada, ben').waitFor()));
  const write = async (/** @type {typeof ada} */ visitor, /** @type {string} */ field, /** @type {string} */ text) => {
    await visitor.getByRole('textbox', { name: field }).fill(text);
    await visitor.getByRole('textbox', { name: field }).press('Enter');
  };
  await write(ben, 'Message', 'hello');
  await ada.getByText('ben: hello').waitFor();
  await write(ada, 'Announcement', 'lunch');
  await ben.getByText('ada: lunch').waitFor();
  await write(ben, 'Announcement', 'no lunch');
  await ben.getByText(/^\(.+\)$/).waitFor();

  const key = /PIPEWARD_KEY="([^"]*)"/.exec(page)?.[1];
  const env = { ...process.env, PIPEWARD_URL: `http://127.0.0.1:${ports[8081]}`, PIPEWARD_KEY: key };
  await run(binary(), ['revoke', 'ben', 'team-chat'], { env });
  await ben.getByText('You were removed from this chat.').waitFor({ timeout: 1000 });
  await ada.getByText('here now: ada', { exact: false }).waitFor();
  await write(ada, 'Message', 'he is gone');
  await ada.getByText('ada: he is gone').waitFor();
  await write(ada, 'Announcement', 'dinner');
  await ben.getByText('ada: dinner').waitFor();
  assert.equal(await ben.getByText('he is gone').count(), 0);
  await ben.reload();
  await ben.getByText('You were removed from this chat.').waitFor();

  await run(binary(), ['restore', 'ben', 'team-chat'], { env });
  await ben.getByText('You were removed from this chat.').waitFor({ state: 'detached' });
  await write(ada, 'Message', 'welcome back');
  await ben.getByText('ada: welcome back').waitFor();
  assert.equal(await ada.getByText('no lunch').count(), 0);
});
