import { describe, expect, it } from 'vitest';
import { effectiveConfig, environmentName, loadConfig, logSettingsOf, validateTopicConfig } from '../../src/broker/config.ts';
import { brokerKeys } from '../../src/broker/config-keys.ts';
import { parseConfigValue } from '../../src/broker/config-value.ts';

const minimal = ['node.id=1'];

describe('loadConfig', () => {
  it('needs nothing but node.id, and listens on loopback', () => {
    const config = loadConfig({ set: minimal });
    expect(config.listeners).toEqual([{ name: 'PLAINTEXT', host: '127.0.0.1', port: 9400 }]);
    expect(config.advertisedListeners).toEqual(config.listeners);
    expect(config.voters).toEqual([{ brokerId: 1, address: '127.0.0.1:9400' }]);
    expect(config.topicDefaults).toMatchObject({ minInsyncReplicas: 1, maxMessageBytes: 1_048_588, segmentBytes: 2 ** 30 });
  });

  it('is a controller where the quorum names it', () => {
    const isController = (id: number) => loadConfig({ set: [`node.id=${id}`, 'controller.quorum.voters=1@a:1,2@b:1'] }).isController;
    expect([isController(2), isController(3)]).toEqual([true, false]);
  });

  it('says what is missing and how to set it', () => {
    expect(() => loadConfig({})).toThrow(/node\.id is not set.*FLOTILLA_NODE_ID.*--set node\.id=/);
  });

  it('takes the command line over the environment over the file over defaults', () => {
    const sources = {
      file: { broker: { rack: 'file' }, 'num.partitions': 3, log: { dirs: ['/var/lib/flotilla'] } },
      environment: { FLOTILLA_BROKER_RACK: 'environment', FLOTILLA_NUM_PARTITIONS: '4', HOME: '/root' },
      set: ['node.id=7', 'broker.rack=set'],
    };
    expect(loadConfig(sources)).toMatchObject({ nodeId: 7, rack: 'set', numPartitions: 4, dataDirectory: '/var/lib/flotilla' });
    const origin = (key: string) => effectiveConfig(sources).find((setting) => setting.key === key);
    expect(origin('broker.rack')).toMatchObject({ value: 'set', source: 'command line' });
    expect(origin('num.partitions')).toMatchObject({ value: '4', source: 'environment' });
    expect(origin('log.dirs')).toMatchObject({ source: 'file' });
    expect(origin('request.timeout.ms')).toMatchObject({ value: '30s', source: 'default' });
  });

  it.each([
    [['node.idd=1'], /no setting node\.idd.*Did you mean node\.id\?/],
    [['node.id=0'], /node\.id=0 is not valid.*1 to 2147483647/],
    [['node.id=one'], /node\.id=one is not valid/],
    [['node.id=1', 'message.max.bytes=1GiB'], /message\.max\.bytes=1GiB is not valid.*at most|61 to 33554432/],
    [['node.id=1', 'request.timeout.ms=5 parsecs'], /duration like 500ms/],
    [['node.id=1', 'log.message.timestamp.type=Whenever'], /one of CreateTime, LogAppendTime/],
    [['node.id=1', 'listeners=127.0.0.1:9092'], /NAME:\/\/host:port/],
    [['node.id=1', 'listeners=A://127.0.0.1:1,A://127.0.0.1:2'], /twice/],
    [['node.id=1', 'inter.broker.listener.name=OTHER'], /none of listeners: PLAINTEXT/],
    [
      ['node.id=1', 'process.roles=broker,controller', 'controller.quorum.voters=2@127.0.0.1:1'],
      /node\.id=1 is not in controller\.quorum\.voters/,
    ],
    [['node.id=2', 'process.roles=broker', 'controller.quorum.voters=2@127.0.0.1:1'], /process\.roles lacks controller/],
    [['node.id=1', 'controller.quorum.voters=nobody'], /id@host:port/],
    [['node.id=1', 'cluster.id=abc'], /32 lower-case hex digits/],
    [['node.id=1', 'log.dirs=/a,/b'], /One broker per disk|one broker per disk/i],
    [['node.id=1', 'flotilla.raft.heartbeat.interval.ms=900ms'], /third/],
    [['node.id=1', 'message.max.bytes=2MiB', 'flotilla.wal.file.bytes=2MiB'], /half of the brokers' flotilla\.wal\.file\.bytes/],
    [['node.id'], /key=value/],
  ])('refuses %j', (set, message) => {
    expect(() => loadConfig({ set })).toThrow(message);
    expect(() => loadConfig({ set })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }));
  });

  it('refuses a slip of the pen in the environment, but not what belongs to other programs', () => {
    expect(() => loadConfig({ set: minimal, environment: { FLOTILLA_BROKER_RAK: 'a' } })).toThrow(/FLOTILLA_BROKER_RACK/);
    expect(() => loadConfig({ set: minimal, environment: { FLOTILLA_LOG_FORMAT_OF_SOMETHING: 'a' } })).not.toThrow();
  });

  it('has a parsable default and a document for every key', () => {
    for (const row of brokerKeys) {
      expect(row.doc.length).toBeGreaterThan(10);
      if (row.default !== undefined) expect(() => parseConfigValue(row, row.default as string)).not.toThrow();
    }
    expect(environmentName('flotilla.wal.file.bytes')).toBe('FLOTILLA_WAL_FILE_BYTES');
  });
});

