/** Batches of a state store of which a part shows: all of them or none must be there. */
import type { StateOperation, StateStore } from '../../../src/base/environment.ts';

const SLOTS = 20;
/** Together more than a block of LevelDB's log (32 KiB), which a torn write may end in. */
const VALUE_BYTES = 3_000;

const bytesOf = (n: number) => new TextEncoder().encode(`${n}`.padEnd(VALUE_BYTES, '.'));
const text = new TextDecoder();

/** Number `n`, from 1. */
export function batch(n: number): StateOperation[] {
  const slots = Array.from({ length: SLOTS }, (_, slot) => ({ key: `slot/${slot}`, value: bytesOf(n) }));
  return [...slots, { key: `own/${n - 1}`, value: undefined }, { key: `own/${n}`, value: bytesOf(n) }];
}

/** The batch that the store shows; 0: none. @throws when it shows parts of several. */
export async function newestOf(store: StateStore): Promise<number> {
  const shown = await store.entries('');
  const numbers = new Set(shown.map(([, value]) => text.decode(value)));
  if (shown.length === 0) return 0;
  const n = Number.parseInt([...numbers][0] ?? '', 10);
  const keys = batch(n).flatMap(({ key, value }) => (value === undefined ? [] : [key]));
  if (numbers.size > 1 || shown.map(([key]) => key).join() !== keys.sort().join())
    throw new Error(`parts of batches ${[...numbers].map((value) => Number.parseInt(value, 10)).join(' and ')} in ${shown.length} entries`);
  return n;
}
