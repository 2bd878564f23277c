import { describe, expect, test } from 'vitest';
import type { ReplicaId } from '../../../src/base/ids.ts';
import { Quorum } from '../../../src/raft/core/quorum.ts';
import { configurationOf } from '../../sim/core/simulated-replica.ts';

const { voters } = configurationOf(5);
const values = (given: number[]) => (id: ReplicaId) => given[id - 1] ?? 0;

describe('quorum', () => {
  test('commits what a majority has reached', () => {
    const quorum = new Quorum({ voters: voters.slice(0, 3), outgoing: [], learners: [] });
    expect(quorum.reached(values([9, 5, 7]))).toBe(7);
    expect(quorum.reachedBy(1, values([9, 5, 7]))).toBe(9);
    expect(quorum.reachedBy(3, values([9, 5, 7]))).toBe(5);
    expect(quorum.reachedBy(4, values([9, 5, 7]))).toBe(0);
  });

  test('an even number of voters needs more than half', () => {
    expect(new Quorum({ voters: voters.slice(0, 4), outgoing: [], learners: [] }).reached(values([9, 9, 1, 1]))).toBe(1);
  });

  test('a joint configuration needs both majorities', () => {
    const quorum = new Quorum({ voters: voters.slice(2, 5), outgoing: voters.slice(0, 3), learners: [] });
    expect(quorum.reached(values([1, 1, 9, 9, 9]))).toBe(1);
    expect(quorum.reached(values([9, 9, 9, 1, 1]))).toBe(1);
    expect(quorum.reached(values([9, 1, 9, 9, 1]))).toBe(9);
    const vote = (yes: number[], no: number[]) =>
      quorum.tally(new Map([...yes.map((id) => [id as ReplicaId, true] as const), ...no.map((id) => [id as ReplicaId, false] as const)]));
    expect(vote([3, 4, 5], [])).toBe('pending');
    expect(vote([3, 4, 5, 1], [])).toBe('won');
    expect(vote([3, 4, 5], [1, 2])).toBe('lost');
  });
});
