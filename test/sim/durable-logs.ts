/**
 * What the simulated disks hold for certain, read off the frames of the write-ahead logs as they become durable. So what brokers say of their
 * disks is checked against the disks, and not against what they believe.
 */
import { crc32 } from 'node:zlib';
import { formatGroupKey, type GroupKey, type ReplicaId } from '../../src/base/ids.ts';
import { decodeFrame } from '../../src/raft/codec.ts';
import { decodeEntry, entrySize } from '../../src/raft/core/entry-codec.ts';
import type { Configuration, Member } from '../../src/raft/core/types.ts';
import { FRAME_HEADER_BYTES, frameIntact, type Row, RowKind, readHeader, readRows } from '../../src/storage/wal-frame.ts';
import type { Inode } from './disk-inode.ts';

/** A group on one machine's disk. */
interface DurableLog {
  /** The term of the entry at each index. */
  readonly terms: number[];
  /** Up to here, what has committed is in segments. */
  synced: number;
  hardState: { term: number; vote: number };
  /** Up to here entries stood in the newest frame, or before it, and that frame cut them off. */
  cut: number;
  /** Whose it is, once that has said something. */
  replica: ReplicaId | undefined;
}

export class DurableLogs {
  readonly #disks = new Map<number, Map<GroupKey, DurableLog>>();
  /** By disk: the newest generation of its write-ahead log's files. */
  readonly #generations = new Map<number, number>();
  /** What a broker held of a group that it gave up, as its topic was deleted or its replica moved, or that its lost disk held: others may commit yet what it had acknowledged. */
  readonly #givenUp = new Map<string, DurableLog>();
  /** By group, index and term: what all logs that hold that entry agree on. */
  readonly #chains = new Map<GroupKey, (string | undefined)[]>();
  readonly #committed = new Map<GroupKey, { index: number; term: number }>();
  readonly #failed: (message: string) => void;

  constructor(failed: (message: string) => void) {
    this.#failed = failed;
  }

