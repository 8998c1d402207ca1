/**
 * The application's side: tokens and authorize answers for clients, verified calls from the server, and the server API.
 *
 * WebCrypto and `fetch` only, so it runs in Node 20, Deno, Bun and workers. Reading order: authorization, token, handler ·
 * signature, webhook, node · admin.
 */

export { PipewardError, type ErrorCode } from '../core/error.js';
export { defineEvents, type EventDefinitions, type StandardSchemaV1 } from '../events.js';
export type { Authorization, Decision, Grants, PipeUser, Rights } from './authorization.js';
export { createPipeHandler, type PipeHandler, type PipeHandlerOptions } from './handler.js';
export { nodeHandler, type NodeRequest, type NodeResponse } from './node.js';
export { readCall, verifySignature, type Call, type CallOptions, type SignedCall } from './signature.js';
export { signToken, type TokenOptions } from './token.js';
export { authorizeWebhook, type AuthorizeCall, type WebhookOptions } from './webhook.js';
export { pipeAdmin, type AdminOptions, type PipeAdmin } from './admin/index.js';
export { AdminError } from './admin/error.js';
export type * from './admin/types.js';
