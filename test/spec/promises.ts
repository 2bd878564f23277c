/** What a replica may say: every message follows from what it knew, and what it promises is on its disk when it leaves (hazards B01, B04). */
import type { ActionName } from './actions.ts';
import { must } from './rejected.ts';
import type { SpecReplica } from './replica.ts';
import type { TraceMessage } from './trace.ts';

/** Of older terms and writes this many are remembered. */
const MOST = 4096;

/** What a replica did that entitles it to say something, perhaps later. */
export class Promises {
  /** Terms that it led. */
  readonly led = new Set<number>();
  /** Campaigns by term: where its log ended. */
  readonly #campaigns = new Map<string, string>();
  /** A leader's entries that it has, by term and index: the write that must be durable first. */
  readonly #accepted = new Map<string, number>();
  readonly #said = new Map<string, boolean>();
  /** By term. */
  readonly #votes = new Map<string, number>();

  campaigns(term: number, pre: boolean, lastIndex: number, lastTerm: number): void {
    remember(this.#campaigns, `${term} ${pre}`, `${lastIndex} ${lastTerm}`);
  }

  accepts(term: number, index: number, write: number): void {
    remember(this.#accepted, `${term} ${index}`, write);
  }

  votes(term: number, to: number): void {
    remember(this.#votes, String(term), to);
  }

  mayReject(leader: number): void {
    this.#may(`reject ${leader}`);
  }

  mayGrantPreVote(to: number, term: number): void {
    this.#may(`pre-vote ${to} ${term}`);
  }

  mayAnswerHeartbeat(to: number, term: number, context: number): void {
    this.#may(`heartbeat ${to} ${term} ${context}`);
  }

  mayPull(term: number): void {
    this.#may(`pull ${term}`);
  }

  mayServe(to: number): void {
    this.#may(`serve ${to}`);
  }

  #may(what: string): void {
    remember(this.#said, what, true);
  }

  has(what: string): boolean {
    return this.#said.has(what);
  }

  votedFor(term: number): number | undefined {
    return this.#votes.get(String(term));
  }

  campaignOf(term: number, pre: boolean): string | undefined {
    return this.#campaigns.get(`${term} ${pre}`);
  }

  writeOf(term: number, index: number): number | undefined {
    return this.#accepted.get(`${term} ${index}`);
  }
}

/** The action that lets the message leave. */
export function checkSent(replica: SpecReplica, message: TraceMessage): ActionName {
  const { promises, disk, id, term } = replica;
  must(message.from === id && message.to !== id, 'sent in the name of another');
  // A pre-vote is about a term that nobody has yet, and a granted one repeats it.
  const isGranted = message.type === 'voteResponse' && message.pre && message.granted;
  const isPreVote = message.type === 'vote' && message.pre;
  must(isGranted || message.term <= term + (isPreVote ? 1 : 0), `sent at term ${message.term} in term ${term}`);
  switch (message.type) {
    case 'vote': {
      const { pre, lastIndex, lastTerm } = message;
      must(
        promises.campaignOf(message.term, pre) === `${lastIndex} ${lastTerm}`,
        `asks for votes of term ${message.term} without a campaign, or with another log`,
      );
      must(pre || disk.binds(message.term, id), `campaigns at term ${message.term} before its own vote is durable`);
      return pre ? 'SendPreVoteRequest' : 'SendVoteRequest';
    }
    case 'voteResponse': {
      if (!message.granted) return 'SendRefusal';
      if (message.pre) {
        must(promises.has(`pre-vote ${message.to} ${message.term}`), 'grants a pre-vote to a log that is behind');
        return 'SendPreVote';
      }
      must(
        promises.votedFor(message.term) === message.to && disk.binds(message.term, message.to),
        `votes for ${message.to} in term ${message.term} before that is durable`,
      );
      return 'SendVote';
    }
    case 'append':
      return sentAppend(replica, message);
    case 'heartbeat':
      must(promises.led.has(message.term), `a heartbeat of term ${message.term}, which it does not lead`);
      if (message.over > 0) endsProbation(replica, message);
      must(
        message.commit <= Math.max(replica.match.get(message.to) ?? 0, replica.probations.get(message.to)?.match ?? 0) &&
          message.commit <= replica.commit,
        `a heartbeat commits ${message.commit} ahead`,
      );
      return 'SendHeartbeat';
    case 'appendResponse': {
      if (message.rejected) {
        must(promises.has(`reject ${message.to}`), 'rejects what it was never sent');
        return 'SendRejection';
      }
      const write = promises.writeOf(message.term, message.matchIndex);
      must(
        write !== undefined,
        `acknowledges ${message.matchIndex} to the leader of term ${message.term}, whose log it never matched there`,
      );
      must(disk.isWritten(write), `acknowledges ${message.matchIndex} before it is durable`);
      return 'SendAcknowledgement';
    }
    case 'heartbeatResponse':
      must(promises.has(`heartbeat ${message.to} ${message.term} ${message.readContext}`), 'answers a heartbeat that it never got');
      return 'SendHeartbeatAnswer';
    case 'timeoutNow':
      must(promises.led.has(message.term), 'tells another to campaign in a term that it does not lead');
      return 'SendTimeoutNow';
    case 'pull':
      must(promises.has(`pull ${message.term}`), 'pulls though it did not lose for its log');
      return 'SendPull';
    case 'pullResponse':
      must(promises.has(`serve ${message.to}`), 'sends what nobody pulled');
      return 'SendPullAnswer';
  }
}

/** A leader sends what is in its log. One that was deposed since may still say what it had said. */
function sentAppend(replica: SpecReplica, message: Extract<TraceMessage, { type: 'append' }>): ActionName {
  const { term, role, log, commit, promises } = replica;
  must(promises.led.has(message.term), `an append of term ${message.term}, which it does not lead`);
  if (role === 'leader' && term === message.term) {
    must(
      message.prevIndex <= log.last && log.termAt(message.prevIndex) === message.prevTerm,
      `an append after entry ${message.prevIndex} of term ${message.prevTerm}, which it has not`,
    );
    for (const { index, term: of } of message.entries)
      must(log.termAt(index) === of, `sends entry ${index} of term ${of}, which it has not`);
    must(message.commit <= commit, `an append commits ${message.commit}, and ${commit} is committed`);
  }
  return 'SendAppend';
}

function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  const [oldest] = map.keys();
  if (map.size > MOST && oldest !== undefined) map.delete(oldest);
}

/** Only who has an entry that committed without it has all that it can have acknowledged. */
function endsProbation({ commit, probations }: SpecReplica, { to, over }: Extract<TraceMessage, { type: 'heartbeat' }>): void {
  const probation = probations.get(to);
  must(probation?.number === over, `ends a probation of ${to} that it knows nothing of`);
  const { mark, match } = probation;
  must(commit >= mark && match >= mark, `ends a probation of ${to} too early: ${JSON.stringify(probation)}, committed up to ${commit}`);
  probation.told = true;
}
