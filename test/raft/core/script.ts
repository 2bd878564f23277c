/**
 * Scripts that drive cores by hand, in the format of etcd's traces: a command, `----`, what it printed, an empty line. Lines that begin with # are
 * comments. Commands:
 *
 *   node ID of=N [log=1,1,2] [term=T] [commit=C] [vote=V] [quiesce=T]
 *                          a replica of N voters; `log` gives the term of each entry; it rests after T idle ticks
 *   tick ID [N]            campaign ID           unreachable ID        propose ID TEXT…        wake ID
 *   read ID CONTEXT        transfer ID TO        status [ID…]          log ID
 *   ready ID               handles the Readys: messages go to the network, persist units wait
 *   persist ID [N]         completes N (all) waiting units              persisted ID TOKEN   reports a completion only
 *   deliver FROM TO [N]    delivers N (all) messages of a link          drop FROM TO [TYPE] | drop all
 *   duplicate FROM TO      the newest message of a link goes twice      late FROM TO    the oldest goes last
 *   cut FROM TO | heal
 *   stabilize [ID…]        all of it, until nothing moves; prints states only
 *   members ID voters=1,2,3 learners=4                      begins a change of members
 *   crash ID               restart ID
 *   lose ID N              ID restarts with nothing but its term, on probation N
 *   start ID I [kept]      the log of ID starts at I from now on: what is below is in a snapshot, and with kept in memory as well
 *   install ID FROM I      ID gets the snapshot of FROM up to I in place of its log
 *   snapshot ID TO I|failed      tells ID that TO has a snapshot up to I, or that it could not get one
 *   append FROM TO term=T prev=I/T commit=C log=2,2         a hand-made append, into the network
 *   rest FROM TO term=T commit=C                            a hand-made last heartbeat before rest
 */
import type { ReplicaId } from '../../../src/base/ids.ts';
import { LOG_ORIGIN } from '../../../src/raft/core/chain.ts';
import { type Entry, EntryKind } from '../../../src/raft/core/entry.ts';
import { makeEntry } from '../../../src/raft/core/entry-codec.ts';
import type { RaftCore } from '../../../src/raft/core/raft.ts';
import type { HardState, InitialLog, LogPosition, Member, Message, PersistUnit, Ready } from '../../../src/raft/core/types.ts';
import { configurationOf, memberOf } from '../../sim/core/simulated-replica.ts';
import { type Record, RecordedCore } from '../../spec/recorder.ts';

interface Node {
  /** How often a node of this number was made before: traces tell them apart. */
  readonly world: number;
  readonly id: number;
  readonly voters: number;
  readonly quiesceTicks: number;
  core: RaftCore | undefined;
  hardState: HardState;
  disk: Entry[];
  waiting: { unit: PersistUnit; afterwards: readonly Message[] }[];
  commit: number;
  /** Up to here it has a snapshot. */
  base: number;
}

export function makeLog(terms: readonly number[]): Entry[] {
  let previous: LogPosition = LOG_ORIGIN;
  return terms.map((term, i) => {
    const entry = makeEntry({
      index: i + 1,
      term,
      kind: EntryKind.batch,
      nextOffset: i + 1,
      recordCount: 1,
      payloadChecksum: 0,
      payload: new Uint8Array(0),
      previous,
    });
    previous = entry;
    return entry;
  });
}

/** Runs a script and returns it with what its commands really printed. `record` gets the trace of its nodes. */
export function runScript(text: string, record: Record = () => {}): string {
  const world = new World(record);
  const blocks = text.split(/\n{2,}/).filter((block) => block.trim() !== '');
  return `${blocks.map((block) => runBlock(world, block)).join('\n\n')}\n`;
}

function runBlock(world: World, block: string): string {
  const head = block.split(/^----$/m)[0]?.trimEnd() ?? '';
  const commands = head.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  if (commands.length === 0) return head;
  world.output = [];
  for (const command of commands) world.run(command);
  return `${head}\n----\n${world.output.length === 0 ? 'ok' : world.output.join('\n')}`;
}

class World {
  output: string[] = [];
  #nodes = new Map<number, Node>();
  #network: Message[] = [];
  #cut = new Set<string>();
  readonly #record: Record;

  constructor(record: Record) {
    this.#record = record;
  }

  run(line: string): void {
    const [command = '', ...words] = line.trim().split(/\s+/);
    try {
      this.#run(command, words);
    } catch (error) {
      this.output.push(`${(error as Error).name}: ${(error as Error).message}`);
    }
  }

