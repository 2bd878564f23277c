/**
 * A trace: what Raft replicas did, one event a step of a core. README.md specifies its lines. Entries are named by index, term and chain (which stands for all
 * before them); payloads are left out, but for configurations.
 */
import type { AppendRequest, Configuration, Message, PullResponse, Role } from '../../src/raft/core/types.ts';

export interface TraceEntry {
  readonly index: number;
  readonly term: number;
  readonly kind: number;
  readonly chainHigh: number;
  readonly chainLow: number;
  /** Of an entry of kind `config` that is new in a log. */
  readonly configuration?: Configuration;
}

/** A message, its entries as {@link TraceEntry}. */
export type TraceMessage =
  | Exclude<Message, AppendRequest | PullResponse>
  | (Omit<AppendRequest, 'entries'> & { readonly entries: readonly TraceEntry[] })
  | (Omit<PullResponse, 'entries'> & { readonly entries: readonly TraceEntry[] });

/** Where a log stands: all of it by term. */
export interface TraceLog {
  /** First index of each term. */
  readonly terms: readonly { readonly term: number; readonly index: number }[];
  readonly lastIndex: number;
  /** Ascending; the first is the one in force at what the replica knew to be committed, or before. Index 0: from the group's creation. */
  readonly configurations: readonly { readonly index: number; readonly configuration: Configuration }[];
}

export type Happening =
  /** A core was made from what its disk held. */
  | {
      readonly type: 'start';
      readonly log: TraceLog;
      readonly electionTicks: number;
      /** It can't prove what its disk held; the number of its probation. */
      readonly probation?: number;
    }
  | { readonly type: 'receive'; readonly message: TraceMessage }
  | { readonly type: 'send'; readonly message: TraceMessage }
  /** A call: of time, of the owner, or of the host's. */
  | { readonly type: 'call'; readonly name: string }
  /** A write was handed to the host: with the entries that the disk has not been given, and what was cut off before them. */
  | {
      readonly type: 'write';
      readonly token: number;
      readonly truncateTo?: number;
      readonly firstIndex?: number;
      readonly lastIndex?: number;
      readonly hardState?: { readonly term: number; readonly vote: number; readonly commit: number };
    }
  /** The write with this token, and all before it, are durable. */
  | { readonly type: 'written'; readonly token: number };

/** What a replica shows after the step. */
export interface Observed {
  readonly role: Role;
  readonly term: number;
  readonly vote: number;
  readonly leader: number;
  readonly commit: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly durable: number;
  /** The group has nothing to do, and no clock runs. */
  readonly rests: boolean;
  /** A majority has something else in its log: it takes no part any more. */
  readonly isDamaged: boolean;
}

export interface TraceEvent {
  /** Undefined where there is one group. */
  readonly group?: string;
  readonly replica: number;
  readonly what: Happening;
  /** Since the event before; a tick that brought nothing is no event of its own. */
  readonly ticks?: number;
  /** How the step changed the log: cut off above `truncatedTo`, then entries appended. */
  readonly log?: { readonly truncatedTo?: number; readonly appended: readonly TraceEntry[] };
  readonly after: Observed;
}

const DROPPED = new Set(['header', 'payload', 'nextOffset', 'recordCount', 'payloadChecksum']);

/** The event as a line, without its end. */
export function lineOf(event: TraceEvent): string {
  return JSON.stringify(event, (key, value: unknown) => (DROPPED.has(key) ? undefined : value));
}

/** Throws at what is no event. */
export function parseLine(line: string): TraceEvent {
  const event = JSON.parse(line) as Partial<TraceEvent>;
  if (typeof event.replica !== 'number' || typeof event.what?.type !== 'string' || event.after === undefined)
    throw new Error(`no event: ${line}`);
  return event as TraceEvent;
}
