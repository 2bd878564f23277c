/** A process that starts, as far as its store of applied state goes: production's code over a LevelDB on a real disk, with a state machine of words. */
import { silentLogger } from '../../../src/base/environment.ts';
import { openState } from '../../../src/broker/state.ts';
import { crc32 } from '../../../src/platform/crc32.ts';
import { NodeDisk } from '../../../src/platform/disk.ts';
import { openLevelStore } from '../../../src/platform/state-store.ts';
import { ByteReader, ByteWriter } from '../../../src/rsm/codec.ts';
import { StateMachineRuntime } from '../../../src/rsm/runtime.ts';
import type { StateMachine } from '../../../src/rsm/types.ts';
import { type FakeGroup, ManualEnvironment, settled } from '../../rsm/fakes.ts';

/** All that was ever said, in its order. */
export type Words = readonly string[];

const words: StateMachine<Words, string, Words> = {
  empty: [],
  codec: {
    encode: (word) => ({ type: 1, version: 0, body: new ByteWriter().string(word).finish() }),
    decode: ({ body }) => new ByteReader(body).string(),
  },
  apply: (state, _index, records) => ({ state: [...state, ...records], delta: records }),
  encodeState: (state) => {
    const writer = new ByteWriter().varint(state.length);
    for (const word of state) writer.string(word);
    return writer.finish();
  },
  decodeState: (bytes) => {
    const reader = new ByteReader(bytes);
    return Array.from({ length: reader.count(1) }, () => reader.string());
  },
};

export interface Started {
  readonly runtime: StateMachineRuntime<Words, string, Words>;
  /** The last entry that the store tells of. */
  readonly loaded: number;
  close(): Promise<void>;
}

/** What the store in the data directory has, and then what the log has above. */
export async function startOn(directory: string, incarnation: number, group: FakeGroup): Promise<Started> {
  const store = await openState({ disk: new NodeDisk(), directory, incarnation, openStateStore: openLevelStore, log: silentLogger });
  try {
    const replica = group.member(incarnation);
    let failure: Error | undefined;
    const runtime: Started['runtime'] = await StateMachineRuntime.load({
      name: 'words',
      machine: words,
      store,
      environment: new ManualEnvironment(),
      logger: silentLogger,
      checksum: crc32,
      notLeader: 'NOT_CONTROLLER',
      observer: {
        applied: () => {},
        restored: () => {},
        activeChanged: () => {},
        failed: (error) => {
          failure = error;
        },
      },
    });
    const loaded = runtime.appliedIndex;
    replica.owner = runtime.attach(replica);
    group.elect(replica);
    await settled();
    if (failure !== undefined) throw failure;
    const close = async () => {
      await runtime.close();
      await store.close();
    };
    return { runtime, loaded, close };
  } catch (error) {
    await store.close();
    throw error;
  }
}
