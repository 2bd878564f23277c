import { formatGroupKey, type GroupKey } from '../../src/base/ids.ts';
import type { Replica } from '../../src/raft/types.ts';
import type { SimCluster } from './cluster.ts';

/** A broken promise of the cluster. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

interface Seen {
  readonly commitIndex: number;
  readonly term: number;
  readonly role: string;
}

const PAGE_BYTES = 1 << 20;

/** What must hold at every moment, whatever breaks. */
export class Invariants {
  readonly #cluster: SimCluster;
  readonly #leaders = new Map<string, number>();
  readonly #seen = new WeakMap<Replica, Seen>();
  /** The term of each committed entry that was ever some replica's last committed one. */
  readonly #committed = new Map<string, string>();

  constructor(cluster: SimCluster) {
    this.#cluster = cluster;
  }

  get elections(): number {
    return this.#leaders.size;
  }

  check(): void {
    const [failure] = this.#cluster.failures;
    if (failure !== undefined) throw new Violation(`a broker ended itself: ${failure.stack}`, { cause: failure });
    for (const { id, broker } of this.#cluster.machines) {
      if (broker === undefined || !this.#cluster.isUp(id)) continue;
      for (const replica of broker.replicas) this.#checkReplica(id, replica);
    }
  }

  #checkReplica(broker: number, replica: Replica): void {
    const { role, term } = replica.leadership;
    const { commitIndex, lastIndex, log } = replica;
    const name = () => `${formatGroupKey(replica.group)} on broker ${broker}`;
    if (role === 'leader') {
      const key = `${replica.group}/${term}`;
      const other = this.#leaders.get(key);
      if (other === undefined) this.#leaders.set(key, broker);
      else if (other !== broker) throw new Violation(`${name()} and broker ${other} both lead term ${term}`);
    }
    const before = this.#seen.get(replica);
    if (before !== undefined) {
      if (commitIndex < before.commitIndex)
        throw new Violation(`${name()}: commit index went from ${before.commitIndex} to ${commitIndex}`);
      if (term < before.term) throw new Violation(`${name()}: term went from ${before.term} to ${term}`);
    }
    if (lastIndex < commitIndex) throw new Violation(`${name()}: committed ${commitIndex}, and holds entries up to ${lastIndex}`);
    if (log.lastIndex > commitIndex)
      throw new Violation(`${name()}: segments reach ${log.lastIndex} beyond the commit index ${commitIndex}`);
    this.#seen.set(replica, { commitIndex, term, role });
    const last = log.terms.at(-1);
    if (last === undefined) return;
    const led = role === 'leader' && before?.role === 'leader' && term === before.term;
    if (led && commitIndex > before.commitIndex && log.lastIndex === commitIndex && last.term !== term)
      throw new Violation(`${name()} leads term ${term} and committed entry ${commitIndex} of term ${last.term}`);
    const place = `${replica.group}@${log.lastIndex}`;
    const identity = `term ${last.term}, next offset ${log.nextOffset}`;
    const known = this.#committed.get(place);
    if (known === undefined) this.#committed.set(place, identity);
    else if (known !== identity) {
      throw new Violation(`${name()}: the committed entry ${log.lastIndex} has ${identity}; elsewhere it has ${known}`);
    }
  }

  /** Whether all replicas of each group have committed the same entries, by count, and a group has all its replicas or, deleted, none. */
  converged(): boolean {
    const commits = new Map<GroupKey, number>();
    const missing = new Map<GroupKey, number>();
    for (const { broker } of this.#cluster.machines) {
      for (const { group, commitIndex, log, configuration } of broker?.replicas ?? []) {
        const other = commits.get(group);
        if (log.lastIndex !== commitIndex || (other !== undefined && other !== commitIndex)) return false;
        commits.set(group, commitIndex);
        missing.set(group, (missing.get(group) ?? configuration.voters.length) - 1);
      }
    }
    return commits.size > 0 && [...missing.values()].every((count) => count === 0);
  }

  /** For a person: where each replica stands. */
  describe(): string {
    const lines: string[] = [];
    for (const { id, broker } of this.#cluster.machines) {
      lines.push(`broker ${id}: ${this.#cluster.isUp(id) ? 'up' : 'down'}`);
      for (const { group, commitIndex, lastIndex, durableIndex, leadership } of broker?.replicas ?? []) {
        const { role, term, ready, leader } = leadership;
        lines.push(
          `  ${formatGroupKey(group)}: ${role}${ready ? ' (ready)' : ''} term ${term} leader ${leader?.brokerId} commit ${commitIndex} durable ${durableIndex} last ${lastIndex}`,
        );
      }
    }
    return lines.join('\n');
  }

  /** All committed entries of all replicas are the same, by their chain hashes. */
  async compareLogs(): Promise<void> {
    const chains = new Map<string, string>();
    for (const { id, broker } of this.#cluster.machines) {
      for (const { group, log } of broker?.replicas ?? []) {
        for (let next = 1; next <= log.lastIndex; ) {
          const page = await log.readEntries(next, PAGE_BYTES);
          for (const { index, term, chainHigh, chainLow, nextOffset } of page) {
            if (index !== next++) throw new Violation(`${formatGroupKey(group)} on broker ${id}: entry ${index} where ${next - 1} belongs`);
            const place = `${group}@${index}`;
            const identity = `${term}/${nextOffset}/${chainHigh}.${chainLow}`;
            const other = chains.get(place);
            if (other === undefined) chains.set(place, identity);
            else if (other !== identity) {
              throw new Violation(`${formatGroupKey(group)} on broker ${id}: entry ${index} is ${identity}, elsewhere ${other}`);
            }
          }
          if (page.length === 0) throw new Violation(`${formatGroupKey(group)} on broker ${id}: no entry ${next} of ${log.lastIndex}`);
        }
      }
    }
  }
}
