import type { Entry } from '../../../src/raft/core/entry.ts';
import type { Message } from '../../../src/raft/core/types.ts';

/** What is on a replica's disk. */
export interface OnDisk {
  readonly id: number;
  /** Votes by term. */
  readonly votes: ReadonlyMap<number, number>;
  readonly durable: readonly Entry[];
}

/** What a message promises is on the sender's disk when it leaves (hazards B01, B04), and the entries of an append follow what it says (B11). */
export function checkPromise({ id, votes, durable }: OnDisk, message: Message): void {
  const { type, term } = message;
  if (type === 'voteResponse' && message.granted && !message.pre) {
    check(votes.get(term) === message.to, `replica ${id} sent a vote of term ${term} that is not durable`);
  } else if (type === 'vote' && !message.pre) {
    check(votes.get(term) === id, `replica ${id} campaigns at term ${term} without a durable vote`);
  } else if (type === 'appendResponse' && !message.rejected) {
    check(durable.length >= message.matchIndex, `replica ${id} acknowledged ${message.matchIndex}, has ${durable.length}`);
  } else if (type === 'append') {
    const misplaced = message.entries.find(({ index }, at) => index !== message.prevIndex + 1 + at);
    check(misplaced === undefined, `replica ${id} sent entry ${misplaced?.index} in an append after ${message.prevIndex}`);
  }
}

function check(condition: boolean, message: string): void {
  if (!condition) throw new Error(message);
}
