import { describe, expect, test } from 'vitest';
import { InvariantError } from '../../src/base/assert.ts';
import { applyRecords, emptyImage } from '../../src/metadata/apply.ts';
import { encodeImage } from '../../src/metadata/checkpoint.ts';
import type { MetadataDelta } from '../../src/metadata/image.ts';
import { type MetadataRecord, metadataCodec } from '../../src/metadata/records.ts';
import { MetadataStore } from '../../src/metadata/view.ts';
import { encodeRecords } from '../../src/rsm/codec.ts';
import { neverAborted, outcome, settled } from '../rsm/fakes.ts';
import { formed, topicRecord } from './arbitrary.ts';

const payload = (...records: readonly MetadataRecord[]): Uint8Array => encodeRecords(metadataCodec, records);

describe('MetadataStore', () => {
  test('tells subscribers at once what is there, then each entry, in one order', () => {
    const store = new MetadataStore();
    store.applyEntry(1, payload(...formed));
    const seen: string[] = [];
    const note = (name: string) => (delta: MetadataDelta) =>
      void seen.push(`${name}${delta.image.index}:${delta.changedBrokers.length},${delta.createdTopics.length}`);
    store.subscribe(note('a'));
    const unsubscribe = store.subscribe(note('b'));
    store.applyEntry(2, payload(topicRecord(store.image, 1, [[0]])));
    unsubscribe();
    store.applyEntry(3, new Uint8Array());
    expect(seen).toEqual(['a1:3,0', 'b1:3,0', 'a2:0,1', 'b2:0,1', 'a3:0,0']);
  });

  test('who subscribes during a delta is told once', () => {
    const store = new MetadataStore();
    const seen: number[] = [];
    let inner = false;
    store.subscribe(() => {
      if (inner || store.image.index === 0) return;
      inner = true;
      store.subscribe(({ image }) => void seen.push(image.index));
    });
    store.applyEntry(1, payload(...formed));
    store.applyEntry(2, new Uint8Array());
    expect(seen).toEqual([1, 2]);
  });

  test('a gap is refused, what is known is ignored', () => {
    const store = new MetadataStore();
    store.applyEntry(1, payload(...formed));
    store.applyEntry(1, payload(...formed));
    expect(() => store.applyEntry(3, new Uint8Array())).toThrow(InvariantError);
    expect(store.image.index).toBe(1);
  });

  test('a checkpoint replaces the image and tells the difference', () => {
    const store = new MetadataStore();
    store.applyEntry(1, payload(...formed));
    store.applyEntry(2, payload(topicRecord(store.image, 1, [[0]])));
    const ahead = applyRecords(applyRecords(emptyImage, 1, formed).image, 9, [
      topicRecord({ ...emptyImage, nextReplicaId: 4 }, 2, [[0], [1]]),
    ]).image;
    const deltas: MetadataDelta[] = [];
    store.subscribe((delta) => void deltas.push(delta));
    store.replaceEncoded(encodeImage(ahead));
    expect(deltas[1]?.createdTopics.map(({ name }) => name)).toEqual(['topic-2']);
    expect(deltas[1]?.deletedTopics.map(({ name }) => name)).toEqual(['topic-1']);
    expect(deltas[1]?.changedBrokers).toEqual([]);
    store.replaceEncoded(encodeImage(applyRecords(emptyImage, 3, formed).image));
    expect(store.image.index).toBe(9);
  });

  test('reached waits for the index or the signal', async () => {
    const store = new MetadataStore();
    const abort = new AbortController();
    const [reached, aborted] = [outcome(store.reached(1, neverAborted)), outcome(store.reached(2, abort.signal))];
    store.applyEntry(1, new Uint8Array());
    await settled();
    expect(reached.value).toBe('resolved');
    abort.abort();
    await settled();
    expect(aborted.code).toBe('REQUEST_TIMED_OUT');
    await store.reached(1, abort.signal);
  });
});
