/** `flotilla raft list | describe GROUP`: Raft groups as all their replicas see them. */
import { createColors } from 'picocolors';
import { FlotillaError } from '../../base/errors.ts';
import type { ClusterAdmin, RaftGroup } from '../client.ts';
import { byteSize, count, duration, integerText } from '../format.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';

export interface ListGroupsOptions {
  readonly topic?: string;
  readonly broker?: number;
  readonly problems?: boolean;
}

type Replica = RaftGroup['replicas'][number];
type Configuration = NonNullable<RaftGroup['configuration']>;
type Member = Configuration['voters'][number];

export async function listGroups(session: Session, options: ListGroupsOptions): Promise<void> {
  await using client = await session.connect();
  const rows: GroupRow[] = [];
  const silent = new Map<number, string>();
  let asked = 0;
  for await (const group of client.admin.listRaftGroups(options.topic, session.signal)) {
    asked++;
    for (const { brokerId, error } of group.silent) silent.set(brokerId, error.message);
    if (options.broker !== undefined && !brokersOf(group).has(options.broker)) continue;
    if (options.problems !== true || group.problems.length > 0) rows.push(rowOf(group));
  }
  if (rows.length === 0 && options.broker !== undefined) await mustExist(client.admin, options.broker, session.signal);
  if (session.json) await session.out.json(rows);
  else if (rows.length > 0) await session.out.line(listTable(rows, session.colour));
  else session.note(`nothing to show of ${count(asked, 'group')}`);
  for (const [brokerId, why] of silent) session.note(`broker ${brokerId} did not answer, so its replicas are not counted: ${why}`);
}

/** A line of the list. */
interface GroupRow {
  readonly name: string;
  /** 0: none. */
  readonly leader: number;
  readonly term: number;
  readonly commitIndex: number;
  readonly voters: number;
  /** Undefined: no leader says. */
  readonly inSync: number | undefined;
  readonly state: string;
  readonly problems: RaftGroup['problems'];
}

function rowOf(group: RaftGroup): GroupRow {
  const { name, leader, term, commitIndex, configuration, inSync, problems, replicas } = group;
  const rests = replicas.some(({ role, quiesced }) => role === 'leader' && quiesced);
  const voters = configuration?.voters.length ?? 0;
  const state = problems[0]?.kind ?? (rests ? 'quiesced' : 'ok');
  return { name, leader: leader?.brokerId ?? 0, term, commitIndex, voters, inSync: inSync?.length, state, problems };
}

function listTable(rows: readonly GroupRow[], colour: boolean): string {
  const { red } = createColors(colour);
  return table(
    ['GROUP', 'LEADER', 'TERM', 'COMMIT', 'IN SYNC', 'STATE'],
    rows.map(({ name, leader, term, commitIndex, voters, inSync = '?', state, problems }) => [
      name,
      leader === 0 ? 'none' : leader,
      term,
      integerText(commitIndex),
      `${inSync}/${voters}`,
      problems.length > 0 ? red(state) : state,
    ]),
    colour,
  );
}

async function mustExist(admin: ClusterAdmin, broker: number, signal: AbortSignal): Promise<void> {
  const { brokers } = await admin.describeCluster(signal);
  if (brokers.some(({ id }) => id === broker)) return;
  throw new FlotillaError('BROKER_ID_NOT_REGISTERED', `There is no broker ${broker}: there are ${brokers.map(({ id }) => id).join(', ')}.`);
}

export async function describeGroup(session: Session, name: string): Promise<void> {
  await using client = await session.connect();
  const group = await client.admin.describeRaftGroup(name, session.signal);
  if (session.json) {
    const silent = group.silent.map(({ error: { code, message }, ...broker }) => ({ ...broker, error: { code, message } }));
    return void (await session.out.json({ ...group, silent }));
  }
  const { configuration, problems } = group;
  const { red } = createColors(session.colour);
  await session.out.line(`${headline(group)}\n`);
  await session.out.line(replicaTable(group, session.colour));
  if (configuration !== undefined) await session.out.line(`\n${configurationText(configuration, session.colour)}`);
  await session.out.line(problems.length === 0 ? '\nno problems' : `\n${count(problems.length, 'problem')}`);
  for (const { message } of problems) await session.out.line(`  ${red(message)}`);
  const told = new Set(problems.map(({ brokerId }) => brokerId));
  for (const { brokerId, error } of group.silent) {
    if (!told.has(brokerId)) await session.out.line(`broker ${brokerId}, no member, did not answer: ${error.message}`);
  }
}

function headline({ name, leader, term, commitIndex, inSync, configuration, topicId, partition, generation }: RaftGroup): string {
  const leads = leader === undefined ? `no leader; the highest term is ${term}` : `broker ${leader.brokerId} leads in term ${term}`;
  const sync = inSync === undefined ? '' : `; ${inSync.length} of ${count(configuration?.voters.length ?? 0, 'voter')} in sync`;
  return `${name}: ${leads}; committed up to ${integerText(commitIndex)}${sync}\non disk: groups/${topicId}-${partition}.${generation}`;
}

