import { create } from '@bufbuild/protobuf';
import { expect, it } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import {
  type BrokerId,
  type DirectoryId,
  encodeGroupKey,
  formatGroupKey,
  type GroupKey,
  METADATA_GROUP,
  type ReplicaId,
} from '../../src/base/ids.ts';
import { MAX_OPENING_MS, Partitions } from '../../src/broker/partitions.ts';
import { describeReplicasHandler } from '../../src/broker/raft-groups.ts';
import { DescribeReplicasRequestSchema, RaftRole } from '../../src/gen/flotilla/v1/raft_groups_pb.ts';
import { applyRecords } from '../../src/metadata/apply.ts';
import type { MetadataRecord } from '../../src/metadata/records.ts';
import { MetadataStore } from '../../src/metadata/view.ts';
import type { RaftHost, ReplicaOptions } from '../../src/raft/types.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import { defaults } from './batches.ts';
import { FakeReplica, topicId } from './fake-replica.ts';
import { call, contextOf } from './handlers.ts';
import { ManualEnvironment } from './manual-environment.ts';

const brokerId = 1 as BrokerId;
const { directoryId } = new FakeReplica().configuration.voters[0]!;
const group = encodeGroupKey({ topicId, partition: 0, groupGeneration: 0 });
const created: MetadataRecord = {
  type: 'createTopic',
  topicId,
  name: 'orders',
  configs: new Map(),
  firstReplicaId: 1,
  disks: [{ brokerId, directoryId }],
  partitions: [[0]],
};
const registered = (incarnation: number): MetadataRecord => ({
  type: 'registerBroker',
  brokerId,
  directoryId,
  incarnation,
  rack: undefined,
  listeners: new Map(),
  peerAddress: 'here:1',
});

/** The second process on a directory, and what it opens and removes as it replays the metadata. */
function secondProcess(
  held: readonly GroupKey[],
  { damaged = false, notWhole = false, rotted = false, refusals = 0, opens = Promise.resolve(), leads = true } = {},
) {
  const environment = new ManualEnvironment();
  let left = refusals;
  const opened: GroupKey[] = [];
  const replicas: ReplicaId[] = [];
  const closed: GroupKey[] = [];
  const removed: GroupKey[] = [];
  const warned: unknown[] = [];
  const fakes: FakeReplica[] = [];
  const host = {
    open: async ({ group, replicaId, latest, owner }: ReplicaOptions) => {
      opened.push(group);
      if (rotted && latest !== true) throw new FlotillaError('DATA_DIRECTORY', 'nobody can tell whose it is');
      replicas.push(replicaId);
      await opens;
      if (notWhole) throw new FlotillaError('STORAGE_ERROR', 'not whole');
      if (left-- > 0) throw Object.assign(new Error('EIO'), { code: 'EIO' });
      const fake = Object.assign(new FakeReplica({ voters: 1 }), { replicaId });
      fakes.push(fake);
      if (!leads) fake.leadership = { role: 'follower', term: 1, leader: undefined, ready: false };
      const { replica } = fake;
      if (damaged) replica.log.scanBatchHeaders = () => Promise.reject(new FlotillaError('STORAGE_ERROR', 'damaged'));
      fake.owner = owner(replica);
      return replica;
    },
    close: async (group: GroupKey) => void closed.push(group),
    remove: async (group: GroupKey) => void removed.push(group),
    // Of what is damaged nothing can be put right.
    untilWhole: async () => false,
  } as unknown as RaftHost;
  const metadata = new MetadataStore();
  const partitions = new Partitions({
    brokerId,
    directoryId,
    incarnation: 2,
    held: new Set(held),
    host,
    metadata,
    topicDefaults: defaults,
    environment,
    crc32c,
    compression: new CompressionTable(),
    checkRoom: () => {},
    log: { ...silentLogger, warn: (...said) => void warned.push(said) },
    leadershipChanged: () => {},
  });
  partitions.start();
  const replay = async (...records: MetadataRecord[]) => {
    metadata.publish(applyRecords(metadata.image, metadata.image.index + 1, records));
    await new Promise((resolve) => setImmediate(resolve));
  };
  const failed = () => [...partitions.failed()].map((one) => one.replicaId);
  const isOpen = () => partitions.get(topicId, 0) !== undefined;
  return { opened, closed, removed, warned, environment, replay, partitions, metadata, replicas, failed, isOpen, fakes };
}

