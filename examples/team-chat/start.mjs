// `npm start`: installs what is missing, builds the package and the application, then runs the application and the edge.
//
// PORT, EDGE_PORT and CONTROL_PORT say where (3000, 8080, 8081; 0 is any free one), PIPEWARD_BIN which binary.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './run.mjs';

const here = import.meta.dirname;
const library = join(here, '../../clients/js');

/** @param {string} directory @param {string[]} words */
function npm(directory, ...words) {
  const { status } = spawnSync('npm', words, { cwd: directory, stdio: 'inherit' });
  // npm has said why.
  if (status !== 0) process.exit(1);
}

for (const directory of [library, here]) {
  if (!existsSync(join(directory, 'node_modules'))) npm(directory, 'ci');
  npm(directory, 'run', 'build');
}

const port = (/** @type {string} */ name, /** @type {number} */ usual) => Number(process.env[name] ?? usual);
const chat = await run({
  port: port('PORT', 3000),
  edgePort: port('EDGE_PORT', 8080),
  controlPort: port('CONTROL_PORT', 8081),
  log: (line) => console.log(line),
  onExit: () => process.exit(1),
}).catch((/** @type {Error} */ error) => {
  console.error(error.message);
  process.exit(1);
});
console.log(`\nopen ${chat.url} in two windows (a private one for the second person), as Ada and as Ben\n`);

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => void chat.stop().then(() => process.exit(0)));
}
