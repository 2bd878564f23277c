/**
 * A quorum that comes up together has no leader and nothing to wait for: its voters pre-campaign in turn, by rank, instead of sitting
 * out an election timeout. PreVote makes it harmless where there is a leader after all: followers that hear it refuse (thesis 9.6).
 */
import type { Environment } from '../base/environment.ts';
import type { Replica } from '../raft/types.ts';

/** Between two voters' turns: more than a round of votes takes. */
const TURN_MS = 80;
/** After so many rounds of turns, elections are left to their timeouts. */
const ROUNDS = 10;

/** `rank` is this voter's place among the `voters` of the quorum. Ends once a leader is known or `ended` says so. */
export function campaignInTurn(replica: Replica, rank: number, voters: number, environment: Environment, ended: () => boolean): void {
  let round = 0;
  const turn = (): void => {
    if (ended() || replica.leadership.leader !== undefined) return;
    replica.campaign();
    if (++round < ROUNDS) environment.after(TURN_MS * voters, turn);
  };
  environment.after(TURN_MS * (rank + 1), turn);
}
