import type { ReplicaId } from '../../base/ids.ts';
import type { Entry } from './entry.ts';
import type { FollowerProgress } from './progress.ts';
import type { Configuration, Message, Proposal, RaftOptions, Ready, Role } from './types.ts';

const todo = (): never => {
  throw new Error('under construction');
};

export class RaftCore {
  constructor(_options: RaftOptions) {}
  tick(): void {}
  step(_message: Message): void {}
  propose(_proposals: readonly Proposal[]): { firstIndex: number; term: number } {
    return todo();
  }
  readIndex(_context: number): void {}
  transferLeadership(_to: ReplicaId): boolean {
    return todo();
  }
  campaign(): void {}
  leaderUnreachable(): void {}
  persisted(_token: number): void {}
  supplyEntries(_to: ReplicaId, _entries: readonly Entry[]): void {}
  release(_index: number): void {}
  hasReady(): boolean {
    return todo();
  }
  ready(): Ready {
    return todo();
  }
  get role(): Role {
    return todo();
  }
  get term(): number {
    return todo();
  }
  get leader(): ReplicaId | 0 {
    return todo();
  }
  get commitIndex(): number {
    return todo();
  }
  get lastIndex(): number {
    return todo();
  }
  get lastTerm(): number {
    return todo();
  }
  get lastNextOffset(): number {
    return todo();
  }
  get durableIndex(): number {
    return todo();
  }
  get configuration(): Configuration {
    return todo();
  }
  get configurationIndex(): number {
    return todo();
  }
  /** Leader, and its own term's no-op has committed. */
  get isReady(): boolean {
    return todo();
  }
  durableOn(_count: number): number {
    return todo();
  }
  progress(): readonly FollowerProgress[] {
    return todo();
  }
  /** Inclusive on both ends; undefined when a part is no longer (or not yet) in the window. */
  entriesBetween(_from: number, _to: number): Entry[] | undefined {
    return todo();
  }
  termAt(_index: number): number | undefined {
    return todo();
  }
}
