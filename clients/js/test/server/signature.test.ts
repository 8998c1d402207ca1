// Verified calls of the server: PROTOCOL §5, INVARIANTS 31.
import { createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { PipewardError, readCall, verifySignature } from '../../src/server/index.js';

const SECRET = 'a secret of the webhook, 32 bytes';
const BODY = '{"kind":"action","delivery":"1","action":"greet","args":{"name":"Zoë"}}';

function now(): number {
  return Math.floor(Date.now() / 1000);
}

function sign(body: string | Uint8Array, { t = now(), secret = SECRET } = {}): string {
  return `t=${t},v1=${createHmac('sha256', secret).update(`${t}.`).update(body).digest('hex')}`;
}

describe('verifySignature', () => {
  it('accepts what the server signed', async () => {
    expect(await verifySignature({ secret: SECRET, header: sign(BODY), body: BODY })).toBe(true);
    expect(await verifySignature({ secret: SECRET, header: sign(BODY), body: new TextEncoder().encode(BODY) })).toBe(true);
  });

  it('agrees with openssl', async () => {
    // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'sixteen bytes ok'
    const header = 't=1700000000,v1=78630ef9b11f6acdbd19f29a83f37af37e04ebd1256616baf168cca5d353b112';
    const age = { maxAgeS: Infinity, secret: 'sixteen bytes ok', body: '{"a":1}' };
    expect(await verifySignature({ ...age, header })).toBe(true);
    expect(await verifySignature({ ...age, header: header.replace('1700000000', '1700000001') })).toBe(false);
  });

  it('accepts one of several secrets and one of several signatures, for the time of a change', async () => {
    const [t, v1] = sign(BODY).split(',');
    const other = 'f'.repeat(64);
    expect(await verifySignature({ secret: ['x'.repeat(32), SECRET], header: `${t},${v1}`, body: BODY })).toBe(true);
    expect(await verifySignature({ secret: SECRET, header: `${t}, v1=${other}, ${v1}`, body: BODY })).toBe(true);
  });

  it.each([
    ['no header', null],
    ['an empty header', ''],
    ['no signature', `t=${now()}`],
    ['no time', sign(BODY).split(',')[1]!],
    ['two times', `${sign(BODY)},t=1`],
    ['another secret', sign(BODY, { secret: 'b'.repeat(32) })],
    ['another body', sign(`${BODY} `)],
    ['a time that was not signed', sign(BODY).replace(/t=\d+/, `t=${now() - 1}`)],
    ['a signature cut short', sign(BODY).slice(0, -2)],
    ['a signature that is no hex', sign(BODY).replace(/v1=../, 'v1=zz')],
    ['one that is too old', sign(BODY, { t: now() - 301 })],
    ['one from the future', sign(BODY, { t: now() + 302 })],
    ['a time that is no number', sign(BODY).replace(/t=\d+/, 't=NaN')],
    ['a time with a sign', sign(BODY).replace('t=', 't=+')],
    ['the scheme v0 alone', sign(BODY).replace('v1=', 'v0=')],
    ['too many signatures', `${sign(BODY)}${`,v1=${'0'.repeat(64)}`.repeat(4)}`],
  ])('refuses %s', async (_, header) => {
    expect(await verifySignature({ secret: SECRET, header, body: BODY })).toBe(false);
  });

  it('takes another age', async () => {
    const header = sign(BODY, { t: now() - 20 });
    expect(await verifySignature({ secret: SECRET, header, body: BODY, maxAgeS: 10 })).toBe(false);
    expect(await verifySignature({ secret: SECRET, header, body: BODY, maxAgeS: 30 })).toBe(true);
    expect(await verifySignature({ secret: SECRET, header, body: BODY, maxAgeS: NaN })).toBe(false);
  });

  it.each([
    ['', 'none'],
    ['too short', 'short'],
    [undefined as unknown as string, 'undefined'],
  ])('does not verify with the secret %j', async (secret) => {
    const outcome = verifySignature({ secret, header: sign(BODY), body: BODY });
    await expect(outcome).rejects.toMatchObject({ code: 'INVALID', message: expect.stringContaining('16') });
  });

  it('does not verify without any secret', async () => {
    await expect(verifySignature({ secret: [], header: sign(BODY), body: BODY })).rejects.toBeInstanceOf(PipewardError);
  });
});

describe('readCall', () => {
  const call = (body: string | Uint8Array, header = sign(body)) =>
    new Request('http://app/actions', { method: 'POST', body: body as BodyInit, headers: { 'X-Pipeward-Signature': header } });

  it('hands on a call of the right kind', async () => {
    const read = await readCall(call(BODY), { secret: SECRET, kind: ['action', 'queue'] });
    expect(read).toEqual(JSON.parse(BODY));
  });

  it('refuses a call of another kind, however well it is signed', async () => {
    // A signed action must not pass for an authorize call.
    await expect(readCall(call(BODY), { secret: SECRET, kind: 'connect' })).rejects.toMatchObject({ code: 'INVALID' });
    await expect(readCall(call('{"action":"greet"}'), { secret: SECRET, kind: 'action' })).rejects.toMatchObject({ code: 'INVALID' });
    // Deciding about an action is not performing it.
    const asked = '{"kind":"action","rule":true,"action":"greet"}';
    await expect(readCall(call(asked), { secret: SECRET, kind: 'action' })).rejects.toMatchObject({ code: 'INVALID' });
    await expect(readCall(call(asked), { secret: SECRET, kind: 'action', rule: true })).resolves.toMatchObject({ rule: true });
    await expect(readCall(call(BODY), { secret: SECRET, kind: ['action', 'queue'], rule: true })).rejects.toBeDefined();
    await expect(readCall(call('{"kind":["action"]}'), { secret: SECRET, kind: 'action' })).rejects.toMatchObject({ code: 'INVALID' });
  });

  it.each([['null'], ['[]'], ['"action"'], ['{"kind":"action"'], ['']])('refuses %j, which is no call', async (body) => {
    await expect(readCall(call(body), { secret: SECRET, kind: 'action' })).rejects.toMatchObject({ code: 'INVALID' });
  });

  it('refuses bytes that are no UTF-8, though they are signed', async () => {
    const bytes = new Uint8Array([...new TextEncoder().encode('{"kind":"action","x":"'), 0xff, 0x22, 0x7d]);
    await expect(readCall(call(bytes), { secret: SECRET, kind: 'action' })).rejects.toMatchObject({ code: 'INVALID' });
  });

  it('refuses a call that is not signed', async () => {
    const unsigned = new Request('http://app/actions', { method: 'POST', body: BODY });
    await expect(readCall(unsigned, { secret: SECRET, kind: 'action' })).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  it('stops reading at the size that it was given', async () => {
    const body = JSON.stringify({ kind: 'action', args: 'x'.repeat(2000) });
    await expect(readCall(call(body), { secret: SECRET, kind: 'action', bytesMax: 1000 })).rejects.toMatchObject({
      code: 'PAYLOAD_TOO_LARGE',
    });
    await expect(readCall(call(body), { secret: SECRET, kind: 'action', bytesMax: 3000 })).resolves.toBeDefined();
  });
});
