/**
 * What one replica does, as a table: (its state, input) -> (its next state, what it sends). A replica's state depends on its own inputs alone, so the core runs
 * once for each row, however many states of the world share it. The core is not copied: its state is made again from the replica's inputs since its start.
 */
import type { Entry } from '../../src/raft/core/entry.ts';
import type { Configuration, Message, Role } from '../../src/raft/core/types.ts';
import { type Input, ModelReplica } from './replica.ts';
import { Interned, type Shapes } from './shapes.ts';

/** What the search looks at of a replica in a state. */
export interface View {
  readonly slot: number;
  readonly role: Role;
  readonly term: number;
  readonly leader: number;
  readonly commit: number;
  readonly durableTerm: number;
  /** Writes under way. */
  readonly pending: number;
  readonly configuration: Configuration;
  readonly log: readonly LogEntry[];
  readonly disk: readonly LogEntry[];
}

export interface LogEntry {
  readonly entry: Entry;
  readonly term: number;
  /** The same chain, the same log up to here. */
  readonly chain: number;
}

export interface Transition {
  readonly next: number;
  /** Places of the messages that left. */
  readonly sent: readonly number[];
  /** What broke. */
  readonly violation: string | undefined;
}

interface Step {
  readonly input: Input;
  readonly slow: boolean;
}

interface State {
  readonly view: View;
  /** By the input's number. */
  readonly rows: Map<number, Transition>;
  /** How it came about; undefined: at the start. */
  readonly from: { readonly place: number; readonly step: Step } | undefined;
}

export class Transitions {
  readonly messages: Interned<Message>;
  readonly states: Interned<State>;
  readonly #configuration: Configuration;
  readonly #chains = new Map<string, number>();
  /** Rows of the table: how often the core ran. */
  rows = 0;

  constructor(shapes: Shapes, configuration: Configuration) {
    this.#configuration = configuration;
    this.messages = new Interned(shapes);
    this.states = new Interned(shapes);
  }

  start(slot: number): number {
    return this.#place(new ModelReplica(slot, this.#configuration), slot, undefined);
  }

  view(place: number): View {
    return this.states.at(place).view;
  }

  /** `number` names the step among all steps. */
  apply(place: number, number: number, step: Step): Transition {
    const { rows } = this.states.at(place);
    let transition = rows.get(number);
    if (transition === undefined) {
      this.rows++;
      transition = this.#run(place, step);
      rows.set(number, transition);
    }
    return transition;
  }

  #run(place: number, step: Step): Transition {
    const { slot } = this.view(place);
    const replica = this.#again(place, slot);
    try {
      const sent = replica.apply(step.input, step.slow).map((message) => this.messages.add(message, () => message));
      return { next: this.#place(replica, slot, { place, step }), sent, violation: undefined };
    } catch (error) {
      return { next: place, sent: [], violation: `replica ${slot + 1}: ${error instanceof Error ? error.message : String(error)}` };
    }
  }

  #again(place: number, slot: number): ModelReplica {
    const steps: Step[] = [];
    for (let { from } = this.states.at(place); from !== undefined; from = this.states.at(from.place).from) steps.push(from.step);
    const replica = new ModelReplica(slot, this.#configuration);
    for (const { input, slow } of steps.reverse()) replica.apply(input, slow);
    return replica;
  }

  #place(replica: ModelReplica, slot: number, from: State['from']): number {
    const { core, hardState, durable, pending, applied } = replica;
    return this.states.add([core, hardState, durable, pending, applied], () => ({
      view: this.#viewOf(replica, slot),
      from,
      rows: new Map(),
    }));
  }

  #viewOf({ core, hardState, durable, pending }: ModelReplica, slot: number): View {
    const entryOf = (entry: Entry): LogEntry => ({ entry, term: entry.term, chain: this.#chain(`${entry.chainHigh}:${entry.chainLow}`) });
    return {
      slot,
      role: core.role,
      term: core.term,
      leader: core.leader,
      commit: core.commitIndex,
      durableTerm: hardState.term,
      pending: pending.length,
      configuration: core.configuration,
      log: (core.entriesBetween(1, core.lastIndex) ?? []).map(entryOf),
      disk: durable.map(entryOf),
    };
  }

  #chain(text: string): number {
    let chain = this.#chains.get(text);
    if (chain === undefined) {
      chain = this.#chains.size;
      this.#chains.set(text, chain);
    }
    return chain;
  }
}
