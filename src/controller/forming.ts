/**
 * How empty directories become a cluster, once, and how a broker learns which cluster is its own.
 *
 * The voters of the metadata quorum are configured, by broker id and address, the same on every broker. A directory has an id from its
 * first start; it is *empty* until it holds a formed cluster: the cluster's id and the voters, each with its directory.
 *
 * 1. The configured voter with the lowest id, while its directory is empty, asks all voters who they are. Only when every one of them
 *    answers that it is empty does it mint the cluster, with the directories that answered, and writes that down.
 * 2. Everybody else with an empty directory asks until some voter answers with a formed cluster, and writes that down. A voter whose
 *    directory is not the one that the formed cluster names for it (its disk was wiped) does not join: it would vote with the
 *    name, but not the log, of its predecessor (hazard B14). It waits and says so.
 * 3. An answer that was on its way while this voter told the lowest one that it is empty is thrown away and asked for again: the lowest
 *    may count on that word, and the answer may come from a disk that has been wiped since.
 *
 * Why there are never two clusters that work: only the lowest voter mints; to mint again its own disk must have been wiped, and
 * then every other voter must be empty, so nobody but the wiped disk knew of the first cluster. (3) covers who was just learning of it.
 */
import type { Environment, Logger } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { type BrokerId, type ClusterId, type DirectoryId, mintUuid, type ReplicaId } from '../base/ids.ts';
import type { Member } from '../raft/core/types.ts';
import { pause } from './pause.ts';

/** What a directory knows once it belongs to a cluster. */
export interface FormedCluster {
  readonly clusterId: ClusterId;
  /** Group 0's configuration at creation. */
  readonly voters: readonly Member[];
}

/** What a broker answers to Raft.Identify. */
export interface DirectoryIdentity {
  readonly brokerId: BrokerId;
  readonly directoryId: DirectoryId;
  /** Undefined: the directory is empty. */
  readonly cluster: FormedCluster | undefined;
}

export interface ConfiguredVoter {
  readonly brokerId: BrokerId;
  readonly address: string;
}

export interface FormationOptions {
  /** This broker as its directory has it. */
  readonly self: DirectoryIdentity;
  /** The id of the cluster to form, when `cluster.id` or `flotilla format` named it; else one is minted. */
  readonly clusterId?: ClusterId | undefined;
  /** Configured voters, this broker among them if it is one. */
  readonly voters: readonly ConfiguredVoter[];
  /** Asks the broker at the address (Raft.Identify) who it is; rejects when it does not answer within `IDENTIFY_TIMEOUT_MS`. */
  readonly identify: (address: string, asker: DirectoryIdentity) => Promise<DirectoryIdentity>;
  /** Writes the cluster into the directory file; durable when it resolves. */
  readonly persist: (cluster: FormedCluster) => Promise<void>;
  readonly environment: Environment;
  readonly logger: Logger;
}

export const IDENTIFY_TIMEOUT_MS = 2_000;
/** Between two rounds of asking; half of it by lot. */
export const ROUND_MS = 500;
/** The same reason for waiting is logged again after this many rounds. */
const LOG_ROUNDS = 20;

export class ClusterFormation {
  readonly #options: FormationOptions;
  readonly #lowest: BrokerId | undefined;
  #cluster: FormedCluster | undefined;
  #writing = false;
  /** How often the lowest voter was told that this directory is empty. */
  #saidEmpty = 0;
  #reason = '';
  #reasonRounds = 0;