it('opens at once what the directory holds', async () => {
  const { opened, replay } = secondProcess([group]);
  await replay(registered(1));
  await replay(created);
  expect(opened).toEqual([group]);
});

it('makes a replica only once the metadata are as new as this process (B14)', async () => {
  const { opened, replay } = secondProcess([]);
  await replay(registered(1));
  await replay(created);
  expect(opened).toEqual([]);
  await replay(registered(2));
  expect(opened).toEqual([group]);
});

it('claims a directory that nobody can tell whose it is once the metadata are as new as this process, and for whom they name then (B03)', async () => {
  const { replicas, failed, isOpen, replay } = secondProcess([group], { rotted: true });
  await replay(registered(1), created);
  await replay(...moveTo(1, on(5)));
  expect([replicas, failed(), isOpen()]).toEqual([[], [], false]);
  await replay(registered(2));
  expect([replicas, failed(), isOpen()]).toEqual([[5], [], true]);
});

it('makes no replica of a topic that was deleted before this process began (B14)', async () => {
  const { opened, replay } = secondProcess([]);
  await replay(registered(1));
  await replay(created);
  await replay({ type: 'deleteTopic', topicId });
  await replay(registered(2));
  expect(opened).toEqual([]);
});

it('closes a replica whose batches can not be read: nobody would serve what it is elected for (B23)', async () => {
  const { opened, closed, removed, replay } = secondProcess([group], { damaged: true });
  await replay(registered(1));
  await replay(created);
  expect(opened).toEqual([group]);
  expect(closed).toEqual([group]);
  await replay({ type: 'deleteTopic', topicId });
  expect(removed).toEqual([group]);
});

it('tells who asks for the replica why it is not open', async () => {
  const { replay, partitions, metadata } = secondProcess([group], { damaged: true });
  await replay(registered(2), created);
  expect(partitions.failureOf(group)).toBe('damaged');
  const context = { ...contextOf([], new ManualEnvironment()), partitions, metadata };
  const [, { handle }] = describeReplicasHandler(context, { get: () => undefined, pendingDiskBytes: 7 });
  const asked = create(DescribeReplicasRequestSchema, { group: 'orders/0' });
  expect(await handle(asked as never, call)).toMatchObject({
    pendingDiskBytes: 7n,
    replicas: [{ group: 'orders/0', replicaId: 1n, notOpen: 'damaged', role: RaftRole.UNSPECIFIED }],
  });
});

it('tries again to open a replica that the disk refused once, later each time', async () => {
  const { opened, environment, replay } = secondProcess([group], { refusals: 2 });
  const pass = async (ms: number) => {
    environment.advance(ms);
    await new Promise((resolve) => setImmediate(resolve));
  };
  await replay(registered(1));
  await replay(created);
  expect(opened).toEqual([group]);
  await pass(1_000);
  expect(opened).toHaveLength(2);
  await pass(1_000);
  expect(opened).toHaveLength(2);
  await pass(1_000);
  expect(opened).toHaveLength(3);
  await pass(100_000);
  expect(opened).toHaveLength(3);
});

it('says which replicas the metadata do not know any more, and leaves them alone (B24)', async () => {
  const { warned, removed, replay } = secondProcess([METADATA_GROUP, group]);
  await replay(registered(1));
  expect(warned).toEqual([]);
  await replay(registered(2));
  expect(warned).toEqual([['partition.orphans', expect.objectContaining({ count: 1, groups: [formatGroupKey(group)] })]]);
  expect(removed).toEqual([]);
});

