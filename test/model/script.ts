/** Actions as lines of text: what a counterexample is printed in, and replayed from. */

import type { Message } from '../../src/raft/core/types.ts';
import { FIRST_ID } from './describe.ts';
import type { Action, State, World } from './world.ts';

export function lineOf(action: Action): string {
  const who = action.slot + 1;
  const slow = action.slow ? ', its write slow' : '';
  const { input } = action;
  switch (input.type) {
    case 'deliver':
      return `${action.spends.includes('duplicates') ? 'deliver and keep' : 'deliver'} ${messageLine(input.message)}${slow}`;
    case 'timeout':
      return `${who} times out${slow}`;
    case 'campaign':
      return `${who} campaigns${slow}`;
    case 'tick':
      return `${who} ticks${slow}`;
    case 'propose':
      return `${who} proposes value ${input.value}${slow}`;
    case 'change':
      return `${who} makes ${input.voters.map((voter) => voter + 1).join(' ')} the voters${slow}`;
    case 'persisted':
      return `${who} has written`;
    case 'crash':
      return `${who} crashes, ${input.kept} of its writes kept`;
  }
}

function messageLine(message: Message): string {
  const head = `${message.type} ${message.from - FIRST_ID + 1}>${message.to - FIRST_ID + 1} term ${message.term}`;
  switch (message.type) {
    case 'append': {
      const entries = message.entries.map(({ index, term }) => `${index}/${term}`).join(' ');
      return `${head} after ${message.prevIndex}/${message.prevTerm} [${entries}] commit ${message.commit}`;
    }
    case 'appendResponse':
      if (!message.rejected) return `${head} match ${message.matchIndex}`;
      return `${head} rejects ${message.rejectedIndex}, hint ${message.hintIndex}/${message.hintTerm}`;
    case 'vote':
      return `${head} last ${message.lastIndex}/${message.lastTerm}${message.pre ? ' pre' : ''}${message.transfer ? ' transfer' : ''}`;
    case 'voteResponse':
      return `${head} ${message.granted ? 'granted' : 'refused'}${message.pre ? ' pre' : ''}`;
    case 'heartbeat':
      return `${head} commit ${message.commit}`;
    case 'pull':
      return `${head} after ${message.prevIndex}/${message.prevTerm}`;
    case 'pullResponse': {
      const entries = message.entries.map(({ index, term }) => `${index}/${term}`).join(' ');
      return `${head} after ${message.prevIndex}/${message.prevTerm} [${entries}] of ${message.lastIndex}/${message.lastTerm}`;
    }
    default:
      return head;
  }
}

/** Where each replica stands, in a line. */
export function stateLine(world: World, state: State): string {
  const replicas = Array.from({ length: world.bounds.servers }, (_, slot) => {
    const { role, term, commit, log, disk, pending } = world.transitions.view(state[slot] as number);
    const terms = (entries: typeof log) => entries.map((entry) => entry.term).join('');
    const writes = pending === 0 ? '' : `, on disk [${terms(disk)}], ${pending} under way`;
    return `${slot + 1} ${role} term ${term} log [${terms(log)}] commit ${commit}${writes}`;
  });
  return replicas.join('; ');
}

export interface Replayed {
  readonly state: State;
  readonly violation: string | undefined;
}

/** Runs a script: the state after each line, and what broke in the end. Throws at a line that is no action of its state. */
export function replay(world: World, lines: readonly string[], told: (line: string, state: State) => void): Replayed {
  let state = world.start();
  for (const line of lines) {
    const action = world.actions(state).find((each) => lineOf(each) === line);
    if (action === undefined) throw new Error(`nothing that can happen here: ${line}`);
    const outcome = world.apply(state, action);
    if (outcome === undefined) continue;
    if ('violation' in outcome) return { state, violation: outcome.violation };
    state = outcome.state;
    told(line, state);
  }
  return { state, violation: undefined };
}
