/** `pipeward`: the client for browsers, Node and workers. Start at `core/types.ts`. */

export { createClient } from './core/client.js';
export { PipewardError, type ClientCode, type ErrorCode, type ErrorDetail, type ServerCode } from './core/error.js';
export type * from './core/types.js';
export { defineEvents } from './events.js';
export type { AnyEvents, EventDefinitions, EventName, ReceivedBy, SentBy, StandardSchemaV1 } from './events.js';
