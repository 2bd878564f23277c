/**
 * A process that writes to a level store until it is killed: `writer.ts DIRECTORY`. Batch n puts n into every slot, deletes what batch n - 1 put beside them, and
 * puts its own; a line on stdout says each batch whose write has resolved.
 */
import { openLevelStore } from '../../../src/platform/state-store.ts';
import { batch, newestOf } from './batches.ts';

const store = await openLevelStore(process.argv[2] as string);
for (let n = (await newestOf(store)) + 1; ; n++) {
  await store.write(batch(n));
  process.stdout.write(`${n}\n`);
}
