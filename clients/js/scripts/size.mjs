// What an application's bundle gets from `import { createClient } from 'pipeward'`: minified, compressed, and under the
// bound. Parts that are loaded on demand (tab sharing) are chunks of their own and shown beside it.
import { build } from 'esbuild';
import { gzipSync } from 'node:zlib';

const CORE_BYTES_MAX = 8 * 1024;

const { outputFiles } = await build({
  stdin: { contents: "export { createClient, PipewardError } from './dist/index.js'", resolveDir: process.cwd() },
  bundle: true,
  minify: true,
  splitting: true,
  format: 'esm',
  target: 'es2022',
  outdir: 'out',
  write: false,
  legalComments: 'none',
});
// With splitting, what is shared lies in chunks that are loaded with the entry: follow its static imports.
const files = new Map(outputFiles.map((file) => [file.path.split('/').at(-1), file.text]));
const entry = [...files.keys()].find((name) => name.startsWith('stdin'));
const loaded = new Set();
const load = (name) => {
  if (loaded.has(name)) return;
  loaded.add(name);
  for (const [, from] of files.get(name).matchAll(/(?:from|import)\s*"\.\/([^"]+)"/g)) load(from);
};
load(entry);
const zipped = (names) => gzipSync(names.map((name) => files.get(name)).join('\n'), { level: 9 }).length;
const core = zipped([...loaded]);
const rest = [...files.keys()].filter((name) => !loaded.has(name));
console.log(`core: ${core} bytes min+gzip (at most ${CORE_BYTES_MAX - 1})${rest.length ? `; on demand: ${zipped(rest)} bytes` : ''}`);
if (core >= CORE_BYTES_MAX) process.exitCode = 1;