  #run(command: string, words: string[]): void {
    const numbers = words.map(Number);
    const [first = 0, second = 0, third] = numbers;
    if (command === 'node') this.#addNode(first, words);
    else if (command === 'heal') this.#cut.clear();
    else if (command === 'cut') this.#cut.add(`${first}>${second}`);
    else if (command === 'stabilize') this.#stabilize(words.length === 0 ? [...this.#nodes.keys()] : numbers);
    else if (command === 'status') this.#status(words.length === 0 ? [...this.#nodes.keys()] : numbers);
    else if (command === 'deliver') this.#deliver(first, second, third ?? Number.POSITIVE_INFINITY);
    else if (command === 'drop')
      this.#drop(words[0] === 'all' ? () => true : (m) => m.from === first && m.to === second && (words[2] ?? m.type) === m.type);
    else if (command === 'late') this.#makeLate(first, second);
    else if (command === 'duplicate') this.#network.push(this.#network.findLast((m) => m.from === first && m.to === second)!);
    else if (command === 'append') this.#network.push(handMade(first, second, words));
    else if (command === 'rest') this.#network.push(lastHeartbeat(first, second, words));
    else if (command === 'restart') this.#start(this.#nodes.get(first)!);
    else if (command === 'lose') this.#lose(this.#nodes.get(first)!, second);
    else if (command === 'install') this.#install(this.#nodes.get(first)!, this.#nodes.get(second)!, third ?? 0);
    else if (command === 'snapshot')
      this.#nodes.get(first)!.core!.snapshotDone(second as ReplicaId, words[2] === 'failed' ? undefined : third);
    else if (command === 'log') this.output.push(`${first}: ${logOf(this.#nodes.get(first)!)}`);
    else this.#drive(command, this.#nodes.get(first)!, words, second, numbers.length > 1 ? second : undefined);
  }

  #drive(command: string, node: Node, words: string[], second: number, count: number | undefined): void {
    const core = node.core!;
    if (command === 'crash') {
      node.core = undefined;
      node.waiting = [];
    } else if (command === 'tick') for (let i = 0; i < (count ?? 1); i++) core.tick();
    else if (command === 'campaign') core.campaign();
    else if (command === 'unreachable') core.leaderUnreachable();
    else if (command === 'wake') core.wake();
    else if (command === 'propose') core.propose(words.slice(1).map(proposal));
    else if (command === 'members')
      core.proposeMembers({ voters: listOf(words, 'voters').map(memberOf), learners: listOf(words, 'learners').map(memberOf) });
    else if (command === 'read') core.readIndex(second);
    else if (command === 'transfer') this.output.push(String(core.transferLeadership(second as ReplicaId)));
    else if (command === 'start') {
      core.release(words.includes('kept') ? 0 : second - 1, second);
    } else if (command === 'ready') this.#ready(node, true);
    else if (command === 'persist') this.#persist(node, count ?? Number.POSITIVE_INFINITY, true);
    else if (command === 'persisted') core.persisted(second);
    else throw new Error(`unknown command ${command}`);
  }

  #addNode(id: number, words: string[]): void {
    const disk = makeLog(listOf(words, 'log'));
    const term = option(words, 'term') ?? disk.at(-1)?.term ?? 0;
    const hardState = { term, vote: (option(words, 'vote') ?? 0) as ReplicaId, commit: option(words, 'commit') ?? 0 };
    const world = (this.#nodes.get(id)?.world ?? -1) + 1;
    const quiesceTicks = option(words, 'quiesce') ?? 0;
    const voters = option(words, 'of') ?? 3;
    const node: Node = { world, id, voters, quiesceTicks, core: undefined, hardState, disk, waiting: [], commit: 0, base: 0 };
    this.#nodes.set(id, node);
    this.#start(node);
  }

  #lose(node: Node, probation: number): void {
    node.disk = [];
    node.waiting = [];
    node.hardState = { term: node.hardState.term, vote: 0 as ReplicaId, commit: 0 };
    this.#start(node, probation);
  }

  #start(node: Node, probation = 0): void {
    node.commit = node.hardState.commit;
    node.core = new RecordedCore(
      {
        id: node.id as ReplicaId,
        hardState: node.hardState,
        configuration: configurationOf(node.voters),
        configurationIndex: 0,
        log: initialOf(node),
        electionTicks: 10,
        heartbeatTicks: 2,
        quiesceTicks: node.quiesceTicks,
        probation,
        uint32: () => node.id * 0x1000_0000,
        maxAppendBytes: 1000,
        maxInflightBytes: 4000,
        maxInflightMessages: 3,
        maxUncommittedBytes: 1000,
        maxWindowBytes: 0,
      },
      this.#record,
      String(node.world),
    );
  }

  #install(node: Node, from: Node, index: number): void {
    node.disk = from.disk.slice(0, index);
    node.base = index;
    node.hardState = { ...node.hardState, commit: index };
    node.waiting = [];
    this.#start(node);
  }

  #ready(node: Node, verbose: boolean): boolean {
    const core = node.core;
    if (core === undefined || !core.hasReady()) return false;
    const ready = core.ready();
    this.#network.push(...ready.messages);
    if (ready.persist !== undefined) node.waiting.push({ unit: ready.persist, afterwards: ready.afterPersist });
    this.#print(node, ready, verbose);
    return true;
  }

  #print(node: Node, ready: Ready, verbose: boolean): void {
    const { softState, persist, committed } = ready;
    if (softState !== undefined) this.output.push(`${node.id}: ${softState.role} term ${softState.term} leader ${softState.leader}`);
    if (verbose) {
      this.output.push(...ready.messages.map((message) => `${node.id}: send ${describe(message)}`));
      if (persist !== undefined) this.output.push(`${node.id}: persist ${describeUnit(persist)}`);
      this.output.push(...ready.afterPersist.map((message) => `${node.id}: once durable ${describe(message)}`));
    }
    if (committed.length > 0) {
      node.commit = committed.at(-1)!.index;
      this.output.push(`${node.id}: commit ${node.commit}`);
    }
    this.output.push(...ready.snapshots.map(({ to }) => `${node.id}: snapshot for ${to}`));
    this.output.push(...ready.readStates.map(({ context, index }) => `${node.id}: read ${context} at ${index}`));
  }

  #persist(node: Node, count: number, verbose: boolean): boolean {
    const done = node.waiting.splice(0, count);
    for (const { unit, afterwards } of done) {
      if (unit.hardState !== undefined) node.hardState = unit.hardState;
      if (unit.truncateTo !== undefined) node.disk.length = unit.truncateTo;
      node.disk.push(...unit.entries);
      node.core?.persisted(unit.token);
      this.#network.push(...afterwards);
      if (verbose) this.output.push(`${node.id}: durable ${node.core?.durableIndex}`);
    }
    return done.length > 0;
  }

  #deliver(from: number, to: number, count: number): void {
    let delivered = 0;
    this.#network = this.#network.filter((message) => {
      if (message.from !== from || message.to !== to || delivered >= count) return true;
      delivered++;
      if (!this.#cut.has(`${from}>${to}`)) this.#nodes.get(to)?.core?.step(message);
      return false;
    });
  }

  #drop(matches: (message: Message) => boolean): void {
    this.#network = this.#network.filter((message) => !matches(message));
  }

  #makeLate(from: number, to: number): void {
    const at = this.#network.findIndex((message) => message.from === from && message.to === to);
    this.#network.push(...this.#network.splice(at, 1));
  }

  #stabilize(ids: readonly number[]): void {
    for (let moved = true, rounds = 0; moved && rounds < 1000; rounds++) {
      moved = false;
      for (const id of ids) {
        const node = this.#nodes.get(id)!;
        while (this.#ready(node, false)) moved = true;
        if (this.#persist(node, Number.POSITIVE_INFINITY, false)) moved = true;
      }
      const batch = this.#network.filter((message) => ids.includes(message.from) && ids.includes(message.to));
      this.#network = this.#network.filter((message) => !batch.includes(message));
      for (const message of batch) {
        moved = true;
        if (!this.#cut.has(`${message.from}>${message.to}`)) this.#nodes.get(message.to)?.core?.step(message);
      }
    }
  }

  #status(ids: readonly number[]): void {
    for (const id of ids) {
      const core = this.#nodes.get(id)?.core;
      if (core === undefined) {
        this.output.push(`${id}: down`);
        continue;
      }
      const { role, term, leader, commitIndex, lastIndex, lastTerm, durableIndex, isReady } = core;
      const ready = `${isReady ? ' ready' : ''}${core.quiesced ? ' quiesced' : ''}`;
      this.output.push(
        `${id}: ${role}${ready} term ${term} leader ${leader} last ${lastIndex}/${lastTerm} commit ${commitIndex} durable ${durableIndex}`,
      );
      const { voters, outgoing, learners } = core.configuration;
      if (core.configurationIndex > 0)
        this.output.push(
          `   members ${idsOf(voters)}${outgoing.length === 0 ? '' : ` out ${idsOf(outgoing)}`}${learners.length === 0 ? '' : ` learn ${idsOf(learners)}`} from ${core.configurationIndex}`,
        );
      for (const each of core.progress()) {
        this.output.push(
          `   ${each.replicaId}: ${each.state} match ${each.matchIndex} next ${each.nextIndex}${each.active ? ' active' : ''}`,
        );
      }
    }
  }
}

