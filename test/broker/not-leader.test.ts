import { expect, it } from 'vitest';
import { NotLeaderError } from '../../src/broker/not-leader.ts';

it('collects no stack: a broker that starts gives thousands of these', () => {
  const { stackTraceLimit } = Error;
  const error = new NotLeaderError('ask elsewhere', { brokerId: 2 as never, leaderEpoch: 3 });
  expect(error.stack?.split('\n')).toEqual([expect.stringContaining('ask elsewhere')]);
  expect(error).toMatchObject({ code: 'NOT_LEADER_OR_FOLLOWER', retriable: true, leader: { brokerId: 2, leaderEpoch: 3 } });
  // Other errors go on to have one.
  expect(Error.stackTraceLimit).toBe(stackTraceLimit);
  expect(new Error('x').stack).toContain('not-leader.test.ts');
});
