/**
 * Configuration of a broker and of topics. Sources, each over the one before: defaults, a file, the environment
 * (`broker.rack` is FLOTILLA_BROKER_RACK), and `--set key=value`. An unknown key or a wrong value stops the start with
 * INVALID_CONFIG that names the right key or what is allowed.
 */
import { must } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';
import { type BrokerId, type ClusterId, isUuid } from '../base/ids.ts';
import { mapCapacity } from '../record/offset-map.ts';
import type { LogSettings } from '../storage/types.ts';
import { type BrokerKey, brokerKeys, type TopicKey, topicKeys } from './config-keys.ts';
import { type ConfigKey, type ConfigValue, nearest, parseConfigValue, unknownKey } from './config-value.ts';

export type ConfigSource = 'default' | 'file' | 'environment' | 'command line';

export interface Endpoint {
  /** The listener's name. */
  readonly name: string;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
}

export interface QuorumVoter {
  readonly brokerId: BrokerId;
  /** host:port */
  readonly address: string;
}

/** What a partition obeys; sizes in bytes, times in milliseconds. */
export interface TopicConfig {
  readonly minInsyncReplicas: number;
  readonly maxMessageBytes: number;
  /** What maxMessageBytes may be raised to. */
  readonly largestBatchBytes: number;
  readonly segmentBytes: number;
  readonly segmentMs: number;
  /** -1: for ever. */
  readonly retentionMs: number;
  /** Of a partition; -1: all. */
  readonly retentionBytes: number;
  /** Of the topic, all its partitions together; -1: all. */
  readonly retentionTopicBytes: number;
  /** cleanup.policy has delete: records go by age and size. */
  readonly deletes: boolean;
  /** cleanup.policy has compact: the newest record of each key stays. */
  readonly compacts: boolean;
  /** Offsets in a segment of a compacted log: so that its keys fit into the memory that there is for them. */
  readonly compactedSegmentRecords: number;
  readonly minCleanableRatio: number;
  readonly minCompactionLagMs: number;
  readonly maxCompactionLagMs: number;
  readonly deleteRetentionMs: number;
  readonly timestampType: 'CreateTime' | 'LogAppendTime';
  readonly timestampBeforeMaxMs: number;
  readonly timestampAfterMaxMs: number;
}

/** How this broker cleans compacted logs. */
export interface CleanerConfig {
  readonly dedupeBufferBytes: number;
  readonly ioBytesPerSecond: number;
  readonly backoffMs: number;
}

export interface EffectiveSetting {
  readonly key: string;
  /** As it was written. Undefined: absent. */
  readonly value: string | undefined;
  readonly source: ConfigSource;
  readonly dynamic: boolean;
  readonly doc: string;
}

/** The configuration of a broker, checked. Sizes in bytes, times in milliseconds. */
export interface BrokerConfig {
  readonly nodeId: BrokerId;
  readonly isController: boolean;
  readonly clusterId: ClusterId | undefined;
  readonly listeners: readonly Endpoint[];
  readonly advertisedListeners: readonly Endpoint[];
  readonly interBrokerListener: string;
  readonly voters: readonly QuorumVoter[];
  readonly dataDirectory: string;
  readonly rack: string | undefined;
  readonly numPartitions: number;
  readonly defaultReplicationFactor: number;
  readonly requestTimeoutMs: number;
  readonly queuedMaxRequestBytes: number;
  readonly heartbeatIntervalMs: number;
  readonly sessionTimeoutMs: number;
  readonly retentionCheckIntervalMs: number;
  readonly cleaner: CleanerConfig;
  readonly diskMinFreeBytes: number;
  readonly diskMinFreePercent: number;
  readonly diskReserveBytes: number;
  /** How long deleted data stay in quarantine. */
  readonly deleteDelayMs: number;
  readonly diskStallTimeoutMs: number;
  readonly catchUpBytesPerSecond: number;
  readonly snapshotBytesPerSecond: number;
  readonly scrubBytesPerSecond: number;
  readonly scrubIntervalMs: number;
  readonly raftElectionTimeoutMs: number;
  readonly raftHeartbeatIntervalMs: number;
  readonly walFileBytes: number;
  readonly walFileCount: number;
  /** For topics that do not say otherwise. */
  readonly topicDefaults: TopicConfig;
  readonly settings: readonly EffectiveSetting[];
}

