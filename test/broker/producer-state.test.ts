import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BATCHES_PER_PRODUCER, MAX_PRODUCERS, type ProducerBatch, ProducerState, sequenceAfter } from '../../src/broker/producer-state.ts';

/** A log of batches of several producers, whose state follows it. */
class Log {
  readonly state = new ProducerState(0);
  batches: ProducerBatch[] = [];
  committed = 0;

  get end(): number {
    return this.batches.at(-1)?.nextOffset ?? 0;
  }

  send(producerId: number, epoch: number, firstSequence: number, count: number): number {
    const original = this.state.check(producerId, epoch, firstSequence, count);
    if (original !== undefined) return original.baseOffset;
    const batch = {
      producerId,
      epoch,
      firstSequence,
      lastSequence: sequenceAfter(firstSequence, count - 1),
      baseOffset: this.end,
      nextOffset: this.end + count,
      index: this.batches.length + 1,
    };
    this.batches.push(batch);
    this.state.append(batch);
    return batch.baseOffset;
  }

  commit(count: number): void {
    const uncommitted = this.batches.filter((batch) => batch.nextOffset > this.committed);
    this.committed = uncommitted[Math.min(count, uncommitted.length) - 1]?.nextOffset ?? this.committed;
    this.state.committed(this.committed);
  }

  truncate(count: number): void {
    const kept = this.batches.filter((batch) => batch.nextOffset <= this.committed);
    const uncommitted = this.batches.filter((batch) => batch.nextOffset > this.committed);
    this.batches = [...kept, ...uncommitted.slice(0, Math.max(0, uncommitted.length - count))];
    this.state.truncate(this.end);
  }

  last(producerId: number): ProducerBatch | undefined {
    return this.batches.findLast((batch) => batch.producerId === producerId);
  }
}

const codeOf = (run: () => unknown): string => {
  try {
    run();
    return 'none';
  } catch (error) {
    return (error as { code: string }).code;
  }
};

