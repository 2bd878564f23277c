/** A cluster in memory behind the CLI's client interface, and streams that remember what was written. */
import { Readable, Writable } from 'node:stream';
import { FlotillaError } from '../../src/base/errors.ts';
import type {
  ClusterAdmin,
  ClusterClient,
  ClusterConsumer,
  ClusterProducer,
  ConsumerSettings,
  IncomingRecord,
  NewTopic,
  OutgoingRecord,
  ProducerSettings,
  RaftGroup,
  StartingPoint,
} from '../../src/cli/client.ts';
import type { Streams } from '../../src/cli/io.ts';
import { execute } from '../../src/cli/main.ts';
import type { BrokerScrub } from '../../src/client/index.ts';

interface FakeTopic extends NewTopic {
  readonly logs: IncomingRecord[][];
}

export class FakeCluster {
  readonly topics = new Map<string, FakeTopic>();
  /** Records that are in a log no more. */
  readonly compacted = new Set<IncomingRecord>();
  readonly producers: ProducerSettings[] = [];
  groups: RaftGroup[] = [];
  scrubs: BrokerScrub[] = [];
  /** The error of the n-th send from now, if any. */
  failSend: ((sent: number) => FlotillaError | undefined) | undefined;
  deadBrokers: number[] = [];
  maxUnacknowledged = 0;
  closed = 0;
  #sent = 0;

  add(name: string, partitions = 1, replicas = 3): FakeTopic {
    const topic = { name, partitions, replicas, configs: {}, logs: Array.from({ length: partitions }, () => []) };
    this.topics.set(name, topic);
    return topic;
  }

  append(name: string, partition: number, record: OutgoingRecord, timestamp = 1_000): number {
    const log = this.topic(name).logs[partition]!;
    const { key = null, value, headers = [] } = record;
    return log.push({ topic: name, partition, offset: log.length, timestamp, key, value, headers }) - 1;
  }

