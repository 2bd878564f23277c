import { Coverage } from './actions.ts';
import { SpecLog } from './log.ts';
import { must, Rejected } from './rejected.ts';
import { SpecReplica } from './replica.ts';
import { type Happening, lineOf, type TraceEntry, type TraceEvent } from './trace.ts';

type Start = Extract<Happening, { type: 'start' }>;

/** What no two replicas of a group may disagree about. It holds in whatever order their events are read, so traces of several processes need no common clock. */
class Group {
  readonly replicas = new Map<number, SpecReplica>();
  /** By term. */
  readonly #leaders = new Map<number, number>();
  /** By index and term: the chain, which stands for the log up to there. */
  readonly #chains = new Map<string, string>();
  /** By index: the term. */
  readonly #committed: number[] = [];

  leads(id: number, term: number): void {
    const other = this.#leaders.get(term) ?? id;
    must(other === id, `election safety: ${other} and ${id} lead term ${term}`);
    this.#leaders.set(term, id);
  }

  appended(entries: readonly TraceEntry[]): void {
    for (const { index, term, chainHigh, chainLow } of entries) {
      const key = `${index}/${term}`;
      const chain = `${chainHigh}:${chainLow}`;
      must((this.#chains.get(key) ?? chain) === chain, `log matching: two logs up to entry ${index} of term ${term}`);
      this.#chains.set(key, chain);
    }
  }

  committed(replica: SpecReplica, from: number): void {
    for (let index = from + 1; index <= replica.commit; index++) {
      const term = replica.log.termAt(index);
      if (term === 0) continue;
      must(
        (this.#committed[index] ?? term) === term,
        `state machine safety: entry ${index} of terms ${this.#committed[index]} and ${term}`,
      );
      this.#committed[index] = term;
    }
  }
}

/** Checks traces, event by event. The events of one replica come in their order; those of different replicas in any. */
export class TraceChecker {
  readonly coverage: Coverage;
  readonly #groups = new Map<string, Group>();
  events = 0;

  constructor(coverage = new Coverage()) {
    this.coverage = coverage;
  }

  /** Throws {@link Rejected} with the event, at one that no action explains. */
  readonly check = (event: TraceEvent): void => {
    this.events++;
    try {
      this.#check(event);
    } catch (error) {
      if (!(error instanceof Rejected)) throw error;
      throw new Rejected(
        `the specification does not allow event ${this.events}: replica ${event.replica}: ${error.message}\n${lineOf(event)}`,
      );
    }
  };

  #check(event: TraceEvent): void {
    const group = this.#group(event.group ?? '');
    const known = group.replicas.get(event.replica);
    if (event.what.type === 'start') this.#start(group, known, event.what, event);
    else {
      must(known !== undefined, 'did something before it started');
      this.#step(group, known, event);
    }
  }

  #step(group: Group, known: SpecReplica, event: TraceEvent): void {
    const { commit } = known;
    known.explain(event);
    if (event.log !== undefined) group.appended(event.log.appended);
    if (known.role === 'leader') group.leads(event.replica, known.term);
    if (known.commit > commit) group.committed(known, commit);
  }

  #start(group: Group, known: SpecReplica | undefined, { log, electionTicks, probation = 0 }: Start, { replica, after }: TraceEvent): void {
    if (known !== undefined) {
      known.restart(new SpecLog(log), after, probation);
      group.committed(known, 0);
      return;
    }
    this.coverage.took('Start');
    group.replicas.set(replica, new SpecReplica(replica, this.coverage, new SpecLog(log), electionTicks, after));
  }

  #group(name: string): Group {
    let group = this.#groups.get(name);
    if (group === undefined) {
      group = new Group();
      this.#groups.set(name, group);
    }
    return group;
  }
}