export interface ConfigSources {
  /** The parsed file: dotted keys, nested objects, or both. */
  readonly file?: unknown;
  /** The process's environment variables. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** `key=value`, as given to --set. */
  readonly set?: readonly string[];
}

/** Reads and checks the configuration of a broker. Errors: INVALID_CONFIG. */
export function loadConfig(sources: ConfigSources): BrokerConfig {
  const settings = effectiveConfig(sources);
  const values = new Map<string, ConfigValue>();
  const rows: readonly ConfigKey[] = brokerKeys;
  rows.forEach((row, at) => {
    const text = settings[at]?.value;
    values.set(row.key, text === undefined ? undefined : parseConfigValue(row, text));
  });
  return assemble(values, settings);
}

/** Every setting with its value and where that comes from, in the table's order. Errors: INVALID_CONFIG for unknown keys. */
export function effectiveConfig(sources: ConfigSources): readonly EffectiveSetting[] {
  const fromFile = flatten(sources.file);
  const fromEnvironment = readEnvironment(sources.environment ?? {});
  const fromSet = readAssignments(sources.set ?? []);
  for (const [where, given] of [['in the file', fromFile] as const, ['in --set', fromSet] as const]) {
    for (const key of given.keys()) if (!brokerKeys.some((row) => row.key === key)) throw unknownKey(key, brokerKeys, where);
  }
  const layers: readonly (readonly [ConfigSource, ReadonlyMap<string, string>])[] = [
    ['command line', fromSet],
    ['environment', fromEnvironment],
    ['file', fromFile],
  ];
  return brokerKeys.map((row) => {
    const layer = layers.find(([, given]) => given.has(row.key));
    const value = layer === undefined ? row.default : layer[1].get(row.key);
    return { key: row.key, value, source: layer?.[0] ?? 'default', dynamic: row.dynamic, doc: row.doc };
  });
}

/** The environment variable of a key. */
export function environmentName(key: string): string {
  return `FLOTILLA_${key
    .replace(/^flotilla\./, '')
    .replaceAll('.', '_')
    .toUpperCase()}`;
}

/**
 * A topic's configuration over the broker's defaults. Errors: INVALID_CONFIG naming the right key or what is allowed.
 */
export function validateTopicConfig(configs: ReadonlyMap<string, string>, defaults: TopicConfig): TopicConfig {
  const value = (key: TopicKey): ConfigValue => {
    const text = configs.get(key);
    return text === undefined ? undefined : parseConfigValue(topicRow(key), text);
  };
  for (const key of configs.keys()) if (!topicKeys.some((row) => row.key === key)) throw unknownKey(key, topicRows, 'of a topic');
  checkBatchFits('max.message.bytes', value('max.message.bytes') as number | undefined, defaults.largestBatchBytes);
  const policy = value('cleanup.policy') as readonly string[] | undefined;
  return checkedLags({
    ...defaults,
    minInsyncReplicas: (value('min.insync.replicas') as number | undefined) ?? defaults.minInsyncReplicas,
    maxMessageBytes: (value('max.message.bytes') as number | undefined) ?? defaults.maxMessageBytes,
    segmentBytes: (value('segment.bytes') as number | undefined) ?? defaults.segmentBytes,
    segmentMs: (value('segment.ms') as number | undefined) ?? defaults.segmentMs,
    retentionMs: (value('retention.ms') as number | undefined) ?? defaults.retentionMs,
    retentionBytes: (value('retention.bytes') as number | undefined) ?? defaults.retentionBytes,
    retentionTopicBytes: (value('retention.topic.bytes') as number | undefined) ?? defaults.retentionTopicBytes,
    ...(policy !== undefined && { deletes: policy.includes('delete'), compacts: policy.includes('compact') }),
    minCleanableRatio: (value('min.cleanable.dirty.ratio') as number | undefined) ?? defaults.minCleanableRatio,
    minCompactionLagMs: (value('min.compaction.lag.ms') as number | undefined) ?? defaults.minCompactionLagMs,
    maxCompactionLagMs: (value('max.compaction.lag.ms') as number | undefined) ?? defaults.maxCompactionLagMs,
    deleteRetentionMs: (value('delete.retention.ms') as number | undefined) ?? defaults.deleteRetentionMs,
    timestampType: (value('message.timestamp.type') as TopicConfig['timestampType'] | undefined) ?? defaults.timestampType,
    timestampBeforeMaxMs: (value('message.timestamp.before.max.ms') as number | undefined) ?? defaults.timestampBeforeMaxMs,
    timestampAfterMaxMs: (value('message.timestamp.after.max.ms') as number | undefined) ?? defaults.timestampAfterMaxMs,
  });
}

