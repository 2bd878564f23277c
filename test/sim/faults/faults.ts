import { diskFaults } from './disk.ts';
import type { Fault } from './fault.ts';
import { logFaults } from './log.ts';
import { membershipFaults } from './membership.ts';
import { networkFaults } from './network.ts';
import { processFaults } from './process.ts';

/** Every fault that there is, by name. The order decides what a seed draws: new ones come last in their file, and change all seeds. */
export const FAULTS: ReadonlyMap<string, Fault> = new Map(
  [...processFaults, ...networkFaults, ...diskFaults, ...membershipFaults, ...logFaults].map((fault) => [fault.name, fault]),
);