describe('advertised.listeners', () => {
  const listeners = 'listeners=PLAINTEXT://0.0.0.0:9400';

  it.each([[[listeners]], [[listeners, 'advertised.listeners=PLAINTEXT://[::]:9400']]])(
    'refuses what no other machine can reach: %j',
    (set) => {
      expect(() => loadConfig({ set: ['node.id=1', ...set] })).toThrow(/Set advertised\.listeners/);
    },
  );

  it('may differ from where the broker listens', () => {
    const { advertisedListeners } = loadConfig({ set: ['node.id=1', listeners, 'advertised.listeners=PLAINTEXT://example.org:9400'] });
    expect(advertisedListeners).toEqual([{ name: 'PLAINTEXT', host: 'example.org', port: 9400 }]);
  });
});

describe('validateTopicConfig', () => {
  const defaults = loadConfig({ set: minimal }).topicDefaults;

  it('falls back to the broker', () => {
    expect(validateTopicConfig(new Map(), defaults)).toEqual(defaults);
    expect(validateTopicConfig(new Map([['max.message.bytes', '2KiB']]), defaults)).toEqual({ ...defaults, maxMessageBytes: 2048 });
  });

  it('names the right key and what is allowed', () => {
    expect(() => validateTopicConfig(new Map([['max.mesage.bytes', '1']]), defaults)).toThrow(/Did you mean max\.message\.bytes/);
    expect(() => validateTopicConfig(new Map([['min.insync.replicas', '0']]), defaults)).toThrow(/1 to 7/);
  });
});

describe('what is compacted', () => {
  const defaults = loadConfig({ set: minimal }).topicDefaults;
  const topic = (configs: Readonly<Record<string, string>>) => validateTopicConfig(new Map(Object.entries(configs)), defaults);

  it.each([
    [{}, true, false],
    [{ 'cleanup.policy': 'compact' }, false, true],
    [{ 'cleanup.policy': 'compact, delete' }, true, true],
    [{ 'cleanup.policy': 'Delete' }, true, false],
  ])('%j', (configs, deletes, compacts) => {
    expect(topic(configs)).toMatchObject({ deletes, compacts });
  });

  it.each([
    [{ 'cleanup.policy': '' }, /list of delete, compact/],
    [{ 'cleanup.policy': 'shred' }, /list of delete, compact|one of delete, compact/],
    [{ 'min.cleanable.dirty.ratio': '1.5' }, /a number, 0 to 1/],
    [{ 'delete.retention.ms': '0.5' }, /a duration/],
    [{ 'min.compaction.lag.ms': '2h', 'max.compaction.lag.ms': '1h' }, /Make it smaller/],
  ])('is not %j', (configs, message) => {
    expect(() => topic(configs)).toThrow(message);
    expect(() => topic(configs)).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }));
  });

  it('ends segments in time for their records, and while their keys fit', () => {
    const config = topic({ 'cleanup.policy': 'compact', 'max.compaction.lag.ms': '1h', 'min.cleanable.dirty.ratio': '0.25' });
    expect(config.minCleanableRatio).toBe(0.25);
    expect(logSettingsOf(config)).toEqual({ segmentBytes: 2 ** 30, segmentMs: 3_600_000, segmentRecords: 629_145 });
    expect(logSettingsOf(topic({ 'max.compaction.lag.ms': '1h' }))).toMatchObject({ segmentMs: 7 * 86_400_000, segmentRecords: Infinity });
    expect(loadConfig({ set: [...minimal, 'log.cleanup.policy=compact'] }).topicDefaults).toMatchObject({ deletes: false, compacts: true });
  });
});
