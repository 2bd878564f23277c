/** No action of the specification explains an event. */
export class Rejected extends Error {}

export function must(condition: boolean, reason: string): asserts condition {
  if (!condition) throw new Rejected(reason);
}
