// The samples of the README compile, against the sources and under the strictest settings.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');
// Inside the package, so that react and zod are found.
const place = join(root, 'node_modules/.readme');

/** What the samples leave to the reader. */
const GIVEN = `
  declare function sessionOf(request: Request): Promise<{ id: string; user: string; name: string; role: string; company: string } | null>;
  declare function save(user: string, text: string): Promise<string>;
`;

it('has samples that compile', () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const samples = [...readme.matchAll(/^```(tsx?)\n([^]*?)^```$/gm)].map(([, extension, text]) => ({ extension: extension!, text: text! }));
  expect(samples.length).toBeGreaterThanOrEqual(7);
  rmSync(place, { recursive: true, force: true });
  mkdirSync(place, { recursive: true });
  for (const [at, { extension, text }] of samples.entries())
    writeFileSync(join(place, `sample${at}.${extension}`), `${text}\nexport {};\n`);
  // The one that declares events is what others import.
  const declares = samples.findIndex(({ text }) => text.includes('export const events'));
  writeFileSync(join(place, 'events.ts'), `export { events } from './sample${declares}';\n`);
  writeFileSync(join(place, 'given.d.ts'), GIVEN);
  writeFileSync(
    join(place, 'tsconfig.json'),
    JSON.stringify({
      extends: '../../tsconfig.json',
      compilerOptions: {
        module: 'ESNext',
        moduleResolution: 'Bundler',
        noEmit: true,
        noUnusedLocals: false,
        paths: { pipeward: ['../../src/index.ts'], 'pipeward/*': ['../../src/*/index.ts'] },
      },
      include: ['*'],
    }),
  );
  expect(compile()).toBe('');
});

/** What the compiler complains about. */
function compile(): string {
  try {
    return execFileSync(join(root, 'node_modules/.bin/tsc'), ['-p', place], { encoding: 'utf8' });
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}
