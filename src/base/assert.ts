/**
 * A broken invariant. It is never caught: the process ends with the state that shows why,
 * because going on with a broken invariant is how acknowledged data gets lost.
 */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
  readonly state: unknown;
  constructor(message: string, state?: unknown) {
    super(state === undefined ? message : `${message}: ${describe(state)}`);
    this.state = state;
  }
}

/** Asserts an invariant in production too. `state` is printed when it does not hold; pass what shows why. */
export function assert(condition: boolean, message: string, state?: unknown): asserts condition {
  if (!condition) throw new InvariantError(message, state);
}

/** The value, asserted to be there. For look-ups that an invariant guarantees. */
export function must<T>(value: T | undefined | null, message: string, state?: unknown): T {
  if (value === undefined || value === null) throw new InvariantError(message, state);
  return value;
}

/** Marks a branch that the types make unreachable. */
export function unreachable(value: never): never {
  throw new InvariantError('unreachable', value);
}

function describe(state: unknown): string {
  try {
    return JSON.stringify(state, (_key, value: unknown) => {
      if (typeof value === 'bigint') return `${value}n`;
      if (value instanceof Uint8Array) return `<${value.length} bytes>`;
      if (value instanceof Map) return Object.fromEntries(value);
      return value;
    }).slice(0, 4096);
  } catch {
    return String(state);
  }
}
