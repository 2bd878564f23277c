/** The commands, their arguments and options, and their help. */
import { Command, CommanderError, Option } from 'commander';
import { Exit } from './failures.ts';
import type { Streams } from './io.ts';
import * as value from './options.ts';
import type { GlobalOptions, Session } from './session.ts';

export type Run = (session: Session) => Promise<void>;

export interface Parsed {
  readonly options: GlobalOptions;
  readonly command: Run;
}

/** What was asked for, or the exit code when that is all there is to do: help, or wrong usage. */
export async function parse(argv: readonly string[], streams: Streams): Promise<Parsed | number> {
  let command: Run | undefined;
  const program = defineProgram(streams, (run) => {
    command = run;
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? Exit.done : Exit.usage;
  }
  if (command === undefined) return Exit.usage;
  const { bootstrap, json } = program.opts<{ bootstrap: string; json?: boolean }>();
  return { command, options: { bootstrap, json: json === true } };
}

type Choose = (run: Run) => void;

/** The tree of commands. `choose` gets what to run; commander itself runs nothing. */
export function defineProgram(streams: Pick<Streams, 'stdout' | 'stderr' | 'env'>, choose: Choose): Command {
  const program = new Command('flotilla')
    .description('Event streaming: every partition is a Raft group, and its replicated log is the partition log.')
    .configureOutput({
      writeOut: (text) => streams.stdout.write(text),
      writeErr: (text) => streams.stderr.write(text),
      getOutHelpWidth: () => streams.stdout.columns ?? 100,
      getErrHelpWidth: () => streams.stderr.columns ?? 100,
    })
    .exitOverride()
    .showHelpAfterError('(add --help for what is right, with examples)')
    .addOption(
      new Option('--bootstrap <host:port,…>', 'brokers to ask first')
        .env('FLOTILLA_BOOTSTRAP')
        .default(value.DEFAULT_BOOTSTRAP)
        .argParser(value.bootstrap),
    )
    .option('--json', 'results as JSON, for scripts')
    .addHelpText(
      'after',
      examples(
        'flotilla dev                                  # three brokers on this machine',
        'flotilla topic create orders --partitions 3 --replicas 3',
        'echo hello | flotilla produce orders',
        'flotilla consume orders --from beginning --until-end',
      ),
    );
  defineClusterCommands(program, choose);
  defineTopic(program, choose);
  defineRaft(program, choose);
  defineLog(program, choose);
  defineRecordCommands(program, choose);
  defineBench(program, choose);
  defineCompletion(program, choose);
  return program;
}

function defineClusterCommands(program: Command, choose: Choose): void {
  program
    .command('dev')
    .description('a cluster of broker processes on this machine, for development')
    .option('--brokers <n>', 'how many', value.integer(1, 9), 3)
    .option('--port <port>', 'port of broker 1; the others follow', value.integer(1, 65_500), 7101)
    .option('--data <dir>', 'keep the data here; without it, it is removed at the end')
    .option('--demo', 'feed a topic with real records and show what happens')
    .option('--set <key=value>', 'a configuration key of all brokers; may be repeated', value.assignment)
    .addHelpText(
      'after',
      examples(
        'flotilla dev                                  # prints "ready 127.0.0.1:7101,…", ends with Ctrl-C',
        'flotilla dev --data ./data                    # comes back with the same data',
        'flotilla dev --demo                           # 1 2 3 kill -9 a broker or bring it back, q ends with the proof',
        'kill -9 $(cat data/broker-2.pid)              # it stays dead …',
        'echo start 2 > commands                       # … until asked for, where dev runs with < commands (a fifo)',
        'flotilla start --config data/broker-2/broker.yaml   # or so',
      ),
    )
    .action((options) => choose(async (session) => (await import('./commands/dev.ts')).dev(session, options)));

  program
    .command('start')
    .description('one broker, as production runs it')
    .option('--config <file>', 'YAML with Kafka’s configuration keys; without it, the environment and --set say it all')
    .option('--set <key=value>', 'overrides a key; may be repeated', value.assignment)
    .addHelpText(
      'after',
      examples(
        'flotilla start --config broker.yaml',
        'flotilla start --config broker.yaml --set log.retention.ms=3600000',
        'FLOTILLA_LOG_RETENTION_MS=3600000 flotilla start --config broker.yaml',
      ),
    )
    .action((options) => choose(async (session) => (await import('./commands/start.ts')).start(session, options)));

  program
    .command('config')
    .description('the effective configuration of a broker, each key with its source')
    .option('--config <file>', 'YAML with Kafka’s configuration keys')
    .option('--set <key=value>', 'overrides a key; may be repeated', value.assignment)
    .addHelpText('after', examples('flotilla config --config broker.yaml', 'flotilla config --set num.partitions=6 --json'))
    .action((options) => choose(async (session) => (await import('./commands/config.ts')).config(session, options)));

  program
    .command('format')
    .description('prepares the empty data directory of a broker for a cluster')
    .requiredOption('--config <file>', 'the configuration that the broker will start with')
    .option('--cluster-id <id>', 'the same for all brokers of a cluster; without it, a new one is made and printed')
    .option('--set <key=value>', 'overrides a key; may be repeated', value.assignment)
    .addHelpText(
      'after',
      examples(
        'flotilla format --config broker-1.yaml                        # prints the cluster id',
        'flotilla format --config broker-2.yaml --cluster-id ID',
      ),
    )
    .action((options) => choose(async (session) => (await import('./commands/format.ts')).format(session, options)));

  program
    .command('cluster')
    .description('the cluster as a whole')
    .command('describe')
    .description('brokers, who leads the metadata quorum, every partition’s leader and health')
    .addHelpText('after', examples('flotilla cluster describe', 'flotilla cluster describe --json | jq .controller'))
    .action(() => choose(async (session) => (await import('./commands/cluster.ts')).describeCluster(session)));
}

function defineTopic(program: Command, choose: Choose): void {
  const topic = program.command('topic').description('create, list, describe, change and delete topics');
  topic
    .command('create')
    .argument('<name>')
    .description('creates a topic')
    .option('--partitions <n>', 'default: the brokers’ num.partitions', value.integer(1, 2 ** 31 - 1))
    .option('--replicas <n>', 'default: the brokers’ default.replication.factor', value.integer(1, 2 ** 15 - 1))
    .option('--config <key=value>', 'a topic configuration; may be repeated', value.keyValue)
    .addHelpText(
      'after',
      examples('flotilla topic create orders --partitions 3 --replicas 3', 'flotilla topic create audit --config retention.ms=-1'),
    )
    .action((name, options) => choose(async (session) => (await import('./commands/topic.ts')).createTopic(session, name, options)));
  topic
    .command('list')
    .description('all topics')
    .addHelpText('after', examples('flotilla topic list', 'flotilla topic list --json'))
    .action(() => choose(async (session) => (await import('./commands/topic.ts')).listTopics(session)));
  topic
    .command('describe')
    .argument('<name>')
    .description('leader, replicas and offsets of each partition')
    .addHelpText('after', examples('flotilla topic describe orders', "flotilla topic describe orders --json | jq '.partitions[].leader'"))
    .action((name) => choose(async (session) => (await import('./commands/topic.ts')).describeTopic(session, name)));
  topic
    .command('alter')
    .argument('<name>')
    .description('changes settings of a topic; brokers obey at once')
    .option('--config <key=value>', 'to set; may be repeated', value.keyValue)
    .option('--unset <key>', 'back to the brokers’ default; may be repeated', value.each)
    .addHelpText(
      'after',
      examples('flotilla topic alter orders --config retention.ms=7d', 'flotilla topic alter orders --unset retention.ms'),
    )
    .action((name, options) => choose(async (session) => (await import('./commands/topic.ts')).alterTopic(session, name, options)));
  topic
    .command('delete-records')
    .argument('<name>')
    .description('deletes the oldest records for good; the offsets of the others stay')
    .addOption(
      new Option('--before <where>', 'end, an offset, or @TIME').argParser((text) => value.startingPoint(text)).makeOptionMandatory(),
    )
    .option('--partition <n>', 'of this partition only', value.integer(0, 2 ** 31 - 1))
    .addHelpText(
      'after',
      examples(
        'flotilla topic delete-records orders --before 1000 --partition 0',
        'flotilla topic delete-records orders --before @-7d',
        'flotilla topic delete-records orders --before end',
      ),
    )
    .action((name, options) => choose(async (session) => (await import('./commands/topic.ts')).deleteRecords(session, name, options)));
  topic
    .command('delete')
    .argument('<name>')
    .description('deletes a topic and its records')
    .addHelpText('after', examples('flotilla topic delete orders'))
    .action((name) => choose(async (session) => (await import('./commands/topic.ts')).deleteTopic(session, name)));
}

function defineRaft(program: Command, choose: Choose): void {
  const raft = program.command('raft').description('looks into Raft groups: each partition is one, and the metadata log');
  raft
    .command('list')
    .description('leader, term, commit and health of each group')
    .option('--topic <name>', 'only the groups of this topic')
    .option('--broker <id>', 'only groups with a replica on this broker', value.integer(1, 2 ** 31 - 1))
    .option('--problems', 'only groups with which something is wrong')
    .addHelpText(
      'after',
      examples(
        'flotilla raft list',
        'flotilla raft list --broker 2 --problems',
        "flotilla raft list --topic orders --json | jq '.[].leader'",
      ),
    )
    .action((options) => choose(async (session) => (await import('./commands/raft.ts')).listGroups(session, options)));
  raft
    .command('describe')
    .addArgument(program.createArgument('<group>', 'TOPIC/PARTITION, or metadata').argParser(value.raftGroup))
    .description('a group as each of its replicas sees it, its configuration, and what is wrong with it')
    .addHelpText(
      'after',
      examples(
        'flotilla raft describe orders/0',
        'flotilla raft describe metadata',
        "flotilla raft describe orders/0 --json | jq '.problems[].message'",
      ),
    )
    .action((name) => choose(async (session) => (await import('./commands/raft.ts')).describeGroup(session, name)));
}

function defineLog(program: Command, choose: Choose): void {
  const log = program.command('log').description('what stands in the data directory of a broker');
  log
    .command('describe')
    .argument('<dir>', 'what log.dirs names')
    .description('whose it is, and the replicas in it')
    .addHelpText('after', examples('flotilla log describe /var/lib/flotilla', "flotilla log describe data --json | jq '.replicas[].bytes'"))
    .action((dir) => choose(async (session) => (await import('./commands/log.ts')).describeLogs(session, dir)));
  log
    .command('verify')
    .argument('<dir>', 'what log.dirs names')
    .description('reads all of it; names file, position and what is wrong, and exits 1 if anything is')
    .addHelpText('after', examples('flotilla log verify /var/lib/flotilla', "flotilla log verify data --json | jq '.damage[].file'"))
    .action((dir) => choose(async (session) => (await import('./commands/log.ts')).verifyLogs(session, dir)));
  log
    .command('scrub')
    .description('what the brokers of a running cluster found to have rotted in their segments; it is put right from the other replicas')
    .option('--now', 'reads all segments now, instead of in a while, and waits for the end')
    .addHelpText('after', examples('flotilla log scrub', 'flotilla log scrub --now', "flotilla log scrub --now --json | jq '.[].findings'"))
    .action((options) => choose(async (session) => (await import('./commands/scrub.ts')).scrubLogs(session, options)));
  log
    .command('dump')
    .argument('<dir>', 'what log.dirs names')
    .description('a line for each batch of a partition, or for each record')
    .option('--partition <topic/n>', 'TOPIC/PARTITION, TOPICID-PARTITION or metadata; needed where there are several')
    .option('--from <offset>', 'begin there', value.integer(0, Number.MAX_SAFE_INTEGER))
    .option('--max <n>', 'end after so many lines', value.integer(1, Number.MAX_SAFE_INTEGER))
    .option('--records', 'a line for each record instead; of the metadata log, as JSON')
    .addOption(encoding())
    .addHelpText(
      'after',
      examples(
        'flotilla log dump data --partition orders/0',
        'flotilla log dump data --partition orders/0 --records --from 1000 --max 10',
        'flotilla log dump data --partition metadata --json',
      ),
    )
    .action((dir, options) => choose(async (session) => (await import('./commands/log.ts')).dumpLog(session, dir, options)));
}

const acks = () => new Option('--acks <acks>', 'what acknowledges a record').choices(['none', 'leader', 'quorum']).default('quorum');
const compression = () =>
  new Option('--compression <codec>', 'of record batches').choices(['none', 'gzip', 'zstd', 'lz4', 'snappy']).default('none');
const encoding = () => new Option('--encoding <encoding>', 'of keys and values in the lines').choices(['text', 'base64']).default('text');

function defineRecordCommands(program: Command, choose: Choose): void {
  program
    .command('produce')
    .argument('<topic>')
    .description('sends a record for each line of stdin; done when every one is acknowledged')
    .option('--key-separator <c>', 'what stands between key and value in a line; without it, lines are values', value.separator)
    .option('--header <k=v>', 'a header of every record; may be repeated', value.header)
    .option('--partition <n>', 'send all to this partition', value.integer(0, 2 ** 31 - 1))
    .addOption(acks())
    .addOption(compression())
    .addOption(encoding())
    .addHelpText(
      'after',
      examples(
        'echo hello | flotilla produce orders',
        'flotilla produce orders --key-separator : --compression zstd < orders.txt',
        'flotilla consume a --format key-value --encoding base64 --until-end | flotilla produce b --key-separator "\\t" --encoding base64',
      ),
    )
    .action((topic, options) => choose(async (session) => (await import('./commands/produce.ts')).produce(session, topic, options)));

  program
    .command('consume')
    .argument('<topic>')
    .description('prints records as they come')
    .addOption(
      new Option('--from <where>', 'beginning, end, an offset, or @TIME').argParser((text) => value.startingPoint(text)).default('end'),
    )
    .option('--partition <n>', 'read this partition only', value.integer(0, 2 ** 31 - 1))
    .option('--max <n>', 'end after so many records', value.integer(1, Number.MAX_SAFE_INTEGER))
    .option('--until-end', 'end at what is the end now')
    .addOption(new Option('--format <format>', 'of a line').choices(['value', 'key-value', 'json']).default('value'))
    .addOption(encoding())
    .addHelpText(
      'after',
      examples(
        'flotilla consume orders',
        'flotilla consume orders --from beginning --until-end --format json | jq .key',
        'flotilla consume orders --from @-15m --max 100',
        'flotilla consume orders --from @2026-01-31T12:00:00Z --partition 0 --encoding base64',
      ),
    )
    .action((topic, options) => choose(async (session) => (await import('./commands/consume.ts')).consume(session, topic, options)));
}

function defineBench(program: Command, choose: Choose): void {
  const bench = program.command('bench').description('measures the cluster');
  const common = (command: Command, seconds: number) =>
    command
      .option('--topic <name>', 'an existing topic; without it, one is created and deleted')
      .option('--partitions <n>', 'of the topic that is created', value.integer(1, 10_000), 3)
      .option('--replicas <n>', 'of the topic that is created', value.integer(1, 9), 3)
      .option('--record-size <bytes>', 'of a value', value.bytes, 1024)
      .option('--batch-bytes <bytes>', 'of the producer; default: the SDK’s', value.bytes)
      .option('--seconds <n>', 'how long', value.integer(1, 86_400), seconds)
      .addOption(acks())
      .addOption(compression());
  common(bench.command('produce').description('throughput, and latency of acknowledgements'), 10)
    .option('--rate <records/s>', 'steady; 0: as fast as it goes', value.integer(0, 10_000_000), 0)
    .addHelpText('after', examples('flotilla bench produce', 'flotilla bench produce --rate 20000 --record-size 512 --json'))
    .action((options) => choose(async (session) => (await import('./commands/bench.ts')).benchProduce(session, options)));
  common(bench.command('consume').description('throughput of reading, records decoded'), 10)
    .option('--fill <bytes>', 'written first, read over and over', value.bytes, 256 * 2 ** 20)
    .addHelpText('after', examples('flotilla bench consume', 'flotilla bench consume --topic orders --seconds 30'))
    .action((options) => choose(async (session) => (await import('./commands/bench.ts')).benchConsume(session, options)));
  common(bench.command('latency').description('one record in flight'), 10)
    .option('--rate <records/s>', 'when records are due; 0: each after the one before', value.integer(0, 1_000_000), 500)
    .addHelpText('after', examples('flotilla bench latency', 'flotilla bench latency --rate 0 --acks leader --json'))
    .action((options) => choose(async (session) => (await import('./commands/bench.ts')).benchLatency(session, options)));
}

function defineCompletion(program: Command, choose: Choose): void {
  program
    .command('completion')
    .description('prints the completion script of a shell')
    .addArgument(program.createArgument('<shell>').choices(['bash', 'zsh', 'fish']))
    .addHelpText(
      'after',
      examples(
        'source <(flotilla completion bash)',
        'flotilla completion zsh > ~/.zfunc/_flotilla       # with fpath+=~/.zfunc',
        'flotilla completion fish > ~/.config/fish/completions/flotilla.fish',
      ),
    )
    .action((shell) => choose(async (session) => (await import('./commands/completion.ts')).completion(session, shell, program)));
}

function examples(...lines: string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join('\n')}`;
}