function replicaTable(group: RaftGroup, colour: boolean): string {
  const replicas = new Map(group.replicas.map((replica) => [replica.replicaId, replica]));
  const ids = new Map([...group.replicas, ...membersOf(group.configuration)].map(({ replicaId, brokerId }) => [replicaId, brokerId]));
  const silent = new Set(group.silent.map(({ brokerId }) => brokerId));
  const rows = [...ids]
    .sort(([, a], [, b]) => a - b)
    .map(([id, broker]) => {
      const replica = replicas.get(id);
      const own = replica?.role === undefined ? absentCells(replica, silent.has(broker)) : ownCells(replica);
      return [broker, id, ...own, ...leaderCells(group, id)];
    });
  const own = [
    'ROLE',
    'TERM',
    'LEADER',
    'FIRST',
    'LAST',
    'DURABLE',
    'COMMIT',
    'APPLIED',
    'SNAPSHOT',
    'CLEANED TO',
    'TOMBSTONES FROM',
    'DISK QUEUE',
  ];
  const head = ['BROKER', 'REPLICA', ...own, 'MATCH', 'NEXT', 'LAG', 'SENDING', 'IN FLIGHT'];
  // What nobody has anything to say about is left out: the table is wide enough.
  const isTold = head.map((_title, column) => rows.some((row) => row[column] !== NOTHING));
  const told = <T>(row: readonly T[]) => row.filter((_cell, column) => isTold[column]);
  return table(told(head), rows.map(told), colour);
}

const NOTHING = '-';

function absentCells(replica: Replica | undefined, isSilent: boolean): string[] {
  const why = replica !== undefined ? 'not open' : isSilent ? 'no answer' : 'not there';
  return [why, ...new Array<string>(11).fill(NOTHING)];
}

/** What the replica says of itself. */
function ownCells(replica: Replica): (string | number)[] {
  const { term, leader, firstReplicableIndex, lastIndex, durableIndex, commitIndex, appliedIndex, lastSnapshot } = replica;
  const { cleanedTo, tombstoneFloor, pendingDiskBytes } = replica;
  return [
    roleText(replica),
    term,
    leader === undefined ? 'none' : leader.brokerId || `replica ${leader.replicaId}`,
    ...[firstReplicableIndex, lastIndex, durableIndex, commitIndex, appliedIndex].map(integerText),
    lastSnapshot === undefined ? NOTHING : `${integerText(lastSnapshot.index)} (${byteSize(lastSnapshot.bytes)})`,
    ...[cleanedTo, tombstoneFloor].map((offset) => (offset === 0 ? NOTHING : integerText(offset))),
    pendingDiskBytes === 0 ? NOTHING : byteSize(pendingDiskBytes),
  ];
}

function roleText({ role, membership, quiesced, quarantined, damage, onProbation }: Replica): string {
  const plain = role === 'preCandidate' ? 'pre-candidate' : role;
  const named = membership === 'learner' && role === 'follower' ? 'learner' : plain;
  const marks = [
    [membership === 'outgoing', 'outgoing'],
    [membership === 'none', 'no member'],
    [quiesced, 'quiesced'],
    [quarantined !== undefined, 'quarantined'],
    [damage !== undefined, 'damaged'],
    [onProbation, 'on probation'],
  ] as const;
  return [named, ...marks.flatMap(([holds, mark]) => (holds ? [mark] : []))].join(', ');
}

/** What the leader knows of it. */
function leaderCells({ replicas, leader }: RaftGroup, replicaId: number): (string | number)[] {
  const leading = replicas.find((replica) => replica.replicaId === leader?.replicaId);
  const follower = leading?.followers.find((each) => each.replicaId === replicaId);
  if (follower === undefined) return new Array<string>(5).fill(NOTHING);
  const { matchIndex, nextIndex, lag, state, inFlight } = follower;
  return [integerText(matchIndex), integerText(nextIndex), integerText(lag), state, `${inFlight.messages} (${byteSize(inFlight.bytes)})`];
}

function configurationText(configuration: Configuration, colour: boolean): string {
  const { index, committed, joint, ageMs, voters, outgoing, learners } = configuration;
  const rows = (what: string, members: readonly Member[]) =>
    members.map(({ brokerId, replicaId, directoryId }) => [brokerId, replicaId, what, directoryId]);
  const members = [...rows(joint ? 'incoming voter' : 'voter', voters), ...rows('outgoing voter', outgoing), ...rows('learner', learners)];
  const from = index === 0 ? "the group's first" : `from index ${integerText(index)}`;
  const title = `${joint ? 'joint configuration' : 'configuration'}: ${from}, ${committed ? 'committed' : 'not committed'}, seen for ${duration(ageMs)}`;
  return `${title}\n${table(['BROKER', 'REPLICA', 'AS', 'DIRECTORY'], members, colour)}`;
}

function membersOf(configuration: Configuration | undefined): Member[] {
  return configuration === undefined ? [] : [...configuration.voters, ...configuration.outgoing, ...configuration.learners];
}

function brokersOf({ replicas, configuration }: RaftGroup): Set<number> {
  return new Set([...replicas, ...membersOf(configuration)].map(({ brokerId }) => brokerId));
}
