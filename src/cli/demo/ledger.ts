/**
 * The proof's arithmetic: what was sent and acknowledged against what was read. Pure.
 * Records are numbered in the order in which they were sent; a record carries its number.
 */

/** Numbers by record number, without a bound on how many. NaN: not set. */
class Column {
  readonly #chunks: Float64Array[] = [];

  get(at: number): number {
    return this.#chunks[Math.floor(at / CHUNK)]?.[at % CHUNK] ?? Number.NaN;
  }

  set(at: number, value: number): void {
    const chunk = Math.floor(at / CHUNK);
    while (this.#chunks.length <= chunk) this.#chunks.push(new Float64Array(CHUNK).fill(Number.NaN));
    (this.#chunks[chunk] as Float64Array)[at % CHUNK] = value;
  }
}

const CHUNK = 65_536;

/** What producers were told. */
export class Ledger {
  readonly partitions = new Column();
  readonly offsets = new Column();
  #sent = 0;
  #acknowledged = 0;
  #failed = 0;

  get sentCount(): number {
    return this.#sent;
  }

  get acknowledgedCount(): number {
    return this.#acknowledged;
  }

  get failedCount(): number {
    return this.#failed;
  }

  /** Sent, and neither acknowledged nor failed yet. */
  get pending(): number {
    return this.#sent - this.#acknowledged - this.#failed;
  }

  /** The number of the next record. */
  sent(): number {
    return this.#sent++;
  }

  acknowledged(number: number, partition: number, offset: number): void {
    this.#acknowledged++;
    this.partitions.set(number, partition);
    this.offsets.set(number, offset);
  }

  /** The producer gave it up: it may or may not be in the log. */
  failed(): void {
    this.#failed++;
  }
}

/** What one reader got, in the order in which it got it. */
export class Reading {
  readonly partitions = new Column();
  readonly offsets = new Column();
  readonly #lastOffset = new Map<number, number>();
  readonly #lastOfKey = new Map<string, number>();
  #read = 0;
  #doubled = 0;
  #outOfOrder = 0;

  get readCount(): number {
    return this.#read;
  }

  get doubledCount(): number {
    return this.#doubled;
  }

  get outOfOrderCount(): number {
    return this.#outOfOrder;
  }

  /** The last offset read of a partition; -1: nothing yet. */
  lastOffset(partition: number): number {
    return this.#lastOffset.get(partition) ?? -1;
  }

  /** Offsets of a partition must rise; numbers of a key must rise; no number may come twice. */
  read(number: number, key: string, partition: number, offset: number): void {
    if (!Number.isNaN(this.offsets.get(number))) {
      this.#doubled++;
      return;
    }
    this.#read++;
    this.partitions.set(number, partition);
    this.offsets.set(number, offset);
    if (offset <= this.lastOffset(partition) || number < (this.#lastOfKey.get(key) ?? -1)) this.#outOfOrder++;
    this.#lastOffset.set(partition, Math.max(offset, this.lastOffset(partition)));
    this.#lastOfKey.set(key, Math.max(number, this.#lastOfKey.get(key) ?? -1));
  }
}

export interface Proof {
  readonly sent: number;
  readonly acknowledged: number;
  readonly read: number;
  /** Acknowledged, never read. */
  readonly lost: number;
  /** Read more than once. */
  readonly doubled: number;
  /** Read below an offset of its partition, or after a later record of its key. */
  readonly outOfOrder: number;
  /** Read elsewhere than where it was acknowledged. */
  readonly misplaced: number;
  /** Read, never acknowledged: allowed, since an acknowledgement may be lost with a broker. */
  readonly unacknowledged: number;
  readonly holds: boolean;
}

export function prove(ledger: Ledger, reading: Reading): Proof {
  let lost = 0;
  let misplaced = 0;
  let unacknowledged = 0;
  for (let number = 0; number < ledger.sentCount; number++) {
    const acknowledged = ledger.offsets.get(number);
    const read = reading.offsets.get(number);
    if (Number.isNaN(acknowledged)) {
      if (!Number.isNaN(read)) unacknowledged++;
    } else if (Number.isNaN(read)) lost++;
    else if (acknowledged !== read || ledger.partitions.get(number) !== reading.partitions.get(number)) misplaced++;
  }
  const { doubledCount: doubled, outOfOrderCount: outOfOrder } = reading;
  return {
    sent: ledger.sentCount,
    acknowledged: ledger.acknowledgedCount,
    read: reading.readCount,
    lost,
    doubled,
    outOfOrder,
    misplaced,
    unacknowledged,
    holds: lost + doubled + outOfOrder + misplaced === 0 && ledger.acknowledgedCount > 0,
  };
}

/** The table that ends the demo. */
export function proofLines(proof: Proof): string[] {
  const rows: [string, number, string][] = [
    ['acknowledged', proof.acknowledged, 'records that the cluster said are safe'],
    ['read', proof.read, proof.unacknowledged === 0 ? '' : `${proof.unacknowledged} of them written, but not acknowledged in time`],
    ['lost', proof.lost, 'acknowledged, not there'],
    ['doubled', proof.doubled, 'there more than once'],
    ['out of order', proof.outOfOrder, 'by offset in a partition, or by key'],
  ];
  if (proof.misplaced > 0) rows.push(['misplaced', proof.misplaced, 'at another offset than was acknowledged']);
  return rows.map(([name, value, note]) => `${name.padEnd(14)}${value.toLocaleString('en').padStart(12)}   ${note}`.trimEnd());
}
