import { FlotillaError } from '../../../src/base/errors.ts';
import type { ReplicaId } from '../../../src/base/ids.ts';
import { EntryKind } from '../../../src/raft/core/entry.ts';
import type { Members } from '../../../src/raft/core/membership.ts';
import type { EntriesWanted, Message, Role } from '../../../src/raft/core/types.ts';
import { TraceChecker } from '../../spec/cluster.ts';
import type { Record } from '../../spec/recorder.ts';
import { SeededRandom } from '../random.ts';
import { Invariants } from './invariants.ts';
import { configurationOf, memberOf, SimulatedReplica } from './simulated-replica.ts';
import { type Action, drawWeather, type Weather } from './weather.ts';

export interface SimulationOptions {
  /** Random actions before the liveness phase. Default 1500. */
  readonly steps?: number;
  /** Gets the trace. Default: the specification's checker, which throws at what it does not allow. */
  readonly record?: Record;
}

export interface SimulationResult {
  readonly committed: number;
  readonly terms: number;
  readonly reads: number;
  readonly crashes: number;
  /** Times that a group fell to rest on a replica. */
  readonly rests: number;
  readonly memberChanges: number;
  readonly snapshots: number;
  /** Over everything that happened: equal for equal seeds. */
  readonly hash: number;
}

/** Ticks in which a healed cluster must elect a leader and commit. */
const LIVENESS_TICKS = 300;

/** Runs cores in a random, hostile world; throws at the first broken invariant. The same seed runs the same world. */
export function simulateCore(seed: number, options: SimulationOptions = {}): SimulationResult {
  const { steps = 1500, record = new TraceChecker().check } = options;
  return new Simulation(seed, record).run(steps);
}

class Simulation {
  readonly #random: SeededRandom;
  readonly #replicas: SimulatedReplica[];
  readonly #voters: number;
  readonly #invariants: Invariants;
  readonly #weather: Weather;
  readonly #totalWeight: number;
  #network: Message[] = [];
  #reads: { readonly by: SimulatedReplica; readonly core: unknown; readonly wanted: EntriesWanted }[] = [];
  #snapshots: { readonly by: SimulatedReplica; readonly core: unknown; readonly to: ReplicaId }[] = [];
  /** Directed links that are cut: `from * 32 + to`. */
  readonly #cut = new Set<number>();
  /** A replica whose clock is ten times slower than the others', so that it leads on when it is deposed; 0: none. */
  #slowClock = 0;
  readonly #quiesceTicks: number;
  #proposals = 0;
  #context = 0;
  #crashes = 0;
  #rests = 0;
  readonly #resting = new Set<SimulatedReplica>();
  #memberChanges = 0;
  #installs = 0;
  #hash = 0x811c9dc5;

  constructor(seed: number, record: Record) {
    const random = new SeededRandom(seed);
    this.#random = random;
    const voters = random.pick([1, 3, 3, 3, 3, 5, 5, 2, 4]);
    this.#voters = voters;
    const configuration = configurationOf(voters);
    const window = random.pick([0, 0, 200, 1000, 1_000_000]);
    const quiesceTicks = random.pick([0, 4, 6]);
    this.#quiesceTicks = quiesceTicks;
    const spares = random.pick([0, 2, 4]);
    const ids = Array.from({ length: voters + spares }, (_, i) => (i + 1) as ReplicaId);
    const shared = { quiesceTicks, record };
    this.#replicas = ids.map((id) => new SimulatedReplica(id, configuration, random.fork(), window, shared));
    this.#invariants = new Invariants(this.#replicas);
    this.#weather = drawWeather(random, voters);
    this.#totalWeight = this.#weather.weights.reduce((sum, [, weight]) => sum + weight, 0);
  }

