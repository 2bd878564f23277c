import { describe, expect, test } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import { EntryKind } from '../../src/raft/core/entry.ts';
import { ByteReader, ByteWriter, encodeRecords, UnknownRecordError } from '../../src/rsm/codec.ts';
import { MAX_PENDING_OPERATIONS, OPERATION_DEADLINE_MS } from '../../src/rsm/pending.ts';
import { CHECKPOINT_ENTRIES, CHECKPOINT_IDLE_MS, MAX_OPERATION_BYTES, StateMachineRuntime } from '../../src/rsm/runtime.ts';
import type { StateMachine } from '../../src/rsm/types.ts';
import { FakeGroup, type FakeReplica, ManualEnvironment, MemoryStateStore, neverAborted, outcome, settled } from './fakes.ts';

/** A list of words: order and multiplicity show. */
type Words = { readonly index: number; readonly words: readonly string[] };

const words: StateMachine<Words, string, readonly string[]> = {
  empty: { index: 0, words: [] },
  codec: {
    encode: (word) => ({ type: 1, version: 0, body: new ByteWriter().string(word).finish() }),
    decode: ({ type, version, body }) => {
      if (type !== 1 || version !== 0) throw new UnknownRecordError(type, version);
      return new ByteReader(body).string();
    },
  },
  apply: (state, index, records) => ({ state: { index, words: [...state.words, ...records] }, delta: records }),
  encodeState: ({ index, words }) => {
    const writer = new ByteWriter().varint(index).varint(words.length);
    for (const word of words) writer.string(word);
    return writer.finish();
  },
  decodeState: (bytes) => {
    const reader = new ByteReader(bytes);
    const index = reader.varint();
    return { index, words: Array.from({ length: reader.count(1) }, () => reader.string()) };
  },
};

class Node {
  readonly environment = new ManualEnvironment();
  readonly group: FakeGroup;
  readonly replica: FakeReplica;
  readonly store: MemoryStateStore;
  readonly active: boolean[] = [];
  readonly restored: Words[] = [];
  failure: Error | undefined;
  runtime!: StateMachineRuntime<Words, string, readonly string[]>;

  constructor(group = new FakeGroup(), broker = 1, store = new MemoryStateStore()) {
    this.group = group;
    this.replica = group.member(broker);
    this.store = store;
  }
  async open(): Promise<this> {
    this.runtime = await StateMachineRuntime.load({
      name: 'words',
      machine: words,
      store: this.store,
      environment: this.environment,
      logger: silentLogger,
      checksum: (payload) => payload.reduce((sum, byte) => (sum * 31 + byte) >>> 0, 0),
      notLeader: 'NOT_CONTROLLER',
      observer: {
        applied: () => {},
        restored: (state) => this.restored.push(state),
        activeChanged: (active) => this.active.push(active),
        failed: (error) => {
          this.failure = error;
        },
      },
    });
    this.replica.owner = this.runtime.attach(this.replica);
    await settled();
    return this;
  }
  say(word: string, signal = neverAborted) {
    return this.runtime.run(({ words }) => ({ records: [word], response: words.length }), signal);
  }
}

async function leader(): Promise<Node> {
  const node = await new Node().open();
  node.group.elect(node.replica);
  return node;
}

