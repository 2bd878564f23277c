/** The rows of the hazard table that have no mutant yet, and what they wait for. */

/** B01 to B42. */
export const HAZARDS = 42;

export const WAITING: Readonly<Record<string, string>> = {
  B33: 'transactions',
};