const on = (replicaId: number, broker = brokerId, directory = directoryId) => ({
  replicaId: replicaId as ReplicaId,
  brokerId: broker,
  directoryId: directory,
});
const elsewhere = on(2, 2 as BrokerId, 'e'.repeat(32) as DirectoryId);
const moveTo = (epoch: number, ...replicas: ReturnType<typeof on>[]): MetadataRecord[] => [
  { type: 'setTarget', topicId, partition: 0, epoch, replicas, leaving: [] },
];
const movedTo = (index: number, ...replicas: ReturnType<typeof on>[]): MetadataRecord[] => [
  { type: 'replicasCommitted', topicId, partition: 0, term: 1, index, replicas },
  { type: 'clearTarget', topicId, partition: 0 },
];

it('opens a replica that is a target, and removes it when the metadata name others only', async () => {
  const { replicas, removed, replay, isOpen } = secondProcess([]);
  await replay(registered(2), { ...created, disks: [elsewhere] } as MetadataRecord);
  expect(isOpen()).toBe(false);
  await replay(...moveTo(1, on(2)));
  expect(replicas).toEqual([2]);
  await replay(...movedTo(7, on(2)), ...moveTo(2, on(3, elsewhere.brokerId, elsewhere.directoryId)));
  expect([removed, isOpen()]).toEqual([[], true]);
  await replay(...movedTo(9, on(3, elsewhere.brokerId, elsewhere.directoryId)));
  expect([removed, isOpen()]).toEqual([[group], false]);
});

it('removes nothing on the word of metadata that are older than this process: it may have got the replica again since (B24)', async () => {
  const { removed, replicas, replay } = secondProcess([group]);
  await replay(registered(1), created, ...moveTo(1, elsewhere), ...movedTo(7, elsewhere));
  expect(removed).toEqual([]);
  await replay(...moveTo(2, on(3)));
  expect(replicas.at(-1)).toBe(3);
  await replay(registered(2));
  expect(removed).toEqual([]);
});

it('removes what has moved away while the broker was down', async () => {
  const { removed, opened, replay } = secondProcess([group]);
  await replay(created, ...moveTo(1, elsewhere), ...movedTo(7, elsewhere), registered(2));
  expect([opened, removed]).toEqual([[], [group]]);
});

it('a replica that takes the place of another here opens once that is put away', async () => {
  const { replicas, removed, replay, isOpen } = secondProcess([group]);
  await replay(registered(2), created);
  await replay(...moveTo(1, on(2)));
  expect([replicas, removed, isOpen()]).toEqual([[1, 2], [group], true]);
  await replay(...movedTo(5, on(2)));
  expect([replicas, removed]).toEqual([[1, 2], [group]]);
});

it('a late second try for a replica that has moved away does not befall the one that came after it (B14)', async () => {
  const { replicas, removed, environment, replay, isOpen } = secondProcess([group], { refusals: 1 });
  await replay(registered(2), created);
  await replay(...moveTo(1, elsewhere), ...movedTo(7, elsewhere));
  expect(removed).toEqual([group]);
  await replay(...moveTo(2, on(3)));
  expect([replicas.at(-1), isOpen()]).toEqual([3, true]);
  environment.advance(100_000);
  await new Promise((resolve) => setImmediate(resolve));
  expect([removed, isOpen()]).toEqual([[group], true]);
});

it('a replica that differs from the majority is given up, serves nobody, and gives way to its successor (B29)', async () => {
  const { partitions, removed, replicas, failed, replay, isOpen } = secondProcess([group]);
  await replay(registered(2), created);
  partitions.quarantined(group, 9 as ReplicaId);
  expect([failed(), isOpen()]).toEqual([[], true]);
  partitions.quarantined(group, 1 as ReplicaId);
  await replay({ type: 'replicaFailed', topicId, partition: 0, replicaId: 1 as ReplicaId });
  expect([failed(), isOpen(), removed]).toEqual([[1], false, []]);
  await replay(...moveTo(1, on(2)));
  expect([failed(), isOpen(), removed, replicas]).toEqual([[], true, [group], [1, 2]]);
});

