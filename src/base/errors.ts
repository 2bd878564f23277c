/**
 * The errors that people and clients see. Each maps one to one to a Kafka error code (protocol guide, "Error Codes"),
 * so that the Kafka-wire edge needs no table of its own; codes from 1000 up are Flotilla's own and reach Kafka clients as
 * the code in `kafka`.
 */
export const ErrorCodes = {
  UNKNOWN_SERVER_ERROR: { code: -1, retriable: false },
  OFFSET_OUT_OF_RANGE: { code: 1, retriable: false },
  CORRUPT_MESSAGE: { code: 2, retriable: true },
  UNKNOWN_TOPIC_OR_PARTITION: { code: 3, retriable: true },
  NOT_LEADER_OR_FOLLOWER: { code: 6, retriable: true },
  REQUEST_TIMED_OUT: { code: 7, retriable: true },
  BROKER_NOT_AVAILABLE: { code: 8, retriable: true },
  MESSAGE_TOO_LARGE: { code: 10, retriable: false },
  NETWORK_EXCEPTION: { code: 13, retriable: true },
  COORDINATOR_LOAD_IN_PROGRESS: { code: 14, retriable: true },
  NOT_COORDINATOR: { code: 16, retriable: true },
  INVALID_TOPIC_EXCEPTION: { code: 17, retriable: false },
  NOT_ENOUGH_REPLICAS: { code: 19, retriable: true },
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: { code: 20, retriable: true },
  INVALID_REQUIRED_ACKS: { code: 21, retriable: false },
  INVALID_TIMESTAMP: { code: 32, retriable: false },
  UNSUPPORTED_VERSION: { code: 35, retriable: false },
  TOPIC_ALREADY_EXISTS: { code: 36, retriable: false },
  INVALID_PARTITIONS: { code: 37, retriable: false },
  INVALID_REPLICATION_FACTOR: { code: 38, retriable: false },
  INVALID_REPLICA_ASSIGNMENT: { code: 39, retriable: false },
  INVALID_CONFIG: { code: 40, retriable: false },
  NOT_CONTROLLER: { code: 41, retriable: true },
  INVALID_REQUEST: { code: 42, retriable: false },
  OUT_OF_ORDER_SEQUENCE_NUMBER: { code: 45, retriable: false },
  DUPLICATE_SEQUENCE_NUMBER: { code: 46, retriable: false },
  INVALID_PRODUCER_EPOCH: { code: 47, retriable: false },
  UNKNOWN_PRODUCER_ID: { code: 59, retriable: false },
  REASSIGNMENT_IN_PROGRESS: { code: 60, retriable: true },
  STORAGE_ERROR: { code: 56, retriable: true },
  FENCED_LEADER_EPOCH: { code: 74, retriable: true },
  UNKNOWN_LEADER_EPOCH: { code: 75, retriable: true },
  UNSUPPORTED_COMPRESSION_TYPE: { code: 76, retriable: false },
  OFFSET_NOT_AVAILABLE: { code: 78, retriable: true },
  NO_REASSIGNMENT_IN_PROGRESS: { code: 85, retriable: false },
  INVALID_RECORD: { code: 87, retriable: false },
  THROTTLING_QUOTA_EXCEEDED: { code: 89, retriable: true },
  UNKNOWN_TOPIC_ID: { code: 100, retriable: true },
  DUPLICATE_BROKER_REGISTRATION: { code: 101, retriable: false },
  BROKER_ID_NOT_REGISTERED: { code: 102, retriable: true },
  INCONSISTENT_CLUSTER_ID: { code: 104, retriable: false },
  INELIGIBLE_REPLICA: { code: 107, retriable: true },
  /** The call's own AbortSignal fired. */
  ABORTED: { code: 1000, retriable: false },
  /** The handle was closed. */
  CLOSED: { code: 1001, retriable: false },
  /** The data directory is in use, foreign or unreadable. */
  DATA_DIRECTORY: { code: 1002, retriable: false },
  /** A port or socket could not be used. */
  LISTENER: { code: 1003, retriable: false },
} as const satisfies Record<string, { code: number; retriable: boolean }>;

export type ErrorCode = keyof typeof ErrorCodes;

const nameByNumber = new Map<number, ErrorCode>(Object.entries(ErrorCodes).map(([name, { code }]) => [code, name as ErrorCode]));

/**
 * An operating error: something that a person or a client can act on. `retriable` says whether the same call may succeed
 * later without anyone changing anything; `message` says what to do.
 */
export class FlotillaError extends Error {
  override readonly name = 'FlotillaError';
  readonly code: ErrorCode;
  readonly retriable: boolean;
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.retriable = ErrorCodes[code].retriable;
  }

  /** The number of the code on every wire. */
  get number(): number {
    return ErrorCodes[this.code].code;
  }

  /** The error for a number read off a wire; an unknown number keeps its message and is not retriable. */
  static fromNumber(number: number, message: string): FlotillaError {
    return new FlotillaError(nameByNumber.get(number) ?? 'UNKNOWN_SERVER_ERROR', message);
  }
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Passes on the first error alone: one failure is often found at several places, one after the other. */
export function once(failed: (error: Error) => void): (error: Error) => void {
  let told = false;
  return (error) => {
    if (told) return;
    told = true;
    failed(error);
  };
}
