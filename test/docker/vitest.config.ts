import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

/** `npm run test:docker`. Building the image and starting containers takes minutes on a small machine. */
export default defineConfig({
  root: join(import.meta.dirname, '../..'),
  test: {
    include: ['test/docker/**/*.test.ts'],
    testTimeout: 180_000,
    hookTimeout: 600_000,
    // Its image is in a registry that a test machine need not reach; the test takes away what it has started.
    env: { TESTCONTAINERS_RYUK_DISABLED: 'true' },
  },
});