  topic(name: string): FakeTopic {
    const topic = this.topics.get(name);
    if (topic === undefined) throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `Topic '${name}' does not exist.`);
    return topic;
  }

  async connect(): Promise<ClusterClient> {
    const close = async () => {
      this.closed++;
    };
    return {
      admin: this.#admin(),
      producer: (settings) => this.#producer(settings),
      consumer: (settings) => this.#consumer(settings),
      close,
      [Symbol.asyncDispose]: close,
    };
  }

  #producer(settings: ProducerSettings): ClusterProducer {
    this.producers.push(settings);
    let unacknowledged = 0;
    return {
      send: async (topic, record) => {
        const failure = this.failSend?.(this.#sent++);
        this.maxUnacknowledged = Math.max(this.maxUnacknowledged, ++unacknowledged);
        await new Promise((resolve) => setImmediate(resolve));
        unacknowledged--;
        if (failure !== undefined) throw failure;
        const partition = record.partition ?? 0;
        return { partition, offset: this.append(topic, partition, record) };
      },
      close: async () => {},
      [Symbol.asyncDispose]: async () => {},
    };
  }

  #consumer(settings: ConsumerSettings): ClusterConsumer {
    const { logs } = this.topic(settings.topic);
    const partitions = settings.partitions ?? logs.map((_, partition) => partition);
    const positions = new Map(partitions.map((partition) => [partition, startOf(logs[partition]!, settings.from)]));
    const { compacted } = this;
    async function* records(): AsyncGenerator<IncomingRecord> {
      const ends = settings.until === 'end' ? new Map(partitions.map((partition) => [partition, logs[partition]!.length])) : undefined;
      const hasReadAll = () => ends !== undefined && partitions.every((partition) => positions.get(partition)! >= ends.get(partition)!);
      while (!settings.signal.aborted && !hasReadAll()) {
        const ready = partitions.find((partition) => positions.get(partition)! < logs[partition]!.length);
        if (ready !== undefined) {
          const position = positions.get(ready)!;
          positions.set(ready, position + 1);
          const record = logs[ready]![position]!;
          if (!compacted.has(record)) yield record;
        } else await new Promise((resolve) => setImmediate(resolve));
      }
    }
    return { [Symbol.asyncIterator]: records, close: async () => {}, [Symbol.asyncDispose]: async () => {} };
  }

  #admin(): ClusterAdmin {
    const summary = ({ name, logs, replicas }: FakeTopic) => ({
      name,
      partitions: logs.map((_, partition) => ({
        partition,
        leader: (partition % 3) + 1,
        leaderEpoch: 7,
        replicas: Array.from({ length: replicas }, (_, at) => ((partition + at) % 3) + 1),
      })),
    });
    const ends = (name: string, partitions: readonly number[]) => partitions.map((partition) => this.topic(name).logs[partition]!.length);
    return {
      createTopic: async (request) => {
        if (this.topics.has(request.name)) throw new FlotillaError('TOPIC_ALREADY_EXISTS', `Topic '${request.name}' exists already.`);
        Object.assign(this.add(request.name, request.partitions || 1, request.replicas || 3), { configs: request.configs });
      },
      deleteTopic: async (name) => {
        this.topics.delete(this.topic(name).name);
      },
      alterTopicConfigs: async (name, { set, remove }) => {
        const topic = this.topic(name);
        const configs = { ...topic.configs, ...set };
        for (const key of remove) delete configs[key];
        return Object.assign(topic, { configs }).configs;
      },
      deleteRecords: async (name, partitions) =>
        partitions.map(({ partition, before }) => {
          const end = ends(name, [partition])[0]!;
          if (before !== 'end' && before > end)
            throw new FlotillaError('OFFSET_OUT_OF_RANGE', `${name}-${partition} can't start at ${before}.`);
          return before === 'end' ? end : before;
        }),
      listTopics: async () => [...this.topics.values()].map(summary),
      describeTopic: async (name) => ({
        name,
        topicId: 'f'.repeat(32),
        configs: this.topic(name).configs,
        partitions: summary(this.topic(name)).partitions.map((partition) => ({
          ...partition,
          inSync: partition.replicas,
          logStartOffset: 0,
          highWatermark: this.topic(name).logs[partition.partition]!.length,
          sizeBytes: 10,
        })),
      }),
      describeCluster: async () => ({
        clusterId: 'c'.repeat(32),
        controller: 2,
        controllerEpoch: 4,
        voters: [1, 2, 3],
        brokers: [1, 2, 3].map((id) => ({
          id,
          address: `127.0.0.1:${7100 + id}`,
          rack: undefined,
          alive: !this.deadBrokers.includes(id),
          controller: id === 2,
        })),
        topics: [...this.topics.values()].map(summary),
      }),
      listRaftGroups: async function* (this: FakeCluster, topic: string | undefined) {
        if (topic !== undefined) this.topic(topic);
        yield* this.groups.filter((group) => topic === undefined || group.topic === topic);
      }.bind(this),
      describeRaftGroup: async (name) => {
        const group = this.groups.find((each) => each.name === name);
        if (group === undefined) throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `Topic '${name.split('/')[0]}' does not exist.`);
        return group;
      },
      scrub: async (now) => {
        const { scrubs } = this;
        // The pass begins a moment after it was asked for.
        if (now) this.scrubs = scrubs.map((scrub) => ({ ...scrub, pass: scrub.pass + 1 }));
        return scrubs;
      },
      endOffsets: async (name, partitions) => ends(name, partitions),
      startOffsets: async (name, partitions, from) => partitions.map((partition) => startOf(this.topic(name).logs[partition]!, from)),
    };
  }
}

function startOf(log: readonly IncomingRecord[], from: StartingPoint): number {
  if (from === 'beginning') return 0;
  if (from === 'end') return log.length;
  if ('offset' in from) return from.offset;
  const found = log.findIndex(({ timestamp }) => timestamp >= from.timestamp);
  return found === -1 ? log.length : found;
}

export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly bytes: Buffer;
  readonly err: string;
  /** Stdout as one JSON document. */
  readonly json: unknown;
}

export interface Setting {
  readonly cluster?: FakeCluster;
  readonly stdin?: string | Uint8Array | Readable;
  readonly env?: Readonly<Record<string, string>>;
  /** Called for each line of stdout; may close it. */
  readonly stdout?: Writable;
  readonly interrupt?: (interrupt: () => void) => void;
}

/** Runs a command line against a fake cluster. */
export async function flotilla(argv: readonly string[], setting: Setting = {}): Promise<Outcome> {
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  const { stdin = '', cluster = new FakeCluster() } = setting;
  const streams: Streams = {
    stdin: stdin instanceof Readable ? stdin : Readable.from([Buffer.from(stdin)]),
    stdout: setting.stdout ?? collect(out),
    stderr: collect(err),
    env: setting.env ?? {},
  };
  const code = await execute(argv, streams, () => cluster.connect(), setting.interrupt);
  const bytes = Buffer.concat(out);
  return {
    code,
    out: bytes.toString(),
    bytes,
    err: Buffer.concat(err).toString(),
    get json() {
      return JSON.parse(bytes.toString());
    },
  };
}

function collect(chunks: Buffer[]): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      chunks.push(Buffer.from(chunk));
      done();
    },
  });
}
