import { expect, test } from 'vitest';
import { crc32 } from '../../src/platform/crc32.ts';
import { decodeSnapshot } from '../../src/storage/segment-snapshot.ts';
import { readGolden } from '../golden/files.ts';

test('a snapshot with any bit flipped is damaged, and neither one of another version nor one without state', () => {
  const bytes = readGolden('segment-snapshot-v4');
  expect(decodeSnapshot(bytes, crc32)?.state).toBeDefined();
  for (let bit = 0; bit < 8 * bytes.length; bit++) {
    const flipped = bytes.slice();
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(decodeSnapshot(flipped, crc32), `bit ${bit}`).toBeUndefined();
  }
});