/** As a partition's log takes them. What is in the last segment is not cleaned, so that of a compacted log ends when something in it is due. */
export function logSettingsOf(config: TopicConfig): Required<Pick<LogSettings, 'segmentBytes' | 'segmentMs' | 'segmentRecords'>> {
  const { segmentBytes, segmentMs, compacts, maxCompactionLagMs, compactedSegmentRecords } = config;
  if (!compacts) return { segmentBytes, segmentMs, segmentRecords: Number.POSITIVE_INFINITY };
  return { segmentBytes, segmentMs: Math.min(segmentMs, maxCompactionLagMs), segmentRecords: compactedSegmentRecords };
}

function checkedLags(config: TopicConfig): TopicConfig {
  const { minCompactionLagMs, maxCompactionLagMs } = config;
  if (minCompactionLagMs <= maxCompactionLagMs) return config;
  throw new FlotillaError(
    'INVALID_CONFIG',
    `min.compaction.lag.ms=${minCompactionLagMs} is more than max.compaction.lag.ms=${maxCompactionLagMs}. Make it smaller, or the other larger.`,
  );
}

/** Of the keys that fit into the memory for them: runs of commits are not cut where a segment ends. */
const SEGMENT_SHARE_OF_KEYS = 0.5;

/** A batch is never cut: it goes into one file of the write-ahead log, behind what that file starts with. */
const LARGEST_BATCH_SHARE = 0.5;

function checkBatchFits(key: string, bytes: number | undefined, largest: number): void {
  if (bytes === undefined || bytes <= largest) return;
  throw new FlotillaError(
    'INVALID_CONFIG',
    `${key}=${bytes} is more than ${largest}, half of the brokers' flotilla.wal.file.bytes. Make it smaller, or raise flotilla.wal.file.bytes on every broker.`,
  );
}

const topicRows: readonly ConfigKey[] = topicKeys.map((row) => {
  const broker = must(
    brokerKeys.find((candidate) => candidate.key === row.broker),
    'each topic setting has a broker setting',
  );
  return { ...row, default: broker.default, dynamic: true, doc: broker.doc };
});

function topicRow(key: TopicKey): ConfigKey {
  return must(
    topicRows.find((row) => row.key === key),
    'a topic key of the table',
    key,
  );
}

