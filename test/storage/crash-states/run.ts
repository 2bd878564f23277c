/** Takes after-crash states of workloads, seed by seed, and opens each with the real recovery. */
import { messageOf } from '../../../src/base/errors.ts';
import { Fixture } from '../fixture.ts';
import { verify } from './model.ts';
import { type CrashState, CrashWorkload } from './workload.ts';

/** Steps of one seed's workload. */
const STEPS = 150;
const SHARE = 0.2;

export interface OpenStatesOptions {
  readonly states: number;
  readonly seed: number;
  readonly progress?: (opened: number, seed: number) => void;
}

/** Returns how many were opened. @throws with the seed and the step of the first that lost something. */
export async function openStates({ states, seed: first, progress }: OpenStatesOptions): Promise<number> {
  let opened = 0;
  for (let seed = first; opened < states; seed++) {
    const workload = new CrashWorkload(seed, SHARE);
    await workload.start();
    for (let step = 1; step <= STEPS && opened < states; step++) {
      for (const state of await workload.step()) {
        await open(state, `seed ${seed}, step ${step}, before the ${state.before}`);
        opened++;
      }
      progress?.(opened, seed);
    }
  }
  return opened;
}

async function open({ disk, promises }: CrashState, where: string): Promise<void> {
  try {
    const storage = await new Fixture(1, { walFileBytes: 32 * 1024, walFiles: 2 }, disk).open();
    await verify(storage, promises);
    await storage.close();
  } catch (error) {
    throw new Error(`${where}: ${messageOf(error)}`, { cause: error });
  }
}
