import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Ledger, proofLines, prove, Reading } from '../../src/cli/demo/ledger.ts';

interface Written {
  readonly number: number;
  readonly key: string;
  readonly partition: number;
  readonly offset: number;
}

/** Acknowledges `count` records over three partitions, keys staying with their partition. */
function written(count: number): { ledger: Ledger; log: Written[] } {
  const ledger = new Ledger();
  const next = [0, 0, 0];
  const log = Array.from({ length: count }, (_, at) => {
    const partition = at % 3;
    const number = ledger.sent();
    const offset = next[partition]!++;
    ledger.acknowledged(number, partition, offset);
    return { number, key: `key-${at % 12}`, partition, offset };
  });
  return { ledger, log };
}

function readAll(log: readonly Written[]): Reading {
  const reading = new Reading();
  for (const { number, key, partition, offset } of log) reading.read(number, key, partition, offset);
  return reading;
}

describe('the ledger', () => {
  it('holds when all that was acknowledged was read once, in order', () => {
    const { ledger, log } = written(200_000);
    expect(prove(ledger, readAll(log))).toEqual({
      sent: 200_000,
      acknowledged: 200_000,
      read: 200_000,
      lost: 0,
      doubled: 0,
      outOfOrder: 0,
      misplaced: 0,
      unacknowledged: 0,
      holds: true,
    });
  });

  it('does not hold on nothing', () => {
    expect(prove(new Ledger(), new Reading()).holds).toBe(false);
  });

  it('finds what was lost', () => {
    const { ledger, log } = written(1000);
    const proof = prove(ledger, readAll(log.filter(({ number }) => number !== 500 && number !== 999)));
    expect(proof).toMatchObject({ lost: 2, doubled: 0, outOfOrder: 0, holds: false });
  });

  it('finds what was doubled, at the same offset or at another', () => {
    const { ledger, log } = written(9);
    const again = [...log, log[3]!, { ...log[8]!, offset: 3 }];
    expect(prove(ledger, readAll(again))).toMatchObject({ lost: 0, doubled: 2, holds: false });
  });

  it('finds records of a key that changed places', () => {
    const { ledger } = written(0);
    const first = ledger.sent();
    const second = ledger.sent();
    ledger.acknowledged(first, 0, 1);
    ledger.acknowledged(second, 0, 0);
    const reading = new Reading();
    reading.read(second, 'k', 0, 0);
    reading.read(first, 'k', 0, 1);
    expect(prove(ledger, reading)).toMatchObject({ lost: 0, outOfOrder: 1, misplaced: 0, holds: false });
  });

  it('finds offsets of a partition that go back', () => {
    const { ledger, log } = written(9);
    const swapped = [log[3]!, log[0]!, ...log.filter((_, at) => at !== 0 && at !== 3)];
    expect(prove(ledger, readAll(swapped))).toMatchObject({ lost: 0, outOfOrder: 1, holds: false });
  });

  it('lets different keys of a partition interleave as they like', () => {
    const ledger = new Ledger();
    const [a, b] = [ledger.sent(), ledger.sent()];
    ledger.acknowledged(b, 0, 0);
    ledger.acknowledged(a, 0, 1);
    const reading = new Reading();
    reading.read(b, 'b', 0, 0);
    reading.read(a, 'a', 0, 1);
    expect(prove(ledger, reading).holds).toBe(true);
  });

  it('finds a record at another place than was acknowledged', () => {
    const { ledger, log } = written(6);
    const moved = log.map((record) => (record.number === 5 ? { ...record, offset: 7 } : record));
    expect(prove(ledger, readAll(moved))).toMatchObject({ misplaced: 1, holds: false });
  });

  it('allows a record whose acknowledgement was lost to be there or not', () => {
    const { ledger, log } = written(3);
    const there = ledger.sent();
    ledger.failed();
    ledger.sent();
    ledger.failed();
    const proof = prove(ledger, readAll([...log, { number: there, key: 'x', partition: 0, offset: 1 }]));
    expect(proof).toMatchObject({ sent: 5, acknowledged: 3, read: 4, unacknowledged: 1, holds: true });
    expect(ledger.pending).toBe(0);
  });

  it('counts exactly what is planted', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 300 }),
        fc.infiniteStream(fc.constantFrom('keep', 'keep', 'lose', 'double')),
        (count, fates) => {
          const { ledger, log } = written(count);
          const planted = { lose: 0, double: 0, keep: 0 };
          const read = log.flatMap((record) => {
            const fate = fates.next().value as 'keep' | 'lose' | 'double';
            planted[fate]++;
            return fate === 'lose' ? [] : fate === 'double' ? [record, record] : [record];
          });
          const proof = prove(ledger, readAll(read));
          expect(proof).toMatchObject({ lost: planted.lose, doubled: planted.double, outOfOrder: 0, misplaced: 0 });
          expect(proof.holds).toBe(planted.lose + planted.double === 0);
        },
      ),
    );
  });

  it('prints the table of the contract', () => {
    const { ledger, log } = written(3);
    expect(proofLines(prove(ledger, readAll(log))).map((line) => line.slice(0, 26))).toEqual([
      'acknowledged             3',
      'read                     3',
      'lost                     0',
      'doubled                  0',
      'out of order             0',
    ]);
  });
});
