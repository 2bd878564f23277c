/** The rows of the hazard table that have no mutant yet, and what they wait for. */

/** B01 to B42. */
export const HAZARDS = 42;

export const WAITING: Readonly<Record<string, string>> = {
  B33: 'transactions',
  B35: 'consumer groups: there is no coordinator of them yet, so no commit of a zombie',
};
