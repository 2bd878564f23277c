import { create } from '@bufbuild/protobuf';
import { beforeEach, describe, expect, it } from 'vitest';
import { Channels } from '../../src/client/channels.ts';
import { MAX_STARTS, MetadataCache } from '../../src/client/metadata-cache.ts';
import { MetadataResponseSchema } from '../../src/gen/flotilla/v1/admin_pb.ts';
import { FakeCluster } from './fake-cluster.ts';

let metadata: MetadataCache;

beforeEach(() => {
  const channels = new Channels(() => {
    throw new Error('no connection');
  });
  metadata = new MetadataCache(new FakeCluster().clientEnvironment, channels, [], AbortSignal.any([]));
});

/** A broker says that topic `t` has this id, and so many partitions. */
function told(id: number, partitions: number) {
  const topicId = new Uint8Array(16).fill(id);
  const topic = { name: 't', topicId, partitions: Array.from({ length: partitions }, (_, partition) => ({ partition })) };
  metadata.apply(create(MetadataResponseSchema, { topics: [topic] }), ['t']);
  return metadata.cached('t');
}

/** A broker says that there is no topic `t`. */
function toldGone() {
  metadata.apply(create(MetadataResponseSchema, {}), ['t']);
  return metadata.cached('t');
}

it('never goes back to a topic that was deleted, whatever a broker that lags behind says', () => {
  told(1, 1);
  told(2, 2);
  expect(toldGone()).toBeUndefined();
  expect(told(1, 1)).toBeUndefined();
  expect(told(2, 2)?.partitions).toHaveLength(2);
});

it('knows the id of a topic that was gone for a while', () => {
  told(1, 1);
  toldGone();
  told(2, 1);
  expect(told(1, 1)).toBeUndefined();
});

describe('where a partition starts', () => {
  const topic = (id: string) => ({ name: `topic ${id}`, topicId: new Uint8Array(16), id, partitions: [] });

  it('is the highest that any replica told, of each partition', () => {
    expect(metadata.startsAt(topic('a'), 0, 50)).toBe(50);
    expect(metadata.startsAt(topic('a'), 1, 0)).toBe(0);
    expect(metadata.startsAt(topic('a'), 0, 30)).toBe(50);
    expect(metadata.startsAt(topic('b'), 0, 30)).toBe(30);
  });

  it('is forgotten with the id of its topic', () => {
    const old = told(1, 1);
    if (old === undefined) throw new Error('it was told');
    metadata.startsAt(old, 0, 50);
    told(2, 1);
    expect(metadata.startsAt(old, 0, 30)).toBe(30);
  });

  it('is remembered of so many topics, those asked for last', () => {
    metadata.startsAt(topic('kept'), 0, 50);
    metadata.startsAt(topic('forgotten'), 0, 50);
    metadata.startsAt(topic('kept'), 1, 50);
    for (let n = 0; n < MAX_STARTS - 1; n++) metadata.startsAt(topic(`${n}`), 0, 1);
    expect(metadata.startsAt(topic('kept'), 0, 30)).toBe(50);
    expect(metadata.startsAt(topic('forgotten'), 0, 30)).toBe(30);
  });
});
