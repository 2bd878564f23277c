import type { ReplicaId } from '../../base/ids.ts';
import { isWellFormed } from './append-check.ts';
import type { Entry } from './entry.ts';
import type { RaftLog } from './log.ts';
import type { Outbox } from './outbox.ts';
import type { PullRequest, PullResponse, RaftOptions } from './types.ts';

/**
 * Constrained elections (OmniPaxos, EuroSys '23; hazard B17). Where links are broken so that only one replica reaches a majority, and its log is behind, nobody
 * can win: it for its log, the others for their links. So a replica whose pre-campaign failed for its log alone, at a majority of voters that hear no leader,
 * pulls what it lacks from the one with the newest log, and campaigns again. What it pulls is acknowledged to nobody; a leader's append that matches does that.
 *
 * That is safe as a late append of the leader that made those entries would be: the source's log ends in a newer (term, index), so what a majority has ever
 * acknowledged is in it, or does not conflict with it. The puller's term is at least the source's before it takes anything. Before it cuts anything off, it is
 * greater: a leader that still counts what is cut as acknowledged is deposed (docs/adr/0006-pulled-entries.md).
 */
export class Pull {
  readonly #options: RaftOptions;
  readonly #log: RaftLog;
  readonly #outbox: Outbox;
  /** Who is asked; 0: nobody. */
  #source: ReplicaId | 0 = 0;
  /** Who asked for entries that the host reads, and from where: one request a replica. */
  #readers: Map<ReplicaId, number> | undefined;

  constructor(options: RaftOptions, log: RaftLog, outbox: Outbox) {
    this.#options = options;
    this.#log = log;
    this.#outbox = outbox;
  }

  /** Asks `source` for all above what is known here to be committed, which its log has too. */
  begin(source: ReplicaId, term: number): void {
    this.#source = source;
    this.#ask(term, this.#log.commitIndex);
  }

  end(): void {
    this.#source = 0;
  }

  /** Asks for what follows a page. False: that was the last. */
  continue(message: PullResponse, term: number): boolean {
    if (!isAhead(message, this.#log)) return false;
    this.#ask(term, message.prevIndex + message.entries.length);
    return true;
  }

  /** True: the answer was asked for, and is of a log that is ahead of this one and agrees with it where it begins. */
  accepts(message: PullResponse): boolean {
    const { from, prevIndex, prevTerm, entries } = message;
    const log = this.#log;
    return (
      from === this.#source && entries.length > 0 && isAhead(message, log) && log.termAt(prevIndex) === prevTerm && isWellFormed(message)
    );
  }

  /** Answers a replica that pulls, from memory or, by a read of the host's, from segments; below the start with a snapshot, which is committed. */
  serve({ from, prevIndex, prevTerm }: PullRequest, term: number): void {
    const log = this.#log;
    if (log.termAt(prevIndex) !== prevTerm || prevIndex >= log.lastIndex) return;
    if (prevIndex + 1 >= log.firstSendableIndex) this.#send(from, term, prevIndex, log.from(prevIndex + 1, this.#options.maxAppendBytes));
    else if (prevIndex + 1 >= log.firstReplicableIndex) {
      this.#readers ??= new Map();
      this.#readers.set(from, prevIndex);
      this.#outbox.reads.push({ to: from, fromIndex: prevIndex + 1, maxBytes: this.#options.maxAppendBytes });
    } else this.#outbox.snapshots.push({ to: from });
  }

  /** Entries that the host has read. */
  supply(to: ReplicaId, entries: readonly Entry[], term: number): void {
    const prevIndex = this.#readers?.get(to);
    this.#readers?.delete(to);
    const [first] = entries;
    if (prevIndex === undefined || first?.index !== prevIndex + 1 || this.#log.termAt(first.index) !== first.term) return;
    this.#send(to, term, prevIndex, entries);
  }

  #ask(term: number, prevIndex: number): void {
    const { id } = this.#options;
    const prevTerm = this.#log.termAt(prevIndex) ?? 0;
    if (this.#source !== 0) this.#outbox.messages.push({ type: 'pull', from: id, to: this.#source, term, prevIndex, prevTerm });
  }

  #send(to: ReplicaId, term: number, prevIndex: number, entries: readonly Entry[]): void {
    const prevTerm = this.#log.termAt(prevIndex);
    if (prevTerm === undefined) return;
    const { lastIndex, lastTerm } = this.#log;
    this.#outbox.messages.push({
      type: 'pullResponse',
      from: this.#options.id,
      to,
      term,
      prevIndex,
      prevTerm,
      entries,
      lastIndex,
      lastTerm,
    });
  }
}

function isAhead({ lastIndex, lastTerm }: PullResponse, log: RaftLog): boolean {
  return lastTerm > log.lastTerm || (lastTerm === log.lastTerm && lastIndex > log.lastIndex);
}
