import { formatGroupKey, type GroupKey } from '../../src/base/ids.ts';
import type { RaftCore } from '../../src/raft/core/raft.ts';
import type { Configuration } from '../../src/raft/core/types.ts';
import { RaftReplica } from '../../src/raft/replica.ts';
import type { Replica } from '../../src/raft/types.ts';
import type { SimCluster, SimMachine } from './cluster.ts';
import { DurableLogs } from './durable-logs.ts';
import type { VirtualEnvironment } from './virtual-environment.ts';

/** A broken promise of the cluster. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** A replica as it was after the step before. */
interface Seen {
  commitIndex: number;
  lastIndex: number;
  term: number;
  role: string;
}

/** The furthest that a group is known to have committed. */
interface Committed {
  index: number;
  term: number;
}

/** What must hold after every step, whatever breaks. A step changes the replicas of one machine, so only those are looked at. */
export class Invariants {
  readonly #cluster: SimCluster;
  readonly #logs = new DurableLogs((message) => this.fail(new Violation(message)));
  readonly #leaders = new Map<string, number>();
  readonly #seen = new WeakMap<Replica, Seen>();
  readonly #committed = new Map<GroupKey, Committed>();
  /** The identity of each entry that was the last one of a replica's segments. */
  readonly #segments = new Map<string, string>();
  #violation: Violation | undefined;

  constructor(cluster: SimCluster) {
    this.#cluster = cluster;
    cluster.time.afterEvent = (owner) => this.#step(owner);
    for (const { id, disk } of cluster.machines) {
      disk.onDurable = (path, inode, position, length) => this.#logs.durable(id, path, inode, position, length);
    }
    cluster.onWiped = (id) => this.#logs.wiped(id);
    cluster.onRaftFrame = (id, frame) => this.#logs.sent(id, frame);
  }

  /** Leaderships that there were. */
  get elections(): number {
    return this.#leaders.size;
  }

  /** Throws what was broken, if anything was. */
  check(): void {
    if (this.#violation !== undefined) throw this.#violation;
    const [failure] = this.#cluster.failures;
    if (failure !== undefined) throw new Violation(`a broker ended itself: ${failure.stack}`, { cause: failure });
  }

  #step(owner: VirtualEnvironment | undefined): void {
    if (owner?.machine === undefined || this.#violation !== undefined) return;
    const machine = this.#cluster.machine(owner.machine);
    if (machine.broker === undefined || machine.environment?.killed !== false) return;
    try {
      for (const replica of machine.broker.replicas) this.#look(machine, replica);
    } catch (error) {
      // Not thrown here, inside the clock: whoever runs it asks.
      this.fail(error instanceof Violation ? error : new Violation(String(error), { cause: error }));
    }
  }

  /** The first one counts. */
  fail(violation: Violation): void {
    this.#violation ??= violation;
  }

  #look(machine: SimMachine, replica: Replica): void {
    if (!(replica instanceof RaftReplica)) return;
    const { role, term, commitIndex, lastIndex } = replica.core;
    const before = this.#seen.get(replica);
    if (before === undefined) this.#seen.set(replica, { commitIndex, lastIndex, term, role });
    else if (before.commitIndex === commitIndex && before.lastIndex === lastIndex && before.term === term && before.role === role) return;
    this.#checkStep(machine, replica, before);
    if (before !== undefined) Object.assign(before, { commitIndex, lastIndex, term, role });
  }

  #checkStep({ id }: SimMachine, replica: RaftReplica, before: Seen | undefined): void {
    const { core, group } = replica;
    const { role, term, commitIndex, lastIndex } = core;
    const name = `${formatGroupKey(group)} on broker ${id}`;
    if (before !== undefined) {
      check(commitIndex >= before.commitIndex, `${name}: commit index went from ${before.commitIndex} to ${commitIndex}`);
      check(term >= before.term, `${name}: term went from ${before.term} to ${term}`);
    }
    check(lastIndex >= commitIndex, `${name}: committed ${commitIndex}, and holds entries up to ${lastIndex}`);
    if (role === 'leader' && (before?.role !== 'leader' || before.term !== term)) this.#leads(id, replica, name);
    if (commitIndex > (before?.commitIndex ?? 0)) this.#commits(replica, name, role === 'leader' && before?.role === 'leader');
  }

  /** Election safety and leader completeness. */
  #leads(broker: number, { group, core }: RaftReplica, name: string): void {
    const key = `${group}/${core.term}`;
    const other = this.#leaders.get(key);
    check(other === undefined || other === broker, `${name} and broker ${other} both lead term ${core.term}`);
    this.#leaders.set(key, broker);
    const committed = this.#committed.get(group);
    if (committed === undefined || committed.term > core.term) return;
    const has = core.lastIndex < committed.index ? 'nothing' : core.termAt(committed.index);
    // Undefined: so old that the log knows no more of it than that it committed.
    check(
      has === undefined || has === committed.term,
      `${name} leads term ${core.term} with ${has === 'nothing' ? `nothing after entry ${core.lastIndex}` : `term ${has} at ${committed.index}`}, and entry ${committed.index} of term ${committed.term} is committed`,
    );
  }

  /** State-machine safety; that a leader commits through entries of its own term (B05); that what commits is on a majority of disks. */
  #commits({ core, group, log }: RaftReplica, name: string, leads: boolean): void {
    const index = core.commitIndex;
    const term = core.termAt(index);
    if (term !== undefined) {
      check(!leads || term === core.term, `${name} leads term ${core.term} and committed entry ${index} of term ${term}`);
      const known = this.#committed.get(group);
      if (known?.index === index)
        check(known.term === term, `${name}: the committed entry ${index} has term ${term}, elsewhere ${known.term}`);
      if (known === undefined || index > known.index) {
        this.#committed.set(group, { index, term });
        this.#logs.mustHold(group, index, term, inForceFor(index, core), name);
      }
    }
    check(log.lastIndex <= index, `${name}: segments reach ${log.lastIndex} beyond the commit index ${index}`);
    const last = log.terms.at(-1);
    if (last === undefined) return;
    const place = `${group}@${log.lastIndex}`;
    const identity = `term ${last.term}, next offset ${log.nextOffset}`;
    const known = this.#segments.get(place);
    if (known === undefined) this.#segments.set(place, identity);
    check(
      known === undefined || known === identity,
      `${name}: the committed entry ${log.lastIndex} has ${identity}; elsewhere it has ${known}`,
    );
  }
}

/** In one step a leader may commit and then begin a change: what committed before that needs the majority of the former voters alone (seed 2712). */
function inForceFor(index: number, { configuration, configurationIndex }: RaftCore): Configuration {
  const { outgoing } = configuration;
  return outgoing.length > 0 && configurationIndex > index ? { ...configuration, voters: outgoing, outgoing: [] } : configuration;
}

function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Violation(message);
}
