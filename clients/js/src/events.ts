/**
 * Typed events: the names and payloads that an application uses, by types alone or with validators of the Standard Schema
 * (https://standardschema.dev, version 1), which zod, valibot, arktype and others implement.
 *
 * Invariant: with validators nothing that does not pass reaches a handler or leaves `publish`. What travels is what the
 * application gave, not what a validator made of it, so that the receiver's validator sees the same input.
 */

/** A validator of the Standard Schema, version 1. */
export interface StandardSchemaV1<Input = unknown, Output = Input> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

type SchemaResult<Output> =
  { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly SchemaIssue[] };

interface SchemaIssue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** Any event with any payload: what holds where no events are declared. */
// `any`, so that undeclared events can be used without a cast.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type AnyEvents = Record<string, any>;

/** The names in a map of events. */
export type EventName<Events extends object> = Extract<keyof Events, string>;

/**
 * What {@link defineEvents} returns. `Sent` maps names to what `publish` takes, `Received` to what handlers get; they
 * differ only where a validator transforms.
 */
export interface EventDefinitions<Sent extends object = AnyEvents, Received extends object = Sent> {
  /**
   * Checks an event; absent where the events are declared by types alone. Never throws. On success `data` is what the
   * validator made of it, for handlers; a sender sends the original. It comes with the definitions, so that only those
   * who have validators carry the code.
   */
  readonly check?: (event: string, data: unknown) => Checked;
  /** Only for the compiler. */
  readonly '~types'?: { readonly sent: Sent; readonly received: Received };
}

type Schemas = Readonly<Record<string, StandardSchemaV1>>;
type TypesOf<S> = S extends { readonly '~standard': { readonly types?: infer T } } ? NonNullable<T> : never;
type InputOf<S> = TypesOf<S> extends { readonly input: infer I } ? I : unknown;
type OutputOf<S> = TypesOf<S> extends { readonly output: infer O } ? O : unknown;

/** What `publish` takes, by event, under these validators. */
export type SentBy<S extends Schemas> = { -readonly [Name in keyof S]: InputOf<S[Name]> };
/** What handlers get, by event, under these validators. */
export type ReceivedBy<S extends Schemas> = { -readonly [Name in keyof S]: OutputOf<S[Name]> };

/** Declares events by types alone: `defineEvents<{ message: { text: string } }>()`. Nothing is validated at run time. */
export function defineEvents<Events extends object>(): EventDefinitions<Events>;
/** Declares events with validators: `defineEvents({ message: z.object({ text: z.string() }) })`. They must be synchronous. */
export function defineEvents<S extends Schemas>(schemas: S): EventDefinitions<SentBy<S>, ReceivedBy<S>>;
export function defineEvents(schemas?: Schemas): EventDefinitions {
  if (!schemas) return {};
  // A map: objects have names that nobody declared.
  const byName = new Map(Object.entries(schemas));
  return { check: (event, data) => check(byName.get(event), event, data) };
}

/** Whether a payload passes. `reason` is a sentence about what is wrong, without the payload itself. */
export type Checked =
  | { readonly ok: true; readonly data: unknown }
  | { readonly ok: false; readonly reason: string; /** The name is not declared. */ readonly unknown: boolean };

function check(schema: StandardSchemaV1 | undefined, event: string, data: unknown): Checked {
  if (!schema) return { ok: false, reason: `There is no event "${event}": declare it in defineEvents`, unknown: true };
  const refuse = (reason: string): Checked => ({ ok: false, reason: `Event "${event}": ${reason}`, unknown: false });
  try {
    const result = schema['~standard'].validate(data);
    if ('then' in result) {
      result.then(undefined, () => undefined);
      return refuse('its validator is asynchronous; events need synchronous ones, so that they stay in order');
    }
    return result.issues ? refuse(describe(result.issues)) : { ok: true, data: result.value };
  } catch (error) {
    return refuse(`its validator failed: ${String(error)}`);
  }
}

/** Issues that are told; the rest are counted. */
const ISSUES_MAX = 3;

function describe(issues: readonly SchemaIssue[]): string {
  const told = issues.slice(0, ISSUES_MAX).map(({ message, path = [] }) => {
    const keys = path.map((part) => String(typeof part === 'object' ? part.key : part));
    return keys.length ? `${keys.join('.')}: ${message}` : message;
  });
  const more = issues.length - told.length;
  return told.join('; ') + (more > 0 ? `; and ${more} more` : '');
}
