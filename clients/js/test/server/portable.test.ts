// `pipeward/server` runs in Node 20, Deno, Bun and workers: it takes nothing from a runtime but Web standards.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { expect, it } from 'vitest';

const src = join(import.meta.dirname, '../../src');

it('imports only itself, the error and the types of events', () => {
  const files = readdirSync(join(src, 'server'), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  expect(files.length).toBeGreaterThan(10);
  const imports = files.flatMap((file) => {
    const path = join(src, 'server', file);
    const named = readFileSync(path, 'utf8').matchAll(/(?:from|import\()\s*['"]([^'"]+)['"]/g);
    return [...named].map(([, name]) => (name!.startsWith('.') ? relative(src, normalize(join(dirname(path), name!))) : name!));
  });
  const strangers = imports.filter((name) => !name.startsWith('server/') && !['core/error.js', 'events.js'].includes(name));
  expect([imports.length > 20, strangers]).toEqual([true, []]);
});

it('uses no global that only one runtime has', () => {
  const files = readdirSync(join(src, 'server'), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  const text = files
    .map((file) => readFileSync(join(src, 'server', file), 'utf8').replace(/\/\*[^]*?\*\/|\/\/.*|'[^'\n]*'|`[^`]*`/g, ''))
    .join('\n');
  expect(text).toContain('crypto.subtle');
  expect(text.match(/\b(process|Buffer|require|__dirname|setImmediate|window|document|Deno|Bun)\b/g)).toBeNull();
});
