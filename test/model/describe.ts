/**
 * Says all that is in a value, as text: equal text, equal behaviour. Replicas can be renamed on the way, for symmetry. Their ids are numbers that
 * nothing else reaches, so a renaming needs no list of the fields that hold one.
 */
import { decodeConfiguration } from '../../src/raft/core/configuration.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';

/** Replica i of a world has the id FIRST_ID + i. */
export const FIRST_ID = 1001;

/** By slot: where `rename[i]` is the slot that replica i goes to. */
export type Renaming = readonly number[];

/**
 * Not told: what follows from the rest (the chain and checksums from the log's content, the quorum from the configuration, an entry's header), what never
 * changes (options), and what only counts up and is only ever compared with itself (tokens of persist units).
 */
const UNTOLD = new Set([
  '$options',
  '$quorum',
  '$scratch',
  '$issued',
  '$completed',
  'token',
  'header',
  'payloadChecksum',
  'chainHigh',
  'chainLow',
]);

export function describe(value: unknown, renaming: Renaming, seen = new Set<object>()): string {
  if (typeof value === 'number') return String(renamed(value, renaming));
  if (typeof value === 'string') return directory(value, renaming);
  if (typeof value === 'function') return '';
  if (typeof value !== 'object' || value === null) return String(value);
  if (isEntry(value)) return describeEntry(value, renaming);
  if (Array.isArray(value)) return `[${value.map((each) => describe(each, renaming, seen)).join()}]`;
  if (value instanceof Uint8Array) return `<${value.join(' ')}>`;
  if (value instanceof Map) {
    const entries = [...value].map(([key, each]) => `${describe(key, renaming, seen)}=${describe(each, renaming, seen)}`);
    return `{${entries.sort().join()}}`;
  }
  if (value.constructor !== Object) {
    // A part of the core, which another part knows as well: there is one of its kind, or a map holds it.
    if (seen.has(value)) return '@';
    seen.add(value);
  }
  if ('$lastIndexes' in value) return describeWindow(value as unknown as Window, renaming);
  const parts: string[] = [];
  for (const [key, each] of Object.entries(value)) {
    if (UNTOLD.has(key)) continue;
    // Members are a set: their order decides nothing that the model does.
    const isMembers = key === 'voters' || key === 'outgoing' || key === 'learners';
    parts.push(
      isMembers && Array.isArray(each)
        ? each
            .map((member) => describe(member, renaming))
            .sort()
            .join()
        : describe(each, renaming, seen),
    );
  }
  return `(${parts.join()})`;
}

function renamed(value: number, renaming: Renaming): number {
  const to = renaming[value - FIRST_ID];
  return to === undefined ? value : FIRST_ID + to;
}

/** A directory's id is its replica's, in hex. */
function directory(value: string, renaming: Renaming): string {
  return value.length === 32 ? `dir${renamed(Number.parseInt(value, 16), renaming)}` : value;
}

function isEntry(value: object): value is Entry {
  return 'payload' in value && 'chainHigh' in value;
}

function describeEntry(entry: Entry, renaming: Renaming): string {
  const content = entry.kind === EntryKind.config ? describe(decodeConfiguration(entry.payload), renaming) : entry.payload.join(' ');
  return `${entry.index}.${entry.term}.${entry.kind}<${content}>`;
}

/** A ring of what is in flight: where it begins in memory, and what it held before, is nothing. */
interface Window {
  readonly $lastIndexes: readonly number[];
  readonly $sizes: readonly number[];
  readonly $head: number;
  readonly $count: number;
}

function describeWindow({ $lastIndexes, $sizes, $head, $count }: Window, renaming: Renaming): string {
  const slots = Array.from({ length: $count }, (_, i) => ($head + i) % $lastIndexes.length);
  return describe(
    slots.map((slot) => [$lastIndexes[slot], $sizes[slot]]),
    renaming,
  );
}
