import type { Fault } from './fault.ts';

/** What an operator does to the replicas of a topic while everything else breaks. */
export const membershipFaults: readonly Fault[] = [
  {
    name: 'membership',
    about: 'a topic’s replicas move to other brokers',
    waitsFor: 'an admin call that moves replicas',
    inflict: () => {},
  },
];