  /** A range of a file has become durable: a flush of the write-ahead log is written, and so becomes durable, as one. */
  durable(broker: number, path: string, inode: Inode, position: number, length: number): void {
    if (!path.endsWith('.wal')) return;
    const bytes = inode.durable.subarray(position, position + length);
    for (let at = 0; at < bytes.length; ) {
      const header = readHeader(bytes, at, crc32);
      if (header === undefined || !frameIntact(bytes, at, header, crc32)) return;
      // What a killed process left in the cache comes to the disk late, if at all: a start has read it there and written it again, in its first file.
      if (header.generation < (this.#generations.get(broker) ?? 0)) return;
      this.#generations.set(broker, header.generation);
      const rows = readRows(bytes, at + FRAME_HEADER_BYTES, header, crc32) ?? [];
      for (const { group } of rows) this.#log(broker, group).cut = 0;
      for (const [i, row] of rows.entries()) this.#apply(broker, row, bytes, at, rows[i + 1]);
      at += header.length;
    }
  }

  /** The disk is gone. */
  wiped(broker: number): void {
    this.#generations.delete(broker);
    for (const group of this.#disks.get(broker)?.keys() ?? []) this.#giveUp(broker, group);
  }

  /** The entry has committed: a majority of each configuration in force must hold it. */
  mustHold(group: GroupKey, index: number, term: number, { voters, outgoing }: Configuration, by: string): void {
    this.#committed.set(group, { index, term });
    for (const members of [voters, outgoing]) {
      const holders = members.filter(({ brokerId }) => this.#held(brokerId, group, index, term));
      if (members.length === 0 || holders.length * 2 > members.length) continue;
      this.#failed(`${by}: entry ${index} of term ${term} committed with durable copies on ${named(holders)} of ${named(members)}`);
    }
  }

  /** What a message promises must be on the sender's disk when it leaves (hazards B01, B04), or have been when the sender's replica was given up. */
  sent(broker: number, frame: Uint8Array): void {
    for (const { group, message } of decodeFrame(frame)) {
      const { hardState, terms, synced, cut } = this.#logOf(broker, group, message.from);
      const where = () => `${formatGroupKey(group)} on broker ${broker}`;
      if ((message.type === 'vote' || (message.type === 'voteResponse' && message.granted)) && !message.pre) {
        const vote = message.type === 'vote' ? message.from : message.to;
        const kept = hardState.term > message.term || (hardState.term === message.term && hardState.vote === vote);
        if (!kept) this.#failed(`${where()}: sent a vote of term ${message.term} for ${vote}; durable is ${JSON.stringify(hardState)}`);
      } else if (message.type === 'appendResponse' && !message.rejected && message.matchIndex > 0) {
        // One frame may hold entries and what cuts them off again. Their acknowledgement goes to a leader of a former term, which a voter of the new one's has left.
        if (terms[message.matchIndex] === undefined && message.matchIndex > Math.max(synced, message.term < hardState.term ? cut : 0))
          this.#failed(`${where()}: acknowledged entry ${message.matchIndex}, which is not durable`);
      }
    }
  }

  #apply(broker: number, row: Row, bytes: Uint8Array, frameAt: number, next: Row | undefined): void {
    const log = this.#log(broker, row.group);
    // A snapshot was installed: what is in it is in segments, and the entries before it are void.
    const installs = row.kind === RowKind.truncate && row.index === 0 && next?.kind === RowKind.synced && next.group === row.group;
    if (installs) log.terms.length = 0;
    else if (row.kind === RowKind.hardState) log.hardState = { term: row.term, vote: row.index };
    else if (row.kind === RowKind.truncate) this.#truncate(broker, row, log);
    else if (row.kind === RowKind.synced) log.synced = Math.max(log.synced, row.index);
    else if (row.kind === RowKind.forget) this.#giveUp(broker, row.group);
    else if (row.kind === RowKind.entries || row.kind === RowKind.moved) {
      let at = frameAt + row.position;
      for (let left = row.extra; left > 0; left--) {
        const entry = decodeEntry(bytes, at);
        at += entrySize(entry);
        log.terms[entry.index] = entry.term;
        this.#match(row.group, entry.index, entry.term, `${entry.chainHigh}.${entry.chainLow}`);
      }
    }
  }

  #giveUp(broker: number, group: GroupKey): void {
    this.#givenUp.set(`${broker}/${group}`, this.#log(broker, group));
    this.#disks.get(broker)?.delete(group);
  }

  /** Whether a broker's disk holds an entry, or held it before the broker gave the group up: what it acknowledged then still counts. */
  #held(broker: number, group: GroupKey, index: number, term: number): boolean {
    const logs = [this.#disks.get(broker)?.get(group), this.#givenUp.get(`${broker}/${group}`)];
    return logs.some((log) => log?.terms[index] === term);
  }

  /** No log gives up what has committed (hazard B06). */
  #truncate(broker: number, { group, index, damaged }: Row, log: DurableLog): void {
    const { terms } = log;
    const committed = this.#committed.get(group);
    // A start that finds its log damaged says so, and writes down what is left: the replica takes no part.
    if (!damaged && committed !== undefined && index < committed.index && terms[committed.index] === committed.term) {
      this.#failed(
        `${formatGroupKey(group)} on broker ${broker}: cut off after entry ${index}, and entry ${committed.index} has committed`,
      );
    }
    log.cut = Math.max(log.cut, terms.length - 1);
    terms.length = Math.min(terms.length, index + 1);
  }

  /** Log matching: the same index and term, the same log up to there. */
  #match(group: GroupKey, index: number, term: number, chain: string): void {
    let chains = this.#chains.get(group);
    if (chains === undefined) {
      chains = [];
      this.#chains.set(group, chains);
    }
    const identity = `${term}:${chain}`;
    const known = chains[index];
    if (known === identity) return;
    // Of an index that had several terms, the newest is remembered.
    if (known?.startsWith(`${term}:`)) this.#failed(`${formatGroupKey(group)}: two logs that end in entry ${index} of term ${term}`);
    if (known === undefined || Number.parseInt(known, 10) < term) chains[index] = identity;
  }

  /** One frame may hold a replica's last entries and that it was given up: what acknowledges them leaves after that frame. */
  #logOf(broker: number, group: GroupKey, replica: ReplicaId): DurableLog {
    const givenUp = this.#givenUp.get(`${broker}/${group}`);
    if (givenUp?.replica === replica) return givenUp;
    const log = this.#log(broker, group);
    log.replica = replica;
    return log;
  }

  #log(broker: number, group: GroupKey): DurableLog {
    let groups = this.#disks.get(broker);
    if (groups === undefined) {
      groups = new Map();
      this.#disks.set(broker, groups);
    }
    let log = groups.get(group);
    if (log === undefined) {
      log = { terms: [], synced: 0, hardState: { term: 0, vote: 0 }, cut: 0, replica: undefined };
      // Under the same id too, a replica that begins anew must hold what it says.
      const givenUp = this.#givenUp.get(`${broker}/${group}`);
      if (givenUp !== undefined) givenUp.replica = undefined;
      groups.set(group, log);
    }
    return log;
  }
}

function named(members: readonly Member[]): string {
  return `[${members.map(({ brokerId }) => brokerId).join(', ')}]`;
}
