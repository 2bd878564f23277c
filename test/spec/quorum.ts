/** Majorities, of both halves of a joint configuration. */
import type { Configuration } from '../../src/raft/core/types.ts';

function everyHalf({ voters, outgoing }: Configuration, test: (ids: readonly number[]) => boolean): boolean {
  const halves = [voters, outgoing].filter((half) => half.length > 0);
  return halves.every((half) => test(half.map(({ replicaId }) => replicaId)));
}

export function holdsMajority(configuration: Configuration, granted: ReadonlySet<number>): boolean {
  return everyHalf(configuration, (ids) => ids.filter((id) => granted.has(id)).length * 2 > ids.length);
}

/** False when so many refused that the others are no majority. */
export function couldStillWin(configuration: Configuration, refused: ReadonlySet<number>): boolean {
  return everyHalf(configuration, (ids) => ids.filter((id) => !refused.has(id)).length * 2 > ids.length);
}

/** The highest index that a majority has reached. */
export function reachedByMajority(configuration: Configuration, held: (id: number) => number): number {
  let least = Number.POSITIVE_INFINITY;
  everyHalf(configuration, (ids) => {
    const descending = ids.map(held).sort((a, b) => b - a);
    least = Math.min(least, descending[Math.floor(ids.length / 2)] ?? 0);
    return true;
  });
  return least;
}
