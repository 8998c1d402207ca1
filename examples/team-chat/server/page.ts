// The built page.

import { readFile } from 'node:fs/promises';
import { extname, join, normalize, sep } from 'node:path';

const TYPES: Record<string, string> = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** Answers with a file below `root`; any other path is the page itself, which is told where the edge is. */
export async function page(root: string, edge: string, request: Request): Promise<Response> {
  if (request.method !== 'GET' && request.method !== 'HEAD') return new Response(null, { status: 405 });
  const path = normalize(join(root, new URL(request.url).pathname));
  const type = TYPES[extname(path)];
  if (type && path.startsWith(root + sep)) {
    const content = await readFile(path).catch(() => undefined);
    return new Response(content ?? null, { status: content ? 200 : 404, headers: { 'content-type': type } });
  }
  const html = await readFile(join(root, 'index.html'), 'utf8');
  return new Response(html.replace('{{edge}}', edge), { headers: { 'content-type': 'text/html; charset=utf-8' } });
}
