/** How a seed's world misbehaves: drawn anew for each, so that some worlds are calm in one way and wild in another (swarm testing). */
import type { SeededRandom } from '../random.ts';

export interface Weather {
  readonly loss: number;
  readonly duplication: number;
  readonly reorder: number;
  readonly weights: readonly [action: Action, weight: number][];
}

export type Action =
  | 'deliver'
  | 'tick'
  | 'persist'
  | 'propose'
  | 'read'
  | 'crash'
  | 'restart'
  | 'cut'
  | 'depose'
  | 'heal'
  | 'transfer'
  | 'release'
  | 'drop'
  | 'snapshot'
  | 'supply'
  | 'calm'
  | 'hear'
  | 'hint'
  | 'members'
  | 'wipe';

export function drawWeather(random: SeededRandom, voters: number): Weather {
  const some = (most: number) => (random.chance(0.4) ? 0 : random.between(0, most));
  return {
    loss: some(0.3),
    duplication: some(0.3),
    reorder: some(1),
    weights: [
      ['deliver', 30 + voters * 15],
      ['tick', random.pick([10, 25, 40])],
      ['persist', random.pick([4, 15, 60])],
      ['propose', random.pick([0.3, 3, 8])],
      ['read', 3],
      ['crash', some(1)],
      ['restart', 1.5],
      ['cut', some(random.pick([0.3, 1]))],
      ['depose', some(0.4)],
      ['heal', random.pick([0.1, 0.5])],
      ['transfer', some(2)],
      ['release', some(4)],
      ['drop', random.pick([0, 1, 6])],
      ['supply', 4],
      ['calm', random.pick([0, 0.3, 1])],
      ['hear', some(6)],
      ['snapshot', 2],
      ['hint', some(1)],
      ['members', random.pick([0, 2, 12])],
      ['wipe', some(0.1)],
    ],
  };
}
