import { formatGroupKey, type ReplicaId } from '../../src/base/ids.ts';
import { decodeConfiguration } from '../../src/raft/core/configuration.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import type { Members } from '../../src/raft/core/membership.ts';
import { RaftCore } from '../../src/raft/core/raft.ts';
import type { Message, Proposal, RaftOptions, Ready, TermStart } from '../../src/raft/core/types.ts';
import type { MakeCore } from '../../src/raft/types.ts';
import type { Happening, Observed, TraceEntry, TraceEvent, TraceLog } from './trace.ts';

export type Record = (event: TraceEvent) => void;

/** Makes cores that tell what they do, for a host. */
export function recorded(record: Record): MakeCore {
  return (options, group) => new RecordedCore(options, record, formatGroupKey(group));
}

/** The production core, which tells what it does. It adds nothing to what the core decides. */
export class RecordedCore extends RaftCore {
  readonly #record: Record;
  readonly #group: string | undefined;
  /** The log as last told. */
  readonly #terms: TermStart[];
  #lastIndex: number;
  #inStep = false;
  /** Since the last event. */
  #ticks = 0;
  /** Messages that wait for a write. */
  #held: { readonly token: number; readonly messages: readonly Message[] }[] = [];

  constructor(options: RaftOptions, record: Record, group?: string) {
    super(options);
    this.#record = record;
    this.#group = group;
    this.#terms = termsOf(options);
    this.#lastIndex = this.lastIndex;
    this.#tell({
      type: 'start',
      log: { terms: [...this.#terms], lastIndex: this.#lastIndex, configurations: configurationsOf(options) },
      electionTicks: options.electionTicks,
      ...(this.probation > 0 && { probation: this.probation }),
    });
  }

  override tick(disksStall = false): void {
    const { role, term, quiesced } = this;
    this.#inStep = true;
    super.tick(disksStall);
    this.#inStep = false;
    this.#ticks++;
    if (this.role !== role || this.term !== term || this.quiesced !== quiesced || this.hasReady())
      this.#tell({ type: 'call', name: 'tick' });
  }

  override step(message: Message): void {
    this.#step({ type: 'receive', message }, () => super.step(message));
  }

  override propose(proposals: readonly Proposal[]): { readonly firstIndex: number; readonly term: number } {
    return this.#step({ type: 'call', name: 'propose' }, () => super.propose(proposals));
  }

  override proposeMembers(target: Members): number {
    return this.#step({ type: 'call', name: 'proposeMembers' }, () => super.proposeMembers(target));
  }

  override transferLeadership(to: RaftOptions['id']): boolean {
    return this.#step({ type: 'call', name: 'transferLeadership' }, () => super.transferLeadership(to));
  }

  override campaign(): void {
    this.#step({ type: 'call', name: 'campaign' }, () => super.campaign());
  }

  override leaderUnreachable(ticks = 0): void {
    this.#step({ type: 'call', name: 'leaderUnreachable' }, () => super.leaderUnreachable(ticks));
  }

  override hasCommitted(index: number, term: number): boolean {
    return this.#step({ type: 'call', name: 'hasCommitted' }, () => super.hasCommitted(index, term));
  }

  override wake(by: ReplicaId | 0 = 0): void {
    if (this.quiesced) this.#step({ type: 'call', name: 'wake' }, () => super.wake(by));
  }

  override readIndex(context: number): void {
    this.#step({ type: 'call', name: 'readIndex' }, () => super.readIndex(context));
  }

  override persisted(token: number): void {
    this.#step({ type: 'written', token }, () => super.persisted(token));
    while ((this.#held[0]?.token ?? Number.POSITIVE_INFINITY) <= token) {
      for (const message of this.#held.shift()?.messages ?? []) this.#tell({ type: 'send', message });
    }
  }

  override ready(): Ready {
    const ready = super.ready();
    const { persist, messages, afterPersist } = ready;
    if (persist !== undefined) {
      const { token, truncateTo, entries, hardState } = persist;
      const [first] = entries;
      const written = first === undefined ? {} : { firstIndex: first.index, lastIndex: first.index + entries.length - 1 };
      this.#tell({
        type: 'write',
        token,
        ...(truncateTo === undefined ? {} : { truncateTo }),
        ...written,
        ...(hardState === undefined ? {} : { hardState }),
      });
      this.#held.push({ token, messages: afterPersist });
    }
    for (const message of messages) this.#tell({ type: 'send', message });
    return ready;
  }

  /** The core calls some of its methods itself: one step is one event. What it refuses is none. */
  #step<T>(what: Happening, run: () => T): T {
    if (this.#inStep) return run();
    this.#inStep = true;
    let result: T;
    try {
      result = run();
    } finally {
      this.#inStep = false;
    }
    this.#tell(what);
    return result;
  }

  #tell(what: Happening): void {
    const log = this.#logChange();
    const ticks = this.#ticks;
    this.#ticks = 0;
    const event: TraceEvent = {
      replica: this.id as number,
      what,
      ...(ticks > 0 && { ticks }),
      ...(log !== undefined && { log }),
      after: this.#observed(),
    };
    this.#record(this.#group === undefined ? event : { group: this.#group, ...event });
  }

  #observed(): Observed {
    const { role, term, vote, leader, commitIndex: commit, lastIndex, lastTerm, durableIndex: durable, quiesced } = this;
    return { role, term, vote, leader, commit, lastIndex, lastTerm, durable, rests: quiesced, isDamaged: this.damage !== undefined };
  }

  /** A log that ends in the same index and term is the same log. */
  #logChange(): TraceEvent['log'] {
    const { lastIndex, lastTerm } = this;
    if (lastIndex === this.#lastIndex && lastTerm === (this.#terms.at(-1)?.term ?? 0)) return undefined;
    let common = Math.min(lastIndex, this.#lastIndex);
    while (common > 0 && this.#termAt(common) !== this.termAt(common)) common--;
    const cut = common < this.#lastIndex;
    while ((this.#terms.at(-1)?.index ?? 0) > common) this.#terms.pop();
    const appended = (common < lastIndex ? this.entriesBetween(common + 1, lastIndex) : [])?.map(entryOf) ?? [];
    for (const { term, index } of appended) if (this.#terms.at(-1)?.term !== term) this.#terms.push({ term, index });
    this.#lastIndex = lastIndex;
    return cut ? { truncatedTo: common, appended } : { appended };
  }

  #termAt(index: number): number {
    return this.#terms.findLast((start) => start.index <= index)?.term ?? 0;
  }
}

function entryOf({ index, term, kind, chainHigh, chainLow, payload }: Entry): TraceEntry {
  const entry = { index, term, kind, chainHigh, chainLow };
  return kind === EntryKind.config ? { ...entry, configuration: decodeConfiguration(payload) } : entry;
}

function configurationsOf({ configuration, configurationIndex, log }: RaftOptions): TraceLog['configurations'] {
  const later = log.tail.filter(({ kind, index }) => kind === EntryKind.config && index > configurationIndex);
  return [
    { index: configurationIndex, configuration },
    ...later.map(({ index, payload }) => ({ index, configuration: decodeConfiguration(payload) })),
  ];
}

function termsOf({ log }: RaftOptions): TermStart[] {
  const terms = [...log.terms];
  for (const { term, index } of log.tail) if (terms.at(-1)?.term !== term) terms.push({ term, index });
  return terms;
}
