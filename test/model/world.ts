/**
 * The world: replicas, messages on their way, what was committed and who led. A state of it is a row of numbers:
 *
 *   one place a replica, the place of its history, what is left of each bound, then the places of the messages on their way, ascending
 *
 * Messages on their way are a set. None is lost by an action of its own: one that is never delivered is lost.
 */
import type { Configuration } from '../../src/raft/core/types.ts';
import { FIRST_ID } from './describe.ts';
import { type History, judge } from './properties.ts';
import { type Input, memberOf } from './replica.ts';
import { Interned, renamingsOf, Shapes } from './shapes.ts';
import { Transitions } from './transitions.ts';

/** How far the world may go. */
export interface Bounds {
  readonly servers: number;
  readonly terms: number;
  /** Proposals; the n-th has the value n. */
  readonly values: number;
  readonly crashes: number;
  /** Writes that may take their time. */
  readonly slow: number;
  /** Deliveries after which the message may come again. */
  readonly duplicates: number;
  readonly ticks: number;
  /** Elections through PreVote too. */
  readonly timeouts: number;
  /** Changes of voters, to any of the replicas. */
  readonly changes: number;
  /** So many replicas begin as learners. */
  readonly learners: number;
}

type Spent = 'values' | 'crashes' | 'slow' | 'duplicates' | 'ticks' | 'timeouts' | 'changes';
const SPENT: readonly Spent[] = ['values', 'crashes', 'slow', 'duplicates', 'ticks', 'timeouts', 'changes'];

/** An input to a replica. */
export interface Action {
  readonly slot: number;
  readonly input: Input;
  /** The input's, among all inputs. */
  readonly number: number;
  readonly slow: boolean;
  /** The message that is delivered: its place. */
  readonly message: number | undefined;
  readonly spends: readonly Spent[];
}

export type State = readonly number[];
export type Outcome = { readonly state: State } | { readonly violation: string };

export class World {
  readonly bounds: Bounds;
  readonly shapes: Shapes;
  readonly transitions: Transitions;
  readonly #histories: Interned<History>;
  readonly #configuration: Configuration;
  /** The voters that a change may lead to. */
  readonly #electorates: readonly (readonly number[])[];

