// Declared events at run time: SR-12's payloads, HP-10's `events`.
import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { defineEvents, type EventDefinitions, type StandardSchemaV1 } from '../../src/events.js';

function schema(validate: StandardSchemaV1['~standard']['validate']): StandardSchemaV1 {
  return { '~standard': { version: 1, vendor: 'test', validate } };
}

/** As a client and `pipeAdmin` ask. */
function checkEvent(events: Pick<EventDefinitions, 'check'>, event: string, data: unknown) {
  return events.check!(event, data);
}

describe('defineEvents', () => {
  it.each([
    ['zod', defineEvents({ message: z.object({ text: z.string().min(1) }) })],
    ['valibot', defineEvents({ message: v.object({ text: v.pipe(v.string(), v.minLength(1)) }) })],
  ])('takes what matches a schema of %s, and says what does not', (_, events) => {
    expect(checkEvent(events, 'message', { text: 'hello' })).toEqual({ ok: true, data: { text: 'hello' } });
    for (const wrong of [{ text: '' }, { text: 7 }, {}, null, 'hello']) {
      expect(checkEvent(events, 'message', wrong)).toMatchObject({
        ok: false,
        unknown: false,
        reason: expect.stringContaining('"message"'),
      });
    }
    expect(checkEvent(events, 'message', { text: 7 })).toMatchObject({ reason: expect.stringContaining('text: ') });
  });

  it('hands on what the schema makes of it', () => {
    const events = defineEvents({ at: z.object({ when: z.iso.datetime().transform((text) => new Date(text)) }) });
    expect(checkEvent(events, 'at', { when: '2030-01-01T00:00:00Z' })).toEqual({
      ok: true,
      data: { when: new Date('2030-01-01T00:00:00Z') },
    });
  });

  it('refuses names that are not declared, also those that every object has', () => {
    const events = defineEvents({ message: z.string() });
    for (const name of ['massage', 'constructor', '__proto__', 'toString', '']) {
      expect(checkEvent(events, name, 'x')).toMatchObject({ ok: false, unknown: true });
    }
  });

  it('checks nothing where only types were declared', () => {
    expect(defineEvents<{ message: string }>().check).toBeUndefined();
  });

  it('refuses everything where none are declared at all', () => {
    expect(checkEvent(defineEvents({}), 'any', 1)).toMatchObject({ ok: false, unknown: true });
  });

  it('does not wait for a validator, nor fall over one that fails', async () => {
    const events = defineEvents({
      late: schema(async (value) => ({ value })),
      lateAndWrong: schema(async () => Promise.reject(new Error('later'))),
      broken: schema(() => {
        throw new Error('mine');
      }),
      odd: schema(() => undefined as never),
    });
    expect(checkEvent(events, 'late', 1)).toMatchObject({ ok: false, reason: expect.stringContaining('asynchronous') });
    expect(checkEvent(events, 'lateAndWrong', 1)).toMatchObject({ ok: false });
    expect(checkEvent(events, 'broken', 1)).toMatchObject({ ok: false, reason: expect.stringContaining('mine') });
    expect(checkEvent(events, 'odd', 1)).toMatchObject({ ok: false });
    // The rejected promise would end the run as unhandled.
    await new Promise((resolve) => setTimeout(resolve, 1));
  });

  it('says the first few things that are wrong, with their place', () => {
    const issues = Array.from({ length: 5 }, (_, at) => ({ message: `no ${at}`, path: ['a', { key: at }] }));
    const events = defineEvents({ list: schema(() => ({ issues })) });
    expect(checkEvent(events, 'list', 1)).toMatchObject({ reason: 'Event "list": a.0: no 0; a.1: no 1; a.2: no 2; and 2 more' });
  });
});
