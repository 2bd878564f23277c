import { hostOf, type SimCluster, type SimMachine } from '../cluster.ts';
import type { SeededRandom } from '../random.ts';

/** One occurrence of a fault: what it may use, and how it says that it took effect. */
export interface Occurrence {
  readonly cluster: SimCluster;
  /** Its own: what one occurrence draws shifts no other. */
  readonly random: SeededRandom;
  /** Where clients run. */
  readonly clients: readonly string[];
  /** How long it is to last, in milliseconds. */
  readonly ms: number;
  /** The fault took effect: something went another way because of it. */
  bite(): void;
  /** Calls `end` after so many milliseconds (default `ms`), or when all is healed. */
  until(end: () => void, ms?: number): void;
  /** Starts a machine's process, unless it runs. */
  up(id: number): void;
}

export interface Fault {
  readonly name: string;
  /** For a person, a line. */
  readonly about: string;
  inflict(occurrence: Occurrence): void;
}

export function victimOf({ cluster, random }: Occurrence): SimMachine {
  return random.pick(cluster.machines);
}

export function otherBrokers(cluster: SimCluster, id: number): string[] {
  return cluster.machines.filter((machine) => machine.id !== id).map((machine) => hostOf(machine.id));
}

/** The atlas of damage: only the last machines' disks are ever damaged or lost, so that a majority keeps one good copy of everything. */
export function isOfMinority({ cluster }: Pick<Occurrence, 'cluster'>, { id }: SimMachine): boolean {
  const voters = Math.min(3, cluster.machines.length);
  return id > cluster.machines.length - Math.floor((voters - 1) / 2);
}