  constructor(bounds: Bounds) {
    this.bounds = bounds;
    const { servers, learners } = bounds;
    const members = Array.from({ length: servers }, (_, slot) => memberOf(slot));
    this.#configuration = { voters: members.slice(0, servers - learners), outgoing: [], learners: members.slice(servers - learners) };
    this.shapes = new Shapes(
      renamingsOf(servers).filter((renaming) => renaming.slice(servers - learners).every((slot) => slot >= servers - learners)),
    );
    this.#electorates = electoratesOf(servers);
    this.transitions = new Transitions(this.shapes, this.#configuration);
    this.#histories = new Interned(this.shapes);
  }

  start(): State {
    const replicas = Array.from({ length: this.bounds.servers }, (_, slot) => this.transitions.start(slot));
    return [...replicas, this.#remember({ leaders: [], committed: [] }), ...SPENT.map((what) => this.bounds[what])];
  }

  /** What may happen next, in an order that is always the same. */
  actions(state: State): Action[] {
    const actions: Action[] = [];
    const { servers, terms, values } = this.bounds;
    const left = (what: Spent) => state[servers + 1 + SPENT.indexOf(what)] as number;
    const add = (slot: number, number: number, input: Input, spends: readonly Spent[] = [], message?: number) => {
      actions.push({ slot, input, number: number * 2, slow: false, message, spends });
      const { pending } = this.transitions.view(state[slot] as number);
      const mayBeSlow = input.type !== 'persisted' && input.type !== 'crash' && pending === 0 && left('slow') > 0;
      if (mayBeSlow) actions.push({ slot, input, number: number * 2 + 1, slow: true, message, spends: [...spends, 'slow'] });
    };
    for (let slot = 0; slot < servers; slot++) {
      const { role, term, pending } = this.transitions.view(state[slot] as number);
      if (role === 'leader') {
        const value = values - left('values') + 1;
        if (left('values') > 0) add(slot, 16 + value, { type: 'propose', value }, ['values']);
        if (left('changes') > 0) {
          for (const [at, voters] of this.#electorates.entries()) add(slot, 24 + at, { type: 'change', voters }, ['changes']);
        }
        if (left('ticks') > 0) add(slot, 1, { type: 'tick' }, ['ticks']);
      } else if (term < terms) {
        if (role !== 'candidate') add(slot, 2, { type: 'campaign' });
        if (left('timeouts') > 0) add(slot, 3, { type: 'timeout' }, ['timeouts']);
      }
      if (pending > 0) add(slot, 4, { type: 'persisted' });
      if (left('crashes') > 0) for (let kept = 0; kept <= pending; kept++) add(slot, 8 + kept, { type: 'crash', kept }, ['crashes']);
    }
    for (let at = this.#firstMessage; at < state.length; at++) {
      const place = state[at] as number;
      const message = this.transitions.messages.at(place);
      const slot = message.to - FIRST_ID;
      add(slot, 40 + place, { type: 'deliver', message }, [], place);
      if (left('duplicates') > 0) add(slot, 40 + place, { type: 'deliver', message }, ['duplicates'], place);
    }
    return actions;
  }

  /** Undefined: nothing comes of it. */
  apply(state: State, action: Action): Outcome | undefined {
    const { slot, number, input, slow } = action;
    const place = state[slot] as number;
    const { next, sent, violation } = this.transitions.apply(place, number, { input, slow });
    if (violation !== undefined) return { violation };
    // What changes nothing is worth nothing: a message without effect may as well be lost.
    if (next === place && sent.length === 0) return undefined;
    if (slow && this.transitions.view(next).pending === 0) return undefined;
    const { servers } = this.bounds;
    const after = state.slice(0, this.#firstMessage);
    after[slot] = next;
    for (const what of action.spends) (after[servers + 1 + SPENT.indexOf(what)] as number)--;
    const views = Array.from({ length: servers }, (_, each) => this.transitions.view(after[each] as number));
    const judged = judge(views, this.transitions.view(next), this.#histories.at(state[servers] as number), this.#configuration);
    if (typeof judged === 'string') return { violation: judged };
    after[servers] = this.#remember(judged);
    this.#addMessages(after, state, action, sent);
    return { state: after };
  }

  #remember(history: History): number {
    return this.#histories.add([history.leaders, history.committed.map(({ entry }) => entry)], () => history);
  }

  /** What goes on its way, and what stays there and can still do something. */
  #addMessages(after: number[], before: State, { message, spends }: Action, sent: readonly number[]): void {
    const places = new Set(before.slice(this.#firstMessage));
    if (message !== undefined && !spends.includes('duplicates')) places.delete(message);
    for (const place of sent) places.add(place);
    for (const place of [...places].sort((a, b) => a - b)) if (this.#matters(place, after)) after.push(place);
  }

  /**
   * False for answers, and requests for votes, of a term that their receiver has left for good, for its disk says so: the core ignores them. An append of
   * such a term is answered, so it stays.
   */
  #matters(place: number, state: State): boolean {
    const message = this.transitions.messages.at(place);
    const { durableTerm } = this.transitions.view(state[message.to - FIRST_ID] as number);
    if (message.term >= durableTerm || message.type === 'append' || message.type === 'heartbeat') return true;
    return 'pre' in message && message.pre;
  }

  /** The same for all states that differ in the replicas' names only, and for (almost, 53 bits) no others. */
  key(state: State): number {
    let least = Number.POSITIVE_INFINITY;
    const { renamings } = this.shapes;
    for (let at = 0; at < renamings.length; at++) least = Math.min(least, this.#keyUnder(state, at));
    return least;
  }

  #keyUnder(state: State, at: number): number {
    const renaming = this.shapes.renamings[at] as readonly number[];
    const { servers } = this.bounds;
    const { messages, states } = this.transitions;
    sum.high = 0;
    sum.low = 0;
    for (let slot = 0; slot < servers; slot++) add(1 + (renaming[slot] as number), states.shapes[state[slot] as number]?.[at] as number);
    add(100, this.#histories.shapes[state[servers] as number]?.[at] as number);
    for (let bound = 0; bound < SPENT.length; bound++) add(101 + bound, state[servers + 1 + bound] as number);
    for (let i = this.#firstMessage; i < state.length; i++) add(99, messages.shapes[state[i] as number]?.[at] as number);
    return (sum.high >>> 0) * 0x20_0000 + (sum.low >>> 11);
  }

  get #firstMessage(): number {
    return this.bounds.servers + 1 + SPENT.length;
  }
}

/** All sets of the slots but the empty one. */
function electoratesOf(servers: number): number[][] {
  const all = Array.from({ length: 2 ** servers }, (_, bits) =>
    Array.from({ length: servers }, (_, slot) => slot).filter((slot) => bits & (1 << slot)),
  );
  return all.filter(({ length }) => length > 0);
}

/** Two sums of well-mixed numbers: what is added in any order is the same set. */
const sum = { high: 0, low: 0 };

function add(role: number, number: number): void {
  sum.high = (sum.high + mix(Math.imul(role, 0x9e3779b1) ^ number, 0x85ebca6b)) | 0;
  sum.low = (sum.low + mix((Math.imul(number, 0x5bd1e995) + role) | 0, 0xc2b2ae35)) | 0;
}

function mix(value: number, by: number): number {
  let h = Math.imul(value ^ (value >>> 16), by);
  h = Math.imul(h ^ (h >>> 13), 0x27d4eb2f);
  return h ^ (h >>> 16);
}
