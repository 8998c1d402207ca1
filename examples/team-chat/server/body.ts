import { Refusal } from './refusal';

const BODY_BYTES_MAX = 16 * 1024;

/** The JSON object in a request, read no further than is allowed. */
export async function body(request: Request): Promise<Record<string, unknown>> {
  const decoder = new TextDecoder();
  let text = '';
  let length = 0;
  for await (const chunk of request.body ?? []) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) throw new Refusal(413, 'The request is too long');
    text += decoder.decode(chunk, { stream: true });
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // Told below.
  }
  throw new Refusal(400, 'The body is not a JSON object');
}