function initialOf({ disk, base }: Node): InitialLog {
  const below = disk.slice(0, base);
  const terms = below.filter(({ term }, at) => term !== below[at - 1]?.term).map(({ term, index }) => ({ term, index }));
  return { base: disk[base - 1] ?? LOG_ORIGIN, tail: disk.slice(base), terms, firstReplicableIndex: base + 1 };
}

function idsOf(members: readonly Member[]): string {
  return members.map(({ replicaId }) => replicaId).join(',');
}

function proposal(text: string) {
  const payload = Uint8Array.from(text, (char) => char.charCodeAt(0));
  return { kind: EntryKind.batch, payload, recordCount: 1, payloadChecksum: payload.length };
}

function handMade(from: number, to: number, words: string[]): Message {
  const [prevIndex = 0, prevTerm = 0] = (words.find((word) => word.startsWith('prev=')) ?? 'prev=0/0').slice(5).split('/').map(Number);
  const entries = makeLog([...listOf(words, 'before'), ...listOf(words, 'log')]).slice(prevIndex);
  const envelope = { from: from as ReplicaId, to: to as ReplicaId, term: option(words, 'term') ?? 0 };
  return { type: 'append', ...envelope, prevIndex, prevTerm, commit: option(words, 'commit') ?? 0, entries };
}