describe('StateMachineRuntime', () => {
  test('answers once the records have committed, with their index', async () => {
    const node = await leader();
    node.group.autoCommit = false;
    const said = outcome(node.say('a'));
    await settled();
    expect(said).toEqual({});
    node.group.commit();
    await settled();
    expect(said.value).toEqual({ response: 0, index: 2 });
    expect(node.runtime.state).toEqual({ index: 2, words: ['a'] });
  });

  test('an operation sees the records that are pending before it', async () => {
    const node = await leader();
    node.group.autoCommit = false;
    const first = outcome(node.say('a'));
    const second = outcome(node.say('b'));
    const read = outcome(node.runtime.run(({ words }) => ({ records: [], response: words.join() }), neverAborted));
    node.group.commit(2);
    await settled();
    expect([first.value, second.value, read.value]).toEqual([{ response: 0, index: 2 }, undefined, undefined]);
    node.group.commit();
    await settled();
    expect(second.value).toEqual({ response: 1, index: 3 });
    expect(read.value).toEqual({ response: 'a,b', index: 3 });
  });

  test('gives its checkpoint as of an entry, and goes on from one that came with the log', async () => {
    const node = await leader();
    for (const word of ['a', 'b', 'c']) await node.say(word);
    const { log } = node.group;
    expect(log.snapshotSource?.(0, 3)).toBeUndefined();
    const state = log.snapshotSource?.(0, 4) as Uint8Array;
    await node.say('d');
    log.snapshot = { index: 4, state };
    log.firstReplicableIndex = 5;
    // At a start whose own checkpoint is older than the log's beginning.
    const late = await new Node(node.group, 2).open();
    await settled();
    expect(late.runtime.state.words).toEqual(['a', 'b', 'c', 'd']);
    expect(late.restored).toEqual([{ index: 4, words: ['a', 'b', 'c'] }]);
    // While it runs, behind: the host has put a snapshot in the log's place.
    const group = new FakeGroup();
    const running = await new Node(group, 3).open();
    Object.assign(group, { log });
    await running.runtime.restored();
    expect(running.runtime.appliedIndex).toBe(4);
    running.runtime.apply(log.entries.slice(4));
    expect(running.runtime.state.words).toEqual(['a', 'b', 'c', 'd']);
    expect(running.failure).toBeUndefined();
  });

  test('takes operations only as a leader whose no-op has committed', async () => {
    const node = await new Node().open();
    const early = outcome(node.say('early'));
    node.replica.lead(node.group.leadership('leader', false));
    const electing = outcome(node.say('electing'));
    await settled();
    expect([early.code, electing.code]).toEqual(['NOT_CONTROLLER', 'NOT_CONTROLLER']);
    expect(node.group.log.entries).toHaveLength(0);
  });

  test('stepping down drops the overlay and answers NOT_CONTROLLER, retriable', async () => {
    const group = new FakeGroup();
    const [one, two] = [await new Node(group, 1).open(), await new Node(group, 2).open()];
    group.elect(one.replica);
    group.autoCommit = false;
    const lost = outcome(one.say('lost'));
    group.elect(two.replica);
    await settled();
    expect(lost.code).toBe('NOT_CONTROLLER');
    expect(lost.error).toMatchObject({ retriable: true });
    group.elect(one.replica);
    const again = outcome(one.say('again'));
    group.commit();
    await settled();
    expect(again.value).toMatchObject({ response: 0 });
    expect(one.runtime.state.words).toEqual(['again']);
    expect(two.runtime.state.words).toEqual(['again']);
    expect(one.active).toEqual([true, false, true]);
  });

  test('a leader that lost its majority steps down within its term, and drops the overlay too', async () => {
    const node = await leader();
    node.group.autoCommit = false;
    const lost = outcome(node.say('lost'));
    node.replica.lead({ ...node.replica.leadership, role: 'follower', ready: false, leader: undefined });
    await settled();
    expect(lost.code).toBe('NOT_CONTROLLER');
    expect(node.runtime.active).toBe(false);
    node.group.elect(node.replica);
    await expect(node.runtime.run(({ words }) => ({ records: [], response: words }), neverAborted)).resolves.toMatchObject({
      response: [],
    });
  });

  test('a record that the new leader commits is applied once, though its response was dropped', async () => {
    const group = new FakeGroup();
    const [one, two] = [await new Node(group, 1).open(), await new Node(group, 2).open()];
    group.elect(one.replica);
    group.autoCommit = false;
    const kept = outcome(one.say('kept'));
    group.elect(two.replica, true);
    await settled();
    expect(kept.code).toBe('NOT_CONTROLLER');
    expect(one.runtime.state.words).toEqual(['kept']);
    expect(two.runtime.state.words).toEqual(['kept']);
  });

  test('an operation that throws leaves nothing behind', async () => {
    const node = await leader();
    const refused = node.runtime.run(() => {
      throw new Error('refused');
    }, neverAborted);
    await expect(refused).rejects.toThrow('refused');
    expect(node.group.log.entries).toHaveLength(1);
    await expect(node.say('x'.repeat(MAX_OPERATION_BYTES))).rejects.toMatchObject({ code: 'INVALID_REQUEST' });
    expect(node.group.log.entries).toHaveLength(1);
  });

  test('what a deposed leader decides without records is not told: a refusal, or an answer (B19)', async () => {
    const group = new FakeGroup();
    const old = await new Node(group, 1).open();
    const next = await new Node(group, 2).open();
    group.elect(old.replica);
    await settled();
    let confirm = () => {};
    group.confirmation = new Promise((resolve) => {
      confirm = resolve;
    });
    const refuse = () => {
      throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', 'never heard of it');
    };
    const refused = outcome(old.runtime.run(refuse, neverAborted));
    const answered = outcome(old.runtime.run(({ words }) => ({ records: [], response: words.length }), neverAborted));
    await settled();
    expect([refused, answered]).toEqual([{}, {}]);
    group.leader = next.replica;
    confirm();
    await settled();
    expect([refused.code, answered.code]).toEqual(['NOT_CONTROLLER', 'NOT_CONTROLLER']);
    group.leader = old.replica;
    expect(outcome(old.runtime.run(refuse, neverAborted))).toEqual({});
    await expect(old.runtime.run(refuse, neverAborted)).rejects.toMatchObject({ code: 'UNKNOWN_TOPIC_OR_PARTITION' });
  });

  test('a refusal for what is pending waits until that has committed', async () => {
    const node = await leader();
    node.group.autoCommit = false;
    const first = outcome(node.say('a'));
    const refuse = ({ words }: Words) => {
      if (words.includes('a')) throw new FlotillaError('TOPIC_ALREADY_EXISTS', 'said before');
      return { records: ['a'], response: 0 };
    };
    const refused = outcome(node.runtime.run(refuse, neverAborted));
    await settled();
    expect([first, refused]).toEqual([{}, {}]);
    node.group.commit();
    await settled();
    expect(refused.code).toBe('TOPIC_ALREADY_EXISTS');
  });

  test('a waiting caller gives up by its signal or the deadline; the records stay pending', async () => {
    const node = await leader();
    node.group.autoCommit = false;
    const abort = new AbortController();
    const aborted = outcome(node.say('a', abort.signal));
    const late = outcome(node.say('b'));
    abort.abort();
    await node.environment.advance(OPERATION_DEADLINE_MS);
    expect([aborted.code, late.code]).toEqual(['ABORTED', 'REQUEST_TIMED_OUT']);
    node.group.commit();
    expect(node.runtime.state.words).toEqual(['a', 'b']);
    node.group.autoCommit = true;
    await expect(node.say('c')).resolves.toEqual({ response: 2, index: 4 });
  });

  test('parked responses are bounded', async () => {
    const node = await leader();
    node.group.autoCommit = false;
    const all = Array.from({ length: MAX_PENDING_OPERATIONS }, () =>
      node.runtime.run(() => ({ records: ['a'], response: 1 }), neverAborted).catch(() => 0),
    );
    await expect(node.say('one more')).rejects.toMatchObject({ code: 'THROTTLING_QUOTA_EXCEEDED' });
    node.group.commit();
    await expect(Promise.all(all)).resolves.toHaveLength(MAX_PENDING_OPERATIONS);
    expect(node.environment.timers).toBe(0);
  }, 60_000);

  test('an unknown record stops the replica and is never skipped', async () => {
    const node = await leader();
    await node.say('a');
    const payload = encodeRecords({ encode: () => ({ type: 9, version: 3, body: new Uint8Array(2) }), decode: () => '' }, ['']);
    node.group.append({ kind: EntryKind.batch, payload, recordCount: 0, payloadChecksum: 0 });
    node.group.commit();
    expect(node.failure?.message).toMatch(/can't apply entry 3: unknown record type 9 version 3.*upgrade/);
    expect(node.runtime.appliedIndex).toBe(2);
    node.group.append({ kind: EntryKind.batch, payload: encodeRecords(words.codec, ['b']), recordCount: 0, payloadChecksum: 0 });
    node.group.commit();
    expect(node.runtime.state.words).toEqual(['a']);
    await expect(node.say('c')).rejects.toMatchObject({ code: 'NOT_CONTROLLER' });
  });

  test('a restart replays from the checkpoint to the same state, and takes what commits meanwhile', async () => {
    const node = await leader();
    for (let i = 0; i < 5; i++) await node.say(`w${i}`);
    await node.runtime.checkpoint();
    for (let i = 5; i < 9; i++) await node.say(`w${i}`);
    node.replica.owner = undefined;

    const again = new Node(node.group, 1, node.store);
    await again.open();
    expect(again.runtime.state).toEqual(node.runtime.state);

    const fresh = new Node(node.group, 2);
    const opening = fresh.open();
    await Promise.resolve();
    node.group.append({ kind: EntryKind.batch, payload: encodeRecords(words.codec, ['meanwhile']), recordCount: 0, payloadChecksum: 0 });
    node.group.commit();
    await opening;
    await fresh.environment.advance(10);
    expect(fresh.runtime.state.words).toEqual([...node.runtime.state.words, 'meanwhile']);
    expect(fresh.runtime.state.index).toBe(node.group.log.committed);
  });

  test('a leader that is elected during the replay waits for its end', async () => {
    const node = await leader();
    await node.say('a');
    node.replica.owner = undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    node.group.log.gate = promise;
    const again = await new Node(node.group, 2).open();
    node.group.elect(again.replica);
    await expect(again.say('early')).rejects.toMatchObject({ code: 'NOT_CONTROLLER' });
    expect(again.active).toEqual([]);
    resolve();
    await again.environment.advance(10);
    expect(again.active).toEqual([true]);
    await expect(again.say('b')).resolves.toMatchObject({ response: 1 });
  });

  test('ready is believed only once all that was committed before is applied', async () => {
    const node = await new Node().open();
    const { group, replica } = node;
    group.leader = replica;
    group.append({ kind: EntryKind.batch, payload: encodeRecords(words.codec, ['before']), recordCount: 0, payloadChecksum: 0 });
    group.log.committed = 1;
    replica.lead(group.leadership('leader', true));
    await expect(node.say('early')).rejects.toMatchObject({ code: 'NOT_CONTROLLER' });
    node.runtime.apply(group.log.entries);
    await expect(node.say('after')).resolves.toMatchObject({ response: 1 });
  });

  test('entries that were committed before the process began are read from the log', async () => {
    const node = await new Node().open();
    const { log } = node.group;
    for (const word of ['a', 'b', 'c']) {
      node.group.append({ kind: EntryKind.batch, payload: encodeRecords(words.codec, [word]), recordCount: 0, payloadChecksum: 0 });
    }
    log.committed = 3;
    node.runtime.apply(log.entries.slice(2));
    await settled();
    expect(node.runtime.state).toEqual({ index: 3, words: ['a', 'b', 'c'] });
  });

  test('a checkpoint that rotted is not believed: the state is made anew from the log', async () => {
    const node = await leader();
    for (const word of ['a', 'b', 'c']) await node.say(word);
    await node.runtime.checkpoint();
    const stored = node.store.map.get('rsm/words/checkpoint') as Uint8Array;
    stored[stored.length - 1] = (stored[stored.length - 1] as number) ^ 1;
    const again = await new Node(node.group, 2, node.store).open();
    expect(again.runtime.state.words).toEqual(['a', 'b', 'c']);
    // Nor one whose checksum went with it.
    node.store.map.set('rsm/words/checkpoint', stored);
    expect(node.store.map.delete('rsm/words/checkpoint-crc32')).toBe(true);
    expect((await new Node(node.group, 3, node.store).open()).runtime.state.words).toEqual(['a', 'b', 'c']);
  });

  test('checkpoints are written after many entries, or after a while', async () => {
    const node = await leader();
    await node.environment.advance(CHECKPOINT_IDLE_MS);
    expect(node.store.writes).toBe(1);
    for (let i = 0; i < CHECKPOINT_ENTRIES; i++) await node.runtime.run(() => ({ records: ['a'], response: 0 }), neverAborted);
    await settled();
    expect(node.store.writes).toBe(2);
    await node.runtime.close();
    expect(node.environment.timers).toBe(0);
  });

  // One value, so that index and state can't come apart (B28).
  test('a checkpoint has the index of its state, whatever is applied while it is written', async () => {
    const node = await leader();
    await node.say('before');
    const written = node.runtime.checkpoint();
    await node.say('meanwhile');
    await written;
    node.replica.owner = undefined;
    const again = await new Node(node.group, 2, node.store).open();
    expect(again.runtime.state.words).toEqual(['before', 'meanwhile']);
  });

  test('a replica that is closed during its replay writes down how far it got', async () => {
    const node = await leader();
    for (const word of ['a', 'b', 'c']) await node.say(word);
    const { log } = node.group;
    const store = new MemoryStateStore();
    log.maxEntries = 2;
    log.maxReads = 1;
    const short = await new Node(node.group, 2, store).open();
    expect(short.runtime.appliedIndex).toBe(2);
    await short.runtime.close();
    log.maxReads = Number.POSITIVE_INFINITY;
    const again = await new Node(node.group, 3, store).open();
    expect(again.runtime.state.words).toEqual(['a', 'b', 'c']);
  });

  test('a store that fails stops the replica', async () => {
    const node = await leader();
    node.store.failure = new Error('EIO');
    await node.environment.advance(CHECKPOINT_IDLE_MS);
    expect(node.failure?.message).toContain('EIO');
    expect(node.runtime.active).toBe(false);
  });

  test('close rejects what waits and writes a last checkpoint', async () => {
    const node = await leader();
    await node.say('a');
    node.group.autoCommit = false;
    const waiting = outcome(node.say('b'));
    await node.runtime.close();
    expect(waiting.code).toBe('NOT_CONTROLLER');
    node.replica.owner = undefined;
    const again = await new Node(new FakeGroup(), 1, node.store).open();
    expect(again.runtime.state.words).toEqual(['a']);
  });
});
