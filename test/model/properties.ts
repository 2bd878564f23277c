/** What must hold in every state: the properties of the Raft paper, figure 3, and those that Flotilla adds. What one replica can see alone, replica.ts checks. */
import { decodeConfiguration } from '../../src/raft/core/configuration.ts';
import { EntryKind } from '../../src/raft/core/entry.ts';
import type { Configuration } from '../../src/raft/core/types.ts';
import { FIRST_ID } from './describe.ts';
import type { LogEntry, View } from './transitions.ts';

/** What the cluster did, which no later state may contradict. */
export interface History {
  /** By term: the id of the replica that led it. */
  readonly leaders: readonly number[];
  readonly committed: readonly LogEntry[];
}

/** The history after `moved` moved, or what is broken. */
export function judge(views: readonly View[], moved: View, before: History, initial: Configuration): History | string {
  const after = extended(moved, before);
  if (typeof after === 'string') return after;
  return logMatching(views, moved) ?? leaderCompleteness(moved, after) ?? durability(views, after, initial) ?? after;
}

/** Election safety, and state machine safety. */
function extended(moved: View, before: History): History | string {
  const { slot, role, term, commit, log } = moved;
  const id = FIRST_ID + slot;
  let { leaders, committed } = before;
  if (role === 'leader' && leaders[term] !== id) {
    if (leaders[term] !== undefined) return `election safety: replicas ${leaders[term] - FIRST_ID + 1} and ${slot + 1} lead term ${term}`;
    leaders = Array.from({ length: Math.max(leaders.length, term + 1) }, (_, each) => (each === term ? id : leaders[each])) as number[];
  }
  for (let at = 0; at < Math.min(commit, committed.length); at++) {
    if (log[at]?.chain !== committed[at]?.chain) return `state machine safety: replica ${slot + 1} committed another entry ${at + 1}`;
  }
  if (commit > committed.length) committed = log.slice(0, commit);
  return leaders === before.leaders && committed === before.committed ? before : { leaders, committed };
}

/** The same index and term: the same log up to there. In memory and on disk. */
function logMatching(views: readonly View[], moved: View): string | undefined {
  for (const other of views) {
    for (const mine of [moved.log, moved.disk]) {
      for (const theirs of [other.log, other.disk]) {
        for (let at = Math.min(mine.length, theirs.length) - 1; at >= 0; at--) {
          const [left, right] = [mine[at] as LogEntry, theirs[at] as LogEntry];
          if (left.term === right.term && left.chain !== right.chain) {
            return `log matching: replicas ${moved.slot + 1} and ${other.slot + 1} differ up to entry ${at + 1} of term ${left.term}`;
          }
        }
      }
    }
  }
  return undefined;
}

/** A leader has all that was committed in its term and before. */
function leaderCompleteness({ slot, role, term, log }: View, { committed }: History): string | undefined {
  const last = committed.at(-1);
  if (role !== 'leader' || last === undefined || term < last.term) return undefined;
  const held = log[committed.length - 1];
  return held?.chain === last.chain
    ? undefined
    : `leader completeness: replica ${slot + 1} leads term ${term} without committed entry ${committed.length}`;
}

/** What is committed is on the disks of a majority; of both majorities, while the committed configuration is a joint one. */
function durability(views: readonly View[], { committed }: History, initial: Configuration): string | undefined {
  const last = committed.at(-1);
  if (last === undefined) return undefined;
  const newest = committed.findLast(({ entry }) => entry.kind === EntryKind.config);
  const { voters, outgoing } = newest === undefined ? initial : decodeConfiguration(newest.entry.payload);
  const holds = (id: number) => views[id - FIRST_ID]?.disk[committed.length - 1]?.chain === last.chain;
  for (const half of [voters, outgoing]) {
    const copies = half.filter(({ replicaId }) => holds(replicaId)).length;
    if (half.length > 0 && copies * 2 <= half.length)
      return `durability: entry ${committed.length} is committed, and on ${copies} disks of ${half.length}`;
  }
  return undefined;
}