function lastHeartbeat(from: number, to: number, words: string[]): Message {
  const envelope = { from: from as ReplicaId, to: to as ReplicaId, term: option(words, 'term') ?? 0 };
  const commit = option(words, 'commit') ?? 0;
  return { type: 'heartbeat', ...envelope, commit, readContext: 0, quiesce: true, check: undefined, verdict: false, over: 0 };
}

function option(words: readonly string[], name: string): number | undefined {
  const word = words.find((each) => each.startsWith(`${name}=`));
  return word === undefined ? undefined : Number(word.slice(name.length + 1));
}

function listOf(words: readonly string[], name: string): number[] {
  const word = words.find((each) => each.startsWith(`${name}=`));
  return word === undefined
    ? []
    : word
        .slice(name.length + 1)
        .split(',')
        .map(Number);
}

function logOf(node: Node): string {
  const terms: number[] = [];
  for (let index = 1; index <= (node.core?.lastIndex ?? 0); index++) terms.push(node.core?.termAt(index) ?? -1);
  return terms.join(',');
}

function describeUnit({ token, hardState, truncateTo, entries }: PersistUnit): string {
  const parts = [`#${token}`];
  if (hardState !== undefined) parts.push(`term ${hardState.term} vote ${hardState.vote} commit ${hardState.commit}`);
  if (truncateTo !== undefined) parts.push(`truncate to ${truncateTo}`);
  if (entries.length > 0) parts.push(`entries ${entries.map((entry) => `${entry.index}/${entry.term}`).join(' ')}`);
  return parts.join(', ');
}

function describe(message: Message): string {
  const head = `${message.type} to ${message.to} term ${message.term}`;
  switch (message.type) {
    case 'append':
      return `${head} prev ${message.prevIndex}/${message.prevTerm} commit ${message.commit} [${message.entries.map((e) => `${e.index}/${e.term}`).join(' ')}]`;
    case 'appendResponse': {
      const said = message.rejected
        ? `rejected ${message.rejectedIndex} hint ${message.hintIndex}/${message.hintTerm}`
        : `match ${message.matchIndex}`;
      return `${head} ${said}${message.probation > 0 ? `, on probation ${message.probation}` : ''}`;
    }
    case 'vote':
      return `${head}${message.pre ? ' pre' : ''}${message.transfer ? ' transfer' : ''} last ${message.lastIndex}/${message.lastTerm}`;
    case 'voteResponse':
      return `${head}${message.pre ? ' pre' : ''} ${message.granted ? 'granted' : 'refused'}${message.lastIndex > 0 ? `, ahead at ${message.lastIndex}/${message.lastTerm}` : ''}`;
    case 'heartbeat':
      return `${head} commit ${message.commit} read ${message.readContext}${message.quiesce ? ' quiesce' : ''}${message.over > 0 ? `, probation ${message.over} is over` : ''}`;
    case 'heartbeatResponse':
      return `${head} read ${message.readContext}${message.awake ? ' awake' : ''}`;
    case 'timeoutNow':
      return head;
    case 'pull':
      return `${head} after ${message.prevIndex}/${message.prevTerm}`;
    case 'pullResponse':
      return `${head} prev ${message.prevIndex}/${message.prevTerm} [${message.entries.map((e) => `${e.index}/${e.term}`).join(' ')}] of ${message.lastIndex}/${message.lastTerm}`;
  }
}
