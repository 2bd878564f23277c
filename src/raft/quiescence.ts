/**
 * Which groups of this broker are active, and which rest. What happens each tick or heartbeat happens to active groups only: one
 * that rests is not even looked at, so ten thousand of them cost nothing.
 *
 * A group rests on all its brokers or on none. Its core sees to that (core/leader.ts, `tick`), but a heartbeat can get lost, a replica can be closed, a
 * leader can step down where a follower does not hear of it; and then a follower would rest for ever under a leader that is
 * none, or a leader would rest while a follower starts elections (hazard B39). So each heartbeat between two brokers carries a
 * {@link Digest} of the groups that the sender leads at rest with a member on the receiver. The receiver compares it with those that rest here under a leader
 * there. When they have differed for longer than a heartbeat may be under way, both wake all of those groups, and the ones that may rest do so again.
 *
 * A digest is kept up as groups fall to rest and wake, never computed over all of them. Nothing in it changes while a group rests: not its
 * term, not its members.
 */
import type { BrokerId, GroupKey } from '../base/ids.ts';
import { membersOf } from './core/configuration.ts';
import type { RaftReplica } from './replica.ts';

/** A set of (group, term), whatever its order. */
export interface Digest {
  readonly count: number;
  /** Unsigned, 32 bits. */
  readonly hash: number;
}

/** Heartbeats in a row whose digest differs before the groups are woken: what they tell may have crossed what this broker told. */
const MAX_MISMATCHES = 2;
const EMPTY: Digest = { count: 0, hash: 0 };

class MutableDigest implements Digest {
  count = 0;
  hash = 0;

  add(hash: number): void {
    this.count++;
    this.hash = (this.hash ^ hash) >>> 0;
  }

  remove(hash: number): void {
    this.count--;
    this.hash = (this.hash ^ hash) >>> 0;
  }
}

/** Where a group at rest is counted. */
interface Rest {
  readonly hash: number;
  readonly digests: readonly MutableDigest[];
}

export class Quiescence {
  readonly #active = new Set<RaftReplica>();
  readonly #resting = new Map<RaftReplica, Rest>();
  /** At rest, with entries in memory that are not in segments yet. */
  readonly #unwritten = new Set<RaftReplica>();
  readonly #self: BrokerId;
  readonly #led = new Map<BrokerId, MutableDigest>();
  readonly #followed = new Map<BrokerId, MutableDigest>();
  readonly #mismatches = new Map<BrokerId, number>();

  constructor(self: BrokerId) {
    this.#self = self;
  }

  /** Groups that need ticks. */
  get active(): Iterable<RaftReplica> {
    return this.#active;
  }
  get activeCount(): number {
    return this.#active.size;
  }

  /** A group was opened: none starts at rest. */
  add(replica: RaftReplica): void {
    this.#active.add(replica);
  }

  remove(replica: RaftReplica): void {
    this.#wake(replica);
    this.#active.delete(replica);
  }

  /** To be called after any input to a group: it may have woken, or fallen to rest. */
  settle(replica: RaftReplica): void {
    const rests = replica.core.quiesced || replica.core.damage !== undefined;
    if (replica.closed || rests !== this.#active.has(replica)) return;
    if (rests) this.#rest(replica);
    else this.#wake(replica);
  }

  /** Groups that this broker leads and holds at rest, with a member on `broker`. */
  ledWith(broker: BrokerId): Digest {
    return this.#led.get(broker) ?? EMPTY;
  }

  /** Takes what a heartbeat of `broker` says of the groups that it leads at rest. True: they are to be woken, here and there. */
  differs(broker: BrokerId, theirs: Digest): boolean {
    const ours = this.#followed.get(broker) ?? EMPTY;
    const mismatches = ours.count === theirs.count && ours.hash === theirs.hash ? 0 : (this.#mismatches.get(broker) ?? 0) + 1;
    this.#mismatches.set(broker, mismatches > MAX_MISMATCHES ? 0 : mismatches);
    return mismatches > MAX_MISMATCHES;
  }

  wakeLedWith(broker: BrokerId): void {
    for (const replica of [...this.#resting.keys()]) if (replica.core.role === 'leader' && replica.isMember(broker)) replica.wake();
  }

  wakeFollowed(broker: BrokerId): void {
    for (const replica of [...this.#resting.keys()]) if (replica.leaderBroker === broker) replica.wake();
  }

  /** Groups at rest let go of what has been written to segments since. */
  release(): void {
    for (const replica of this.#unwritten) if (replica.release()) this.#unwritten.delete(replica);
  }

  #rest(replica: RaftReplica): void {
    this.#active.delete(replica);
    if (!replica.release()) this.#unwritten.add(replica);
    const hash = hashOf(replica.group, replica.core.term);
    const digests = replica.core.role === 'leader' ? this.#digestsOfMembers(replica) : [];
    // One that is quarantined follows nobody, and counts nowhere.
    const leader = replica.leaderBroker;
    if (leader !== undefined && leader !== this.#self) digests.push(digestOf(this.#followed, leader));
    for (const digest of digests) digest.add(hash);
    this.#resting.set(replica, { hash, digests });
  }

  #wake(replica: RaftReplica): void {
    const rest = this.#resting.get(replica);
    if (rest === undefined) return;
    this.#resting.delete(replica);
    this.#unwritten.delete(replica);
    for (const digest of rest.digests) digest.remove(rest.hash);
    this.#active.add(replica);
  }

  #digestsOfMembers({ configuration }: { readonly configuration: RaftReplica['configuration'] }): MutableDigest[] {
    const brokers = new Set(membersOf(configuration).map(({ brokerId }) => brokerId));
    brokers.delete(this.#self);
    return [...brokers].map((broker) => digestOf(this.#led, broker));
  }
}

function digestOf(digests: Map<BrokerId, MutableDigest>, broker: BrokerId): MutableDigest {
  let digest = digests.get(broker);
  if (digest === undefined) {
    digest = new MutableDigest();
    digests.set(broker, digest);
  }
  return digest;
}

/** MurmurHash3's mix over the key's bytes and the term. */
function hashOf(group: GroupKey, term: number): number {
  let hash = term | 0;
  for (let at = 0; at < group.length; at++) {
    hash = Math.imul(hash ^ group.charCodeAt(at), 0xcc9e2d51);
    hash = (hash << 15) | (hash >>> 17);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
