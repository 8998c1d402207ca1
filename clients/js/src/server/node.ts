/**
 * Fetch-style handlers in Express, Connect or plain `node:http`.
 *
 * Invariant: the handler sees the body byte for byte as it came, because signatures are over bytes. So nothing may have
 * parsed it before; where something must, it has to leave the bytes in `rawBody`.
 */

import { PipewardError } from '../core/error.js';

/** The part of `http.IncomingMessage` that is used. */
export interface NodeRequest extends AsyncIterable<Uint8Array> {
  method?: string | undefined;
  url?: string | undefined;
  /** Express: the address before a router took its part off. */
  originalUrl?: string | undefined;
  headers: Record<string, string | string[] | undefined>;
  /** Whether everything was read already. */
  readableEnded?: boolean;
  /** The body's bytes, where something has read them before. */
  rawBody?: Uint8Array | undefined;
}

/** The part of `http.ServerResponse` that is used. */
export interface NodeResponse {
  writeHead(status: number, headers: Record<string, string | string[]>): unknown;
  end(body?: Uint8Array): unknown;
}

/**
 * Makes a fetch-style handler one of `node:http`: `app.post('/api/pipe', nodeHandler(handler))`. It gets the Node request as
 * its second argument, for what other middleware has put there (`req.session`). Errors go to `next` where there is one.
 */
export function nodeHandler<N extends NodeRequest>(
  handler: (request: Request, node: N) => Promise<Response>,
): (request: N, response: NodeResponse, next?: (error: unknown) => void) => Promise<void> {
  return async (node, out, next) => {
    try {
      const answer = await handler(requestOf(node), node);
      const headers: Record<string, string | string[]> = Object.fromEntries(answer.headers);
      const cookies = answer.headers.getSetCookie();
      if (cookies.length) headers['set-cookie'] = cookies;
      const body = new Uint8Array(await answer.arrayBuffer());
      out.writeHead(answer.status, headers);
      out.end(body);
    } catch (error) {
      if (next) return next(error);
      const refused =
        error instanceof PipewardError ? error : new PipewardError('INTERNAL', 'Internal error', { status: 500 });
      out.writeHead(refused.status ?? 500, { 'content-type': 'application/json' });
      out.end(new TextEncoder().encode(JSON.stringify({ code: refused.code, error: refused.message })));
    }
  };
}

function requestOf(node: NodeRequest): Request {
  const headers = new Headers();
  for (const [name, value] of Object.entries(node.headers)) {
    if (name.startsWith(':')) continue;
    for (const each of Array.isArray(value) ? value : value === undefined ? [] : [value]) headers.append(name, each);
  }
  const method = node.method ?? 'GET';
  if (method === 'GET' || method === 'HEAD') return new Request(addressOf(node), { method, headers });
  // `duplex`: the Fetch standard wants it said for streams; the types do not know it yet.
  const init: RequestInit & { duplex: 'half' } = { method, headers, body: bodyOf(node), duplex: 'half' };
  return new Request(addressOf(node), init);
}

/** The host is the client's word and only fills the form of an address; a bad one must not make the request fail. */
function addressOf(node: NodeRequest): URL {
  const path = node.originalUrl ?? node.url ?? '/';
  const [host] = [node.headers.host ?? 'localhost'].flat();
  const base = URL.canParse(`http://${host}`) ? `http://${host}` : 'http://localhost';
  return URL.canParse(base + path) && path.startsWith('/') ? new URL(base + path) : new URL(base);
}

function bodyOf(node: NodeRequest): BodyInit {
  if (node.rawBody) return new Uint8Array(node.rawBody);
  if (node.readableEnded) {
    throw new PipewardError(
      'INTERNAL',
      'The body was read before this handler: put it before express.json(), or keep the bytes in req.rawBody (express.json({ verify: (req, _, bytes) => { req.rawBody = bytes } })).',
      { status: 500 },
    );
  }
  const pieces = node[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>({
    async pull(stream) {
      const { done, value } = await pieces.next();
      if (done) stream.close();
      else stream.enqueue(value);
    },
    async cancel() {
      await pieces.return?.();
    },
  });
}