describe('ProducerState', () => {
  it('answers duplicates of the last five batches with their offset, older ones as such', () => {
    const log = new Log();
    for (let i = 0; i < 8; i++) {
      log.send(1, 0, i * 10, 10);
      log.commit(1);
    }
    // As many as Kafka's producers have in flight.
    expect(BATCHES_PER_PRODUCER).toBe(5);
    for (let i = 3; i < 8; i++) expect(log.send(1, 0, i * 10, 10)).toBe(i * 10);
    expect(codeOf(() => log.send(1, 0, 0, 10))).toBe('DUPLICATE_SEQUENCE_NUMBER');
    expect(log.end).toBe(80);
  });

  it('refuses gaps, half duplicates and strangers that do not begin at 0', () => {
    const log = new Log();
    log.send(1, 0, 0, 10);
    expect(codeOf(() => log.send(1, 0, 11, 1))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(codeOf(() => log.send(1, 0, 5, 10))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(codeOf(() => log.send(2, 0, 3, 1))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
  });

  it('fences older epochs and begins a new one at 0', () => {
    const log = new Log();
    log.send(1, 3, 0, 10);
    expect(codeOf(() => log.send(1, 2, 10, 1))).toBe('INVALID_PRODUCER_EPOCH');
    expect(codeOf(() => log.send(1, 4, 10, 1))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(log.send(1, 4, 0, 1)).toBe(10);
    expect(codeOf(() => log.send(1, 3, 10, 1))).toBe('INVALID_PRODUCER_EPOCH');
  });

  it('brings an older epoch back when the newer one is truncated', () => {
    const log = new Log();
    log.send(1, 3, 0, 10);
    log.commit(1);
    log.send(1, 4, 0, 1);
    log.truncate(1);
    expect(log.send(1, 3, 10, 1)).toBe(10);
  });

  it('goes on at 0 after 2^31 - 1', () => {
    const log = new Log();
    const state = ProducerState.decode(snapshotOf(2 ** 31 - 3), 10);
    expect(state.check(1, 0, 2 ** 31 - 2, 4)).toBeUndefined();
    state.append({ producerId: 1, epoch: 0, firstSequence: 2 ** 31 - 2, lastSequence: 1, baseOffset: 10, nextOffset: 14, index: 1 });
    expect(state.check(1, 0, 2, 1)).toBeUndefined();
    expect(state.check(1, 0, 2 ** 31 - 2, 4)?.baseOffset).toBe(10);
    expect(codeOf(() => state.check(1, 0, 3, 1))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(log.end).toBe(0);
  });

  it('forgets the producer that has been silent for longest beyond its bound', () => {
    const log = new Log();
    for (let id = 0; id <= MAX_PRODUCERS; id++) {
      log.send(id, 0, 0, 1);
      log.commit(1);
      if (id === MAX_PRODUCERS - 1) log.send(0, 0, 1, 1);
      log.commit(1);
    }
    expect(log.state.size).toBe(MAX_PRODUCERS);
    expect(log.send(0, 0, 2, 1)).toBe(log.end - 1);
    expect(codeOf(() => log.send(1, 0, 1, 1))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
  });

  it('keeps what is not committed and five more, no matter how much that is', () => {
    const log = new Log();
    for (let i = 0; i < 1000; i++) log.send(1, 0, i, 1);
    expect(log.state.batchesOf(1)).toBe(1000);
    log.commit(990);
    log.send(1, 0, 1000, 1);
    expect(log.state.batchesOf(1)).toBe(11 + BATCHES_PER_PRODUCER);
  });

  it('refuses a snapshot of another version', () => {
    expect(codeOf(() => ProducerState.decode(Uint8Array.of(9, 0, 0, 0, 0), 0))).toBe('STORAGE_ERROR');
    expect(codeOf(() => ProducerState.decode(new Uint8Array(), 0))).toBe('STORAGE_ERROR');
  });

  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ kind: fc.constant('send' as const), producerId: fc.nat(2), count: fc.integer({ min: 1, max: 4 }) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('bump' as const), producerId: fc.nat(2), count: fc.constant(1) }) },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('commit' as const), producerId: fc.constant(0), count: fc.integer({ min: 1, max: 6 }) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('truncate' as const), producerId: fc.constant(0), count: fc.integer({ min: 1, max: 9 }) }),
    },
  );

  it('is a function of the log, whatever was truncated: the same as a state that only saw what is left', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const log = new Log();
        for (const { kind, producerId, count } of steps) {
          const last = log.last(producerId);
          if (kind === 'send') log.send(producerId, last?.epoch ?? 0, last === undefined ? 0 : sequenceAfter(last.lastSequence, 1), count);
          else if (kind === 'bump') log.send(producerId, (last?.epoch ?? 0) + 1, 0, count);
          else if (kind === 'commit') log.commit(count);
          else log.truncate(count);
          expectLikeFresh(log);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('comes back from a snapshot at any committed offset and the batches after it', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(), (steps, at) => {
        const log = new Log();
        for (const { kind, producerId, count } of steps) {
          const last = log.last(producerId);
          if (kind === 'send') log.send(producerId, last?.epoch ?? 0, last === undefined ? 0 : sequenceAfter(last.lastSequence, 1), count);
          else if (kind === 'commit') log.commit(count);
        }
        const committed = log.batches.filter((batch) => batch.nextOffset <= log.committed);
        const cut = committed.length === 0 ? 0 : (committed[at % committed.length]?.nextOffset ?? 0);
        const restored = ProducerState.decode(log.state.encode(cut), cut);
        for (const batch of log.batches) restored.append(batch);
        expectKnown(log, restored);
      }),
      { numRuns: 200 },
    );
  });

  it('has nothing in its snapshot that is above the offset: that may yet be cut off', () => {
    const log = new Log();
    log.send(1, 0, 0, 2);
    log.commit(1);
    log.send(1, 0, 2, 2);
    log.send(2, 0, 0, 1);
    const restored = ProducerState.decode(log.state.encode(2), 2);
    expect(restored.batchesOf(1)).toBe(1);
    expect(restored.batchesOf(2)).toBe(0);
    expect(restored.check(1, 0, 2, 2)).toBeUndefined();
    expect(restored.check(2, 0, 0, 1)).toBeUndefined();
  });
});

/** A snapshot with one producer whose last sequence is given, at offset 10. */
function snapshotOf(lastSequence: number): Uint8Array {
  const state = new ProducerState(0);
  state.append({ producerId: 1, epoch: 0, firstSequence: lastSequence, lastSequence, baseOffset: 9, nextOffset: 10, index: 1 });
  return state.encode(10);
}

function expectLikeFresh(log: Log): void {
  expectKnown(log, log.state);
  expect(log.state.nextOffset).toBe(log.end);
}

/** Every producer's next sequence is right, and its last five batches of the epoch are known. */
function expectKnown(log: Log, state: ProducerState): void {
  for (const producerId of [0, 1, 2]) {
    const all = log.batches.filter((batch) => batch.producerId === producerId);
    const last = all.at(-1);
    if (last === undefined) {
      expect(state.check(producerId, 0, 0, 1)).toBeUndefined();
      continue;
    }
    expect(state.check(producerId, last.epoch, sequenceAfter(last.lastSequence, 1), 1)).toBeUndefined();
    for (const batch of all.slice(-BATCHES_PER_PRODUCER)) {
      if (batch.epoch !== last.epoch) continue;
      const count = batch.nextOffset - batch.baseOffset;
      expect(state.check(producerId, batch.epoch, batch.firstSequence, count)).toMatchObject({ baseOffset: batch.baseOffset });
    }
  }
}
