import { afterEach, describe, expect, it } from 'vitest';
import { concat } from '../../src/base/bytes.ts';
import type { Compute } from '../../src/base/compute.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import { transferable, WorkerCompute } from '../../src/platform/compute.ts';
import { nativeCrc32c as crc32c } from '../../src/platform/crc32c.ts';
import { splitBatches, stampBatch } from '../../src/record/batch.ts';
import { BatchBuilder } from '../../src/record/builder.ts';

let compute: Compute | undefined;
afterEach(() => compute?.close());

const options = { mapBytes: 10_000, tombstoneFloor: 0 };

function batch(key: string, offset: number): Uint8Array {
  const builder = new BatchBuilder({ crc32c });
  builder.append(new TextEncoder().encode(key), new TextEncoder().encode('v'.repeat(5_000)), [], 1);
  const bytes = builder.build();
  stampBatch(bytes, offset, 1);
  return bytes;
}

describe('compute in a worker thread', () => {
  it('notes and cleans as inline, and bytes move there and back', async () => {
    compute = new WorkerCompute();
    const cleaning = compute.beginCleaning(options);
    const run = concat([batch('a', 0), batch('b', 1), batch('a', 2)]);
    expect(await cleaning.note(run.slice())).toEqual({ full: false, unreadable: 0 });
    const given = run.slice();
    const left = cleaning.clean(given);
    expect(given.length).toBe(0);
    expect(splitBatches(await left)).toEqual([batch('b', 1), batch('a', 2)]);
    cleaning.end();
    // What was noted has gone with it.
    const next = compute.beginCleaning(options);
    expect(await next.clean(run.slice())).toEqual(run);
  });

  it('passes errors on as what they are, and goes on', async () => {
    compute = new WorkerCompute();
    const cleaning = compute.beginCleaning(options);
    const rotten = batch('a', 0);
    rotten[80] = 0;
    const again = rotten.slice();
    await expect(cleaning.note(rotten)).rejects.toMatchObject({ code: 'CORRUPT_MESSAGE' });
    await expect(cleaning.note(again)).rejects.toBeInstanceOf(FlotillaError);
    expect(await cleaning.note(batch('a', 0))).toEqual({ full: false, unreadable: 0 });
  });

  it('a worker that dies ends the pass with an error, and there is another one for the next', async () => {
    compute = new WorkerCompute(new URL('./dying-worker.ts', import.meta.url));
    for (let life = 0; life < 2; life++) {
      const cleaning = compute.beginCleaning(options);
      expect(await cleaning.note(batch('a', 0))).toEqual({ full: true, unreadable: 0 });
      await expect(cleaning.clean(batch('a', 0))).rejects.toThrow('dies here');
      await expect(cleaning.note(batch('a', 0))).rejects.toThrow('has ended');
      cleaning.end();
    }
  });

  it('closes while something is under way', async () => {
    compute = new WorkerCompute();
    const cleaning = compute.beginCleaning(options);
    const noted = cleaning.note(batch('a', 0)).catch((error: unknown) => error);
    await compute.close();
    expect(await noted).toMatchObject({ code: 'CLOSED' });
    expect(() => compute?.beginCleaning(options)).toThrow();
  });

  it('moves whole buffers, and copies what shares one with others', () => {
    const whole = new Uint8Array(1_000);
    expect(transferable(whole)).toBe(whole);
    const most = new Uint8Array(whole.buffer, 0, 900);
    expect(transferable(most)).toBe(most);
    const part = whole.subarray(10, 20);
    expect(transferable(part)).not.toBe(part);
    expect(transferable(part).buffer.byteLength).toBe(10);
  });
});
