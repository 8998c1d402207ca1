/** What a failed call of the server API throws. */

import { PipewardError, type ErrorDetail } from '../../core/error.js';
import type { NodeFailure } from './types.js';

/**
 * A `PipewardError` that also says which nodes failed. With several nodes the others may have done it: repeat the call once
 * the cause is gone; revoking and restoring twice does no harm.
 */
export class AdminError extends PipewardError {
  /** The nodes that did not do it; never empty. */
  readonly failures: readonly NodeFailure[];
  /** The nodes that did it. */
  readonly done: readonly string[];

  constructor(
    code: string,
    message: string,
    detail: ErrorDetail & { failures: readonly NodeFailure[]; done?: readonly string[] },
  ) {
    super(code, message, detail);
    this.failures = detail.failures;
    this.done = detail.done ?? [];
  }
}