function assemble(values: ReadonlyMap<string, ConfigValue>, settings: readonly EffectiveSetting[]): BrokerConfig {
  const number = (key: BrokerKey) => required(key, values.get(key)) as number;
  const text = (key: BrokerKey) => values.get(key) as string | undefined;
  const list = (key: BrokerKey) => (values.get(key) as readonly string[] | undefined) ?? [];

  const nodeId = number('node.id') as BrokerId;
  const listeners = list('listeners').map((item) => parseEndpoint('listeners', item));
  const first = listeners[0];
  if (first === undefined) throw new FlotillaError('INVALID_CONFIG', 'listeners is empty. Set it to NAME://host:port.');
  const advertised = list('advertised.listeners').map((item) => parseEndpoint('advertised.listeners', item));
  const interBrokerListener = text('inter.broker.listener.name') ?? first.name;
  const clusterId = text('cluster.id');
  const given = (key: BrokerKey) => settings.some((setting) => setting.key === key && setting.source !== 'default');
  const largestBatchBytes = Math.floor(number('flotilla.wal.file.bytes') * LARGEST_BATCH_SHARE);
  const config: BrokerConfig = {
    nodeId,
    isController: list('process.roles').includes('controller'),
    clusterId: clusterId as ClusterId | undefined,
    listeners,
    advertisedListeners: advertised.length === 0 ? listeners : advertised,
    interBrokerListener,
    voters: list('controller.quorum.voters').map(parseVoter),
    dataDirectory: dataDirectory(list('log.dirs'), text('log.dir')),
    rack: text('broker.rack'),
    numPartitions: number('num.partitions'),
    defaultReplicationFactor: number('default.replication.factor'),
    requestTimeoutMs: number('request.timeout.ms'),
    queuedMaxRequestBytes: number('queued.max.request.bytes'),
    heartbeatIntervalMs: number('broker.heartbeat.interval.ms'),
    sessionTimeoutMs: number('broker.session.timeout.ms'),
    retentionCheckIntervalMs: number('log.retention.check.interval.ms'),
    cleaner: {
      dedupeBufferBytes: number('log.cleaner.dedupe.buffer.size'),
      ioBytesPerSecond: number('log.cleaner.io.max.bytes.per.second'),
      backoffMs: number('log.cleaner.backoff.ms'),
    },
    diskMinFreeBytes: number('flotilla.disk.free.min.bytes'),
    diskMinFreePercent: number('flotilla.disk.free.min.percent'),
    deleteDelayMs: number('log.segment.delete.delay.ms'),
    diskReserveBytes: number('flotilla.disk.reserve.bytes'),
    diskStallTimeoutMs: number('flotilla.disk.stall.timeout.ms'),
    catchUpBytesPerSecond: number('flotilla.catch.up.bytes.per.second'),
    snapshotBytesPerSecond: number('flotilla.snapshot.bytes.per.second'),
    scrubBytesPerSecond: number('flotilla.scrub.bytes.per.second'),
    scrubIntervalMs: number('flotilla.scrub.interval.ms'),
    raftElectionTimeoutMs: number('flotilla.raft.election.timeout.ms'),
    raftHeartbeatIntervalMs: number('flotilla.raft.heartbeat.interval.ms'),
    walFileBytes: number('flotilla.wal.file.bytes'),
    walFileCount: number('flotilla.wal.file.count'),
    topicDefaults: checkedLags({
      minInsyncReplicas: number('min.insync.replicas'),
      maxMessageBytes: given('message.max.bytes') ? number('message.max.bytes') : Math.min(number('message.max.bytes'), largestBatchBytes),
      largestBatchBytes,
      segmentBytes: number('log.segment.bytes'),
      segmentMs: milliseconds(values, 'log.roll'),
      retentionMs: milliseconds(values, 'log.retention'),
      retentionBytes: number('log.retention.bytes'),
      retentionTopicBytes: number('log.retention.topic.bytes'),
      deletes: list('log.cleanup.policy').includes('delete'),
      compacts: list('log.cleanup.policy').includes('compact'),
      compactedSegmentRecords: Math.floor(mapCapacity(number('log.cleaner.dedupe.buffer.size')) * SEGMENT_SHARE_OF_KEYS),
      minCleanableRatio: number('log.cleaner.min.cleanable.ratio'),
      minCompactionLagMs: number('log.cleaner.min.compaction.lag.ms'),
      maxCompactionLagMs: number('log.cleaner.max.compaction.lag.ms'),
      deleteRetentionMs: number('log.cleaner.delete.retention.ms'),
      timestampType: text('log.message.timestamp.type') as TopicConfig['timestampType'],
      timestampBeforeMaxMs: number('log.message.timestamp.before.max.ms'),
      timestampAfterMaxMs: number('log.message.timestamp.after.max.ms'),
    }),
    settings,
  };
  return checked(withOwnVoter(given('process.roles') ? config : withRoleOfVoters(config)));
}