  run(steps: number): SimulationResult {
    for (let step = 0; step < steps; step++) {
      this.#act(this.#drawAction());
      this.#readOfDeposed();
    }
    if (this.#memberChanges === 0 && !this.#replicas.some(({ lost }) => lost)) this.#expectProgressOf(this.#breakForGood());
    this.#cut.clear();
    this.#expectProgressOf(undefined);
    if (this.#quiesceTicks > 0) this.#expectRest();
    const terms = Math.max(...this.#replicas.map((replica) => replica.core?.term ?? 0));
    const { committedIndex, confirmedReads } = this.#invariants;
    return {
      committed: committedIndex,
      terms,
      reads: confirmedReads,
      crashes: this.#crashes,
      memberChanges: this.#memberChanges,
      rests: this.#rests,
      snapshots: this.#installs,
      hash: this.#hash,
    };
  }

  #drawAction(): Action {
    let at = this.#random.between(0, this.#totalWeight);
    for (const [action, weight] of this.#weather.weights) {
      at -= weight;
      if (at < 0) return action;
    }
    return 'tick';
  }

  #act(action: Action): void {
    const random = this.#random;
    const replica = random.pick(this.#replicas);
    this.#mix(action.charCodeAt(0) * 31 + action.length * 8 + replica.id);
    switch (action) {
      case 'deliver':
        this.#deliverAny();
        return;
      case 'persist':
        this.#completeOne(replica);
        return;
      case 'supply':
        this.#supplyOne();
        return;
      case 'crash':
        this.#crashes++;
        replica.crash();
        return;
      case 'restart':
        for (const each of this.#replicas) if (each.core === undefined && !each.lost && random.chance(0.5)) this.#restart(each);
        return;
      case 'cut':
        this.#cutSomething(replica.id);
        return;
      case 'depose':
        this.#cutOffLeader();
        return;
      case 'heal':
        this.#cut.clear();
        this.#slowClock = 0;
        return;
      case 'release':
        replica.release();
        return;
      case 'drop':
        replica.release();
        replica.drop();
        return;
      case 'snapshot':
        this.#bringSnapshot();
        return;
      case 'tick':
        if (replica.id === this.#slowClock && random.chance(0.9)) return;
        replica.core?.tick();
        break;
      case 'propose':
        for (const each of this.#replicas) this.#propose(each);
        return;
      case 'read':
        for (const each of this.#replicas) this.#read(each);
        return;
      case 'transfer':
        replica.core?.transferLeadership(random.pick(this.#replicas).id);
        break;
      case 'calm':
        if (this.#cut.size === 0) for (let i = 0; i < 8; i++) this.#calmTick();
        return;
      case 'hear':
        this.#hear(replica, random.pick(this.#replicas));
        return;
      case 'members':
        for (const each of this.#replicas) if (each.core?.role === 'leader') this.#changeMembers(each);
        return;
      case 'wipe':
        this.#wipe(replica);
        return;
      case 'hint':
        if (random.chance(0.3)) replica.core?.campaign();
        else replica.core?.leaderUnreachable();
        break;
    }
    this.#drain(replica);
  }

  // A replica's Ready

  #drain(replica: SimulatedReplica): void {
    const core = replica.core;
    if (core === undefined) return;
    this.#invariants.durable(replica);
    this.#watchRest(replica, core.quiesced);
    this.#invariants.intact(replica);
    while (core.hasReady()) {
      const ready = core.ready();
      for (const message of ready.messages) this.#send(replica, message);
      if (ready.persist !== undefined) {
        this.#invariants.appended(ready.persist.entries);
        replica.pending.push({ unit: ready.persist, afterwards: ready.afterPersist });
      } else if (ready.afterPersist.length > 0) {
        throw new Error('messages wait for a persist unit that does not exist');
      }
      this.#invariants.committed(replica, ready.committed);
      for (const read of ready.readStates) this.#invariants.readConfirmed(read);
      for (const wanted of ready.reads) this.#reads.push({ by: replica, core, wanted });
      for (const { to } of ready.snapshots) this.#snapshots.push({ by: replica, core, to });
      this.#invariants.led(replica);
      this.#mix(core.term * 7919 + core.commitIndex * 31 + core.lastIndex);
    }
  }

  #watchRest(replica: SimulatedReplica, quiesced: boolean): void {
    if (!quiesced) this.#resting.delete(replica);
    else if (!this.#resting.has(replica)) {
      this.#resting.add(replica);
      this.#rests++;
      this.#invariants.rests(replica);
    }
  }

  #send(replica: SimulatedReplica, message: Message): void {
    this.#invariants.sent(replica, message);
    this.#network.push(message);
  }

  #completeOne(replica: SimulatedReplica): void {
    const pending = replica.pending.shift();
    if (pending === undefined || replica.core === undefined) return;
    replica.write(pending.unit);
    replica.core.persisted(pending.unit.token);
    // A completion that is reported again, or late, must change nothing (hazards B07, B08).
    if (this.#random.chance(0.1)) replica.core.persisted(Math.max(1, pending.unit.token - this.#random.below(3)));
    for (const message of pending.afterwards) this.#send(replica, message);
    this.#drain(replica);
  }

  #restart(replica: SimulatedReplica): void {
    replica.start();
    this.#drain(replica);
  }

  // The network

  #deliverAny(): void {
    const random = this.#random;
    if (this.#network.length === 0) return;
    const at = random.chance(this.#weather.reorder) ? random.below(this.#network.length) : 0;
    const message = this.#network[at] as Message;
    if (random.chance(this.#weather.duplication)) this.#network.push(message);
    this.#network.splice(at, 1);
    if (random.chance(this.#weather.loss) || this.#cut.has(message.from * 32 + message.to)) return;
    this.#deliver(message);
  }

  #deliver(message: Message): void {
    const replica = this.#replicas[message.to - 1] as SimulatedReplica;
    replica.core?.step(message);
    this.#drain(replica);
  }

  #cutSomething(id: number): void {
    const random = this.#random;
    const shape = random.below(5);
    const side = new Set(this.#replicas.filter(() => random.chance(0.5)).map((replica) => replica.id));
    for (const { id: from } of this.#replicas) {
      for (const { id: to } of this.#replicas) {
        const cut =
          (shape === 0 && (from === id || to === id)) ||
          (shape === 1 && from === id) ||
          (shape === 2 && to === id) ||
          (shape === 3 && side.has(from) !== side.has(to)) ||
          (shape === 4 && from !== id && to !== id && from !== to);
        if (cut) this.#cut.add(from * 32 + to);
      }
    }
  }

  /** The others elect another, and the leader takes long to notice. */
  #cutOffLeader(): void {
    const leader = this.#replicas.find((replica) => replica.core?.isReady === true);
    if (leader === undefined) return;
    this.#cut.clear();
    this.#slowClock = leader.id;
    for (const { id } of this.#replicas) if (id !== leader.id) this.#cut.add(leader.id * 32 + id).add(id * 32 + leader.id);
  }

  // Clients, and the host's storage

  #propose(replica: SimulatedReplica): void {
    const core = replica.core;
    if (core === undefined) return;
    const proposals = Array.from({ length: 1 + this.#random.below(3) }, () => ({
      kind: EntryKind.batch,
      payload: new Uint8Array(this.#random.below(64)),
      recordCount: 1 + this.#random.below(5),
      payloadChecksum: ++this.#proposals,
    }));
    attempt(() => core.propose(proposals));
    this.#drain(replica);
  }

  /** Adds or drops a learner, or draws the voters anew from voters and learners. */
  #changeMembers(replica: SimulatedReplica): void {
    const core = replica.core;
    if (core === undefined) return;
    const random = this.#random;
    const { voters, learners } = core.configuration;
    const members = [...voters, ...learners];
    const others = this.#replicas.filter(({ id, lost }) => !lost && !members.some(({ replicaId }) => replicaId === id));
    const target = random.pick<() => Members>([
      () => ({ voters, learners: [...learners, ...others.slice(0, 1).map(({ id }) => memberOf(id))] }),
      () => ({ voters, learners: learners.filter(() => random.chance(0.7)) }),
      () => {
        const chosen = members.filter(({ replicaId }) => !this.#isLost(replicaId) && random.chance(0.7));
        return { voters: chosen, learners: members.filter((member) => !chosen.includes(member) && random.chance(0.5)) };
      },
    ])();
    // A lost replica counts as a voter until it is replaced, so there must be enough others.
    if (target.voters.length < (this.#replicas.some(({ lost }) => lost) ? 3 : 1)) return;
    attempt(() => {
      core.proposeMembers(target);
      this.#memberChanges++;
    });
    this.#drain(replica);
  }

  #isLost(id: ReplicaId): boolean {
    return this.#replicas[id - 1]?.lost === true;
  }

  /** A disk is lost for good: once a world, and not where what is left would be no majority. Another replica may take its place. */
  #wipe(replica: SimulatedReplica): void {
    const sizes = this.#replicas.flatMap(({ core }) =>
      core === undefined ? [] : [core.configuration.voters.length, core.configuration.outgoing.length || 3],
    );
    if (this.#replicas.some(({ lost, core }) => lost || core === undefined) || Math.min(...sizes) < 3) return;
    replica.crash();
    replica.lost = true;
  }

  #read(replica: SimulatedReplica): void {
    const core = replica.core;
    if (core?.role !== 'leader') return;
    this.#invariants.readBegins(++this.#context);
    attempt(() => core.readIndex(this.#context));
    this.#drain(replica);
  }

  /** Two lead at once: one of them is deposed and has yet to learn of it, and must not confirm what it is asked now (hazard B19). */
  #readOfDeposed(): void {
    const leaders = this.#replicas.filter((replica) => replica.core?.role === 'leader');
    if (leaders.length > 1 && this.#random.chance(0.2)) for (const leader of leaders) this.#read(leader);
  }

  #supplyOne(): void {
    const read = this.#reads.shift();
    if (read === undefined || read.by.core === undefined || read.by.core !== read.core) return;
    const { fromIndex, to } = read.wanted;
    const lost = this.#random.chance(0.1) || fromIndex < read.by.firstIndex;
    const end = Math.min(read.by.segmentIndex, fromIndex + this.#random.below(4));
    read.by.core.supplyEntries(to, lost ? [] : read.by.durable.slice(fromIndex - 1, end));
    this.#drain(read.by);
  }

  #hear(replica: SimulatedReplica, other: SimulatedReplica): void {
    if (replica === other) return;
    replica.hear(other, this.#cut.has(other.id * 32 + replica.id));
    this.#drain(replica);
  }

  /** What the host does for a follower below the log's start: brings it a snapshot of any committed entry from there on, or fails to. */
  #bringSnapshot(): void {
    const wanted = this.#snapshots.shift();
    if (wanted === undefined || wanted.by.core === undefined || wanted.by.core !== wanted.core) return;
    const { by, to } = wanted;
    const index = by.firstIndex - 1 + this.#random.below(by.segmentIndex - by.firstIndex + 2);
    const brought = index > 0 && !this.#random.chance(0.2) && this.#install(by, this.#replicas[to - 1] as SimulatedReplica, index);
    by.core?.snapshotDone(to, brought ? index : undefined);
    this.#drain(by);
  }

  /** A log that holds the entry stays; what was under way on the follower's disk is done first. */
  #install(from: SimulatedReplica, to: SimulatedReplica, index: number): boolean {
    const term = from.core?.termAt(index) ?? 0;
    while (to.pending.length > 0) this.#completeOne(to);
    if (to.core === undefined || isCandidate(to.core.role) || to.core.term < term) return false;
    if (to.core.hasCommitted(index, term)) {
      this.#drain(to);
      return true;
    }
    to.install(from, index);
    this.#installs++;
    this.#drain(to);
    return true;
  }

  // Liveness

  /**
   * Cuts links that stay cut, such that one replica still reaches a majority both ways, and returns those that must agree: the shapes of OmniPaxos (EuroSys '23),
   * one replica that nobody hears, one that hears nobody.
   */
  #breakForGood(): readonly SimulatedReplica[] {
    this.#cut.clear();
    const voters = this.#replicas.slice(0, this.#voters);
    const odd = this.#random.pick(voters);
    const others = voters.filter((replica) => replica !== odd);
    const shape = others.length < 2 ? 'none' : this.#random.pick(['star', 'mute', 'deaf', 'chain', 'none']);
    if (shape === 'star') for (const a of others) for (const b of others) this.#cutLink(a, b);
    if (shape === 'mute') for (const other of others) this.#cutLink(odd, other);
    if (shape === 'deaf') for (const other of others) this.#cutLink(other, odd);
    if (shape === 'chain')
      for (const [a, b] of [others.slice(0, 2), others.slice(0, 2).reverse()]) this.#cutLink(a as SimulatedReplica, b as SimulatedReplica);
    return shape === 'star' ? [odd] : shape === 'none' ? voters : others.slice(shape === 'chain' ? 2 : 0);
  }

  #cutLink({ id: from }: SimulatedReplica, { id: to }: SimulatedReplica): void {
    this.#cut.add(from * 32 + to);
  }

  /** All replicas are up: within a bound, one leads and `agreeing` (undefined: all of its configuration) have committed a new entry. */
  #expectProgressOf(agreeing: readonly SimulatedReplica[] | undefined): void {
    for (const replica of this.#replicas) if (replica.core === undefined && !replica.lost) this.#restart(replica);
    const before = this.#invariants.committedIndex;
    for (let tick = 0; tick < LIVENESS_TICKS; tick++) {
      this.#calmTick();
      const leader = this.#replicas.findLast((replica) => replica.core?.isReady === true);
      if (tick % 8 === 0) for (const replica of this.#replicas) if (replica.core?.isReady === true) this.#propose(replica);
      const target = this.#invariants.committedIndex;
      if (leader === undefined || target === before) continue;
      if (
        agreeing === undefined
          ? this.#haveAgreed(leader, target)
          : agreeing.every(({ core }) => core !== undefined && core.commitIndex > before)
      )
        return;
    }
    const states = this.#replicas.map(
      ({ id, core }) => `${id}: ${core?.role} term ${core?.term} commit ${core?.commitIndex} last ${core?.lastIndex}/${core?.lastTerm}`,
    );
    throw new Error(
      `liveness: no agreement within ${LIVENESS_TICKS} ticks (committed ${this.#invariants.committedIndex}, cut ${[...this.#cut].map((link) => `${link >> 5}>${link & 31}`)}); ${states.join('; ')}`,
    );
  }

  /** All members of the leader's configuration, which is not joint any more, have committed all. */
  #haveAgreed(leader: SimulatedReplica, target: number): boolean {
    const { voters = [], outgoing = [], learners = [] } = leader.core?.configuration ?? {};
    const members = [...voters, ...learners].filter(({ replicaId }) => !this.#isLost(replicaId));
    return outgoing.length === 0 && members.every(({ replicaId }) => this.#replicas[replicaId - 1]?.core?.commitIndex === target);
  }

  /** Left alone, the members of a group all come to rest, unless one is gone for good. */
  #expectRest(): void {
    let members: SimulatedReplica[] = [];
    for (let tick = 0; tick < LIVENESS_TICKS; tick++) {
      this.#calmTick();
      const leader = this.#replicas.find((replica) => replica.core?.isReady === true);
      const { voters = [], learners = [] } = leader?.core?.configuration ?? {};
      members = [...voters, ...learners].map(({ replicaId }) => this.#replicas[replicaId - 1] as SimulatedReplica);
      if (leader !== undefined && members.some(({ lost }) => lost)) return;
      if (leader !== undefined && members.every(({ core }) => core?.quiesced === true)) return;
    }
    const states = members.map(({ id, core }) => `${id}: ${core?.role} quiesced ${core?.quiesced}`);
    throw new Error(`liveness: not at rest within ${LIVENESS_TICKS} ticks; ${states.join('; ')}`);
  }

  #calmTick(): void {
    for (const replica of this.#replicas) {
      replica.core?.tick();
      this.#drain(replica);
    }
    for (let round = 0; round < 6; round++) this.#settle();
    for (const replica of this.#replicas) for (const other of this.#replicas) this.#hear(replica, other);
  }

  #settle(): void {
    const messages = this.#network;
    this.#network = [];
    for (const message of messages) if (!this.#cut.has(message.from * 32 + message.to)) this.#deliver(message);
    for (const replica of this.#replicas) while (replica.pending.length > 0) this.#completeOne(replica);
    while (this.#reads.length > 0) this.#supplyOne();
    while (this.#snapshots.length > 0) this.#bringSnapshot();
  }

  #mix(value: number): void {
    this.#hash = Math.imul(this.#hash ^ (value | 0), 0x01000193) >>> 0;
  }
}

/** Or leads already: such a one has votes to count, and is not behind for long. */
function isCandidate(role: Role): boolean {
  return role === 'leader' || role === 'candidate';
}

/** Runs what an operating error may refuse. */
function attempt(task: () => unknown): void {
  try {
    task();
  } catch (error) {
    if (!(error instanceof FlotillaError)) throw error;
  }
}