  constructor(options: FormationOptions) {
    this.#options = options;
    this.#cluster = options.self.cluster;
    this.#lowest = options.voters.reduce<BrokerId | undefined>(
      (low, { brokerId }) => (low === undefined || brokerId < low ? brokerId : low),
      undefined,
    );
  }

  /** Serves Raft.Identify. Throws BROKER_NOT_AVAILABLE for the moment in which the answer is being written down. */
  answer(asker: { readonly brokerId: BrokerId }): DirectoryIdentity {
    if (this.#writing) throw new FlotillaError('BROKER_NOT_AVAILABLE', 'this directory is just being formatted: ask again');
    if (this.#cluster === undefined && asker.brokerId === this.#lowest) this.#saidEmpty++;
    return this.#self();
  }

  /** Resolves with the cluster that this directory belongs to, formed or joined; rejects with ABORTED when the signal fires first. */
  async form(signal: AbortSignal): Promise<FormedCluster> {
    const { environment } = this.#options;
    for (;;) {
      if (this.#cluster !== undefined) return this.#cluster;
      if (signal.aborted) throw new FlotillaError('ABORTED', `stopped before the cluster was formed: ${this.#reason}`);
      const cluster = await this.#round();
      if (signal.aborted) continue;
      if (cluster !== undefined) await this.#write(cluster);
      else await pause(environment, ROUND_MS / 2 + (ROUND_MS / 2) * (environment.uint32() / 2 ** 32), signal);
    }
  }

  /** Asks everybody once. The cluster to write down, or undefined: wait. */
  async #round(): Promise<FormedCluster | undefined> {
    const { voters, self } = this.#options;
    const saidEmpty = this.#saidEmpty;
    const answers = await Promise.all(voters.map((voter) => this.#ask(voter)));
    const known = answers.filter((answer) => answer !== undefined);
    const formed = known.flatMap(({ cluster }) => (cluster === undefined ? [] : [cluster]));
    const cluster = formed[0];
    if (cluster !== undefined) {
      if (saidEmpty !== this.#saidEmpty) return this.#wait('the lowest voter is forming the cluster at this moment');
      return this.#join(cluster, formed);
    }
    if (self.brokerId !== this.#lowest) return this.#wait(`waiting for broker ${this.#lowest} to form the cluster`);
    const missing = voters.filter((_, i) => answers[i] === undefined).map(({ brokerId, address }) => `${brokerId} (${address})`);
    if (missing.length > 0) return this.#wait(`a new cluster is formed only once all voters answer; no answer from ${missing.join(', ')}`);
    return this.#mint(known);
  }

  #join(cluster: FormedCluster, all: readonly FormedCluster[]): FormedCluster | undefined {
    const { self, voters } = this.#options;
    const other = all.find(({ clusterId }) => clusterId !== cluster.clusterId);
    if (other !== undefined) {
      return this.#wait(
        `voters belong to two clusters, ${cluster.clusterId} and ${other.clusterId}: their directories don't belong together, correct the list of voters`,
      );
    }
    const recorded = cluster.voters.find(({ brokerId }) => brokerId === self.brokerId);
    if (recorded !== undefined && recorded.directoryId !== self.directoryId) {
      return this.#wait(
        `cluster ${cluster.clusterId} knows broker ${self.brokerId} as a voter with directory ${recorded.directoryId}, this directory is ${self.directoryId}: ` +
          'it was wiped or replaced and can not vote in its stead; bring the old directory back',
      );
    }
    if (recorded === undefined && voters.some(({ brokerId }) => brokerId === self.brokerId)) {
      return this.#wait(`cluster ${cluster.clusterId} was formed without voter ${self.brokerId}: take it off this broker's list of voters`);
    }
    return cluster;
  }

  #mint(answers: readonly DirectoryIdentity[]): FormedCluster {
    const { environment, logger } = this.#options;
    const ordered = answers.toSorted((a, b) => a.brokerId - b.brokerId);
    const voters = ordered.map(({ brokerId, directoryId }, i) => ({ replicaId: (i + 1) as ReplicaId, brokerId, directoryId }));
    const clusterId = this.#options.clusterId ?? (mintUuid(() => environment.uint32()) as ClusterId);
    logger.info('cluster formed', { clusterId, voters: voters.map(({ brokerId }) => brokerId) });
    return { clusterId, voters };
  }

  async #ask(voter: ConfiguredVoter): Promise<DirectoryIdentity | undefined> {
    const self = this.#self();
    if (voter.brokerId === self.brokerId) return self;
    try {
      const answer = await this.#options.identify(voter.address, self);
      if (answer.brokerId === voter.brokerId) return answer;
      this.#options.logger.error('another broker answers at the address of a voter', { ...voter, answers: answer.brokerId });
    } catch (error) {
      this.#options.logger.debug('voter did not answer', { ...voter, error: messageOf(error) });
    }
    return undefined;
  }

  async #write(cluster: FormedCluster): Promise<void> {
    this.#writing = true;
    try {
      await this.#options.persist(cluster);
      this.#cluster = cluster;
    } finally {
      this.#writing = false;
    }
  }

  #self(): DirectoryIdentity {
    const { brokerId, directoryId } = this.#options.self;
    return { brokerId, directoryId, cluster: this.#cluster };
  }

  #wait(reason: string): undefined {
    if (reason !== this.#reason || ++this.#reasonRounds % LOG_ROUNDS === 0) {
      this.#options.logger.warn('not part of a cluster yet', { reason });
    }
    if (reason !== this.#reason) this.#reasonRounds = 0;
    this.#reason = reason;
    return undefined;
  }
}
