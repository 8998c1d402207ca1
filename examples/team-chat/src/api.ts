// Calls of the application. A refusal is thrown with the sentence that the application gave.

export async function get<Answer>(path: string): Promise<Answer | null> {
  const response = await fetch(path);
  if (response.status === 401) return null;
  if (!response.ok) throw new Error(`The application answered ${response.status}`);
  return (await response.json()) as Answer;
}

export async function post(path: string, body: Record<string, string> = {}): Promise<void> {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) });
  if (response.ok) return;
  const answer = (await response.json().catch(() => ({}))) as { error?: string };
  throw new Error(answer.error ?? `The application answered ${response.status}`);
}
