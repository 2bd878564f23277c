import fc from 'fast-check';
import { expect, it } from 'vitest';
import { lineChunks } from '../../src/cli/lines.ts';

async function linesOf(chunks: readonly Uint8Array[]): Promise<number[][]> {
  async function* source() {
    yield* chunks;
  }
  const lines: number[][] = [];
  for await (const some of lineChunks(source())) lines.push(...some.map((line) => [...line]));
  return lines;
}

it('finds the same lines however the bytes are cut into chunks', async () => {
  const byte = fc.oneof(fc.constant(10), fc.nat(255));
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(byte).map((bytes) => Uint8Array.from(bytes))), async (chunks) => {
      const whole = chunks.flatMap((chunk) => [...chunk]);
      const expected: number[][] = [[]];
      for (const each of whole) each === 10 ? expected.push([]) : expected.at(-1)!.push(each);
      if (expected.at(-1)!.length === 0) expected.pop();
      expect(await linesOf(chunks)).toEqual(expected);
    }),
  );
});

it('refuses what is not made of lines', async () => {
  const chunk = new Uint8Array(8 * 2 ** 20).fill(1);
  await expect(linesOf(Array.from({ length: 13 }, () => chunk))).rejects.toThrow('made of lines');
});