it('a replica that is not whole is given up, until another takes its place; but not by older metadata', async () => {
  const { failed, replay } = secondProcess([group], { notWhole: true });
  await replay(registered(1), created);
  expect(failed()).toEqual([]);
  await replay(registered(2));
  expect(failed()).toEqual([1]);
  await replay({ type: 'replicaFailed', topicId, partition: 0, replicaId: 1 as ReplicaId });
  expect(failed()).toEqual([1]);
  await replay(...moveTo(1, on(2)));
  expect(failed()).toEqual([2]);
  await replay({ type: 'deleteTopic', topicId });
  expect(failed()).toEqual([]);
});

/** How far a wait has come: present, and over. */
function watched(waits: Promise<void> | undefined): { over: boolean } | undefined {
  if (waits === undefined) return undefined;
  const wait = { over: false };
  void waits.then(() => {
    wait.over = true;
  });
  return wait;
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

it('what is for a partition whose only replica is being opened here waits until that leads', async () => {
  const opens = Promise.withResolvers<void>();
  const { partitions, replay, fakes } = secondProcess([group], { opens: opens.promise, leads: false });
  await replay(registered(2), created);
  const wait = watched(partitions.opening(topicId, 0));
  opens.resolve();
  await turn();
  expect(wait).toEqual({ over: false });
  expect(watched(partitions.opening(topicId, 0))).toEqual({ over: false });
  fakes[0]!.become({ role: 'leader', leader: { replicaId: 1 as ReplicaId, brokerId } });
  await turn();
  expect(wait).toEqual({ over: true });
  expect(partitions.opening(topicId, 0)).toBeUndefined();
});

it('nothing waits for what may be led elsewhere, is not here, or can not be opened', async () => {
  const shared = secondProcess([group], { leads: false });
  await shared.replay(registered(2), { ...created, disks: [{ brokerId, directoryId }, elsewhere], partitions: [[0, 1]] } as MetadataRecord);
  expect(shared.partitions.opening(topicId, 0)).toBeUndefined();
  expect(shared.partitions.opening(topicId, 1)).toBeUndefined();
  const opens = Promise.withResolvers<void>();
  const broken = secondProcess([group], { opens: opens.promise, notWhole: true });
  await broken.replay(registered(2), created);
  const wait = watched(broken.partitions.opening(topicId, 0));
  opens.resolve();
  await turn();
  expect([wait, broken.partitions.opening(topicId, 0)]).toEqual([{ over: true }, undefined]);
});

it('nobody waits for long, nor for a partition that goes, nor while the broker stops', async () => {
  const opens = Promise.withResolvers<void>();
  const { partitions, environment, replay } = secondProcess([group], { opens: opens.promise, leads: false });
  await replay(registered(2), created);
  const wait = watched(partitions.opening(topicId, 0));
  environment.advance(MAX_OPENING_MS - 1);
  await turn();
  expect(wait).toEqual({ over: false });
  environment.advance(1);
  await turn();
  expect(wait).toEqual({ over: true });
  expect(() => partitions.find(topicId, 0)).toThrow('no open replica');
  opens.resolve();
  await turn();
  const deleted = watched(partitions.opening(topicId, 0));
  await replay({ type: 'deleteTopic', topicId });
  expect(deleted).toEqual({ over: true });

  const stopping = secondProcess([group], { leads: false });
  await stopping.replay(registered(2), created);
  const last = watched(stopping.partitions.opening(topicId, 0));
  await stopping.partitions.stop();
  await turn();
  expect([last, stopping.partitions.opening(topicId, 0)]).toEqual([{ over: true }, undefined]);
  expect([environment.timers, stopping.environment.timers]).toEqual([0, 0]);
});