/** Kafka has such settings in several units: the finest that is set counts. */
function milliseconds(values: ReadonlyMap<string, ConfigValue>, key: string): number {
  for (const [unit, ms] of [
    ['ms', 1],
    ['minutes', 60_000],
    ['hours', 3_600_000],
  ] as const) {
    const value = values.get(`${key}.${unit}`) as number | undefined;
    if (value !== undefined) return value < 0 ? -1 : value * ms;
  }
  throw new FlotillaError('INVALID_CONFIG', `Neither ${key}.ms nor ${key}.hours is set. Set one of them.`);
}

/** Unless process.roles says otherwise, the voters of the quorum are its controllers. */
function withRoleOfVoters(config: BrokerConfig): BrokerConfig {
  return config.voters.length === 0
    ? config
    : { ...config, isController: config.voters.some(({ brokerId }) => brokerId === config.nodeId) };
}

/** A broker without configured voters is its own quorum. */
function withOwnVoter(config: BrokerConfig): BrokerConfig {
  if (config.voters.length > 0 || !config.isController) return config;
  const own = config.advertisedListeners.find(({ name }) => name === config.interBrokerListener);
  return own === undefined ? config : { ...config, voters: [{ brokerId: config.nodeId, address: `${own.host}:${own.port}` }] };
}

function checked(config: BrokerConfig): BrokerConfig {
  const fail = (message: string): never => {
    throw new FlotillaError('INVALID_CONFIG', message);
  };
  const { clusterId, listeners, advertisedListeners, interBrokerListener, voters, nodeId } = config;
  if (clusterId !== undefined && !isUuid(clusterId))
    fail(`cluster.id=${clusterId} is not valid. Set cluster.id to 32 lower-case hex digits.`);
  if (new Set(listeners.map(({ name }) => name)).size < listeners.length) fail('listeners names a listener twice. Give each its own name.');
  for (const { name } of listeners) {
    if (!advertisedListeners.some((other) => other.name === name)) fail(`advertised.listeners lacks ${name}. Add ${name}://host:port.`);
  }
  const unreachable = advertisedListeners.find(({ host }) => host === '0.0.0.0' || /^\[[0:]+\]$/.test(host));
  if (unreachable !== undefined) {
    fail(
      `${unreachable.host} is every address of a machine, and no address that others could connect to. Set advertised.listeners to ${unreachable.name}://host:port with the name or address that clients and brokers reach this one at.`,
    );
  }
  if (!listeners.some(({ name }) => name === interBrokerListener)) {
    fail(`inter.broker.listener.name=${interBrokerListener} is none of listeners: ${listeners.map(({ name }) => name).join(', ')}.`);
  }
  if (voters.length === 0) fail('controller.quorum.voters is empty. Set it to id@host:port,… of the controllers.');
  if (new Set(voters.map(({ brokerId }) => brokerId)).size < voters.length) fail('controller.quorum.voters names an id twice.');
  if (config.isController !== voters.some(({ brokerId }) => brokerId === nodeId)) {
    fail(
      config.isController
        ? `process.roles has controller, but node.id=${nodeId} is not in controller.quorum.voters. Add ${nodeId}@host:port, or set process.roles=broker.`
        : `node.id=${nodeId} is in controller.quorum.voters, but process.roles lacks controller. Set process.roles=broker,controller.`,
    );
  }
  checkBatchFits('message.max.bytes', config.topicDefaults.maxMessageBytes, config.topicDefaults.largestBatchBytes);
  if (config.raftHeartbeatIntervalMs * 3 > config.raftElectionTimeoutMs) {
    fail('flotilla.raft.heartbeat.interval.ms is more than a third of flotilla.raft.election.timeout.ms. Make it smaller.');
  }
  return config;
}

