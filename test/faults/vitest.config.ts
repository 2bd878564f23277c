import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

/** `npm run test:faults`. */
export default defineConfig({
  root: join(import.meta.dirname, '../..'),
  test: {
    include: ['test/faults/**/*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 60_000,
    pool: 'forks',
    // One after the other: brokers of several tests at once would be slow for reasons of their own.
    fileParallelism: false,
  },
});
