import { describe, expect, it, vi } from 'vitest';
import { nodeEnvironment } from '../../src/platform/environment.ts';

describe('timers', () => {
  it.each([2 ** 31, 2 ** 32 - 1, Number.POSITIVE_INFINITY])('do not fire at once for a wait of %d ms', (ms) => {
    vi.useFakeTimers();
    try {
      const task = vi.fn();
      const timer = nodeEnvironment.after(ms, task);
      vi.advanceTimersByTime(60_000);
      expect(task).not.toHaveBeenCalled();
      timer.cancel();
    } finally {
      vi.useRealTimers();
    }
  });
});
