/** Unit tests wait for nothing; those in folders called `integration` need a server binary, and the built package. */

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', 'test/**/*.test.tsx'],
    // Two cores are enough for everything; integration tests start a server each.
    maxWorkers: 2,
    testTimeout: 20_000,
  },
});