function required(key: BrokerKey, value: ConfigValue): ConfigValue {
  if (value === undefined)
    throw new FlotillaError('INVALID_CONFIG', `${key} is not set. Set it in the file, as ${environmentName(key)}, or with --set ${key}=…`);
  return value;
}

function dataDirectory(dirs: readonly string[], dir: string | undefined): string {
  if (dirs.length > 1) throw new FlotillaError('INVALID_CONFIG', 'log.dirs names more than one directory. Run one broker per disk.');
  const chosen = dirs[0] ?? dir;
  if (chosen === undefined) throw new FlotillaError('INVALID_CONFIG', 'log.dir is empty. Set it to the data directory.');
  return chosen;
}

function parseEndpoint(key: string, text: string): Endpoint {
  const match = /^([A-Za-z0-9_-]+):\/\/(\[[0-9a-fA-F:]+\]|[^:/[\]]*):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new FlotillaError(
      'INVALID_CONFIG',
      `${key}=${text} is not valid. Set ${key} to NAME://host:port, for example PLAINTEXT://127.0.0.1:9400.`,
    );
  }
  return { name: match[1] ?? '', host: match[2] === '' ? '127.0.0.1' : (match[2] ?? ''), port };
}

function parseVoter(text: string): QuorumVoter {
  const match = /^(\d{1,10})@(.+:\d{1,5})$/.exec(text);
  const brokerId = Number(match?.[1]);
  if (match === null || brokerId < 1 || brokerId > 2_147_483_647) {
    throw new FlotillaError(
      'INVALID_CONFIG',
      `controller.quorum.voters=${text} is not valid. Set it to id@host:port,… for example 1@127.0.0.1:9400.`,
    );
  }
  return { brokerId: brokerId as BrokerId, address: match[2] ?? '' };
}

function flatten(file: unknown): Map<string, string> {
  const flat = new Map<string, string>();
  const visit = (prefix: string, value: unknown): void => {
    if (value === null || value === undefined) return;
    if (Array.isArray(value)) flat.set(prefix, value.map(String).join(','));
    else if (typeof value === 'object') {
      for (const [key, inner] of Object.entries(value)) visit(prefix === '' ? key : `${prefix}.${key}`, inner);
    } else if (prefix === '') throw new FlotillaError('INVALID_CONFIG', 'The configuration file must hold keys and values.');
    else flat.set(prefix, String(value));
  };
  visit('', file);
  return flat;
}

/** How near a variable must be to one of ours to be taken for a slip of the pen; others belong to other programs. */
const SLIP_DISTANCE = 2;

function readEnvironment(environment: Readonly<Record<string, string | undefined>>): Map<string, string> {
  const keys = new Map(brokerKeys.map(({ key }) => [environmentName(key), key]));
  const found = new Map<string, string>();
  for (const [name, value] of Object.entries(environment)) {
    if (!name.startsWith('FLOTILLA_') || value === undefined) continue;
    const key = keys.get(name);
    if (key !== undefined) found.set(key, value);
    else {
      const guess = nearest(name, [...keys.keys()]);
      if (guess !== undefined && guess.distance <= SLIP_DISTANCE) {
        throw new FlotillaError('INVALID_CONFIG', `There is no setting ${name} (in the environment). Did you mean ${guess.candidate}?`);
      }
    }
  }
  return found;
}

function readAssignments(assignments: readonly string[]): Map<string, string> {
  return new Map(
    assignments.map((assignment) => {
      const at = assignment.indexOf('=');
      if (at < 1) throw new FlotillaError('INVALID_CONFIG', `--set ${assignment} is not valid. Write --set key=value.`);
      return [assignment.slice(0, at).trim(), assignment.slice(at + 1)] as const;
    }),
  );
}
