/** How a command ends: exit 0 done, 1 failed, 2 wrong usage; and what a person is told to do next. */
import { type ErrorCode, FlotillaError, messageOf } from '../base/errors.ts';

export const Exit = { done: 0, failed: 1, usage: 2 } as const;

/** The command line itself is wrong: exit 2. The message says what is right. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The command did not do all that was asked: exit 1. The message says what to do. */
export class Failure extends Error {
  override readonly name = 'Failure';
}

const nextSteps: Partial<Record<ErrorCode, string>> = {
  NETWORK_EXCEPTION: 'Is the cluster up? `flotilla dev` starts one here; --bootstrap host:port,… names another.',
  BROKER_NOT_AVAILABLE: 'Is the cluster up? `flotilla dev` starts one here; --bootstrap host:port,… names another.',
  UNKNOWN_TOPIC_OR_PARTITION: '`flotilla topic list` shows the topics, `flotilla topic create NAME` makes one.',
  BROKER_ID_NOT_REGISTERED: '`flotilla cluster describe` shows the brokers.',
  TOPIC_ALREADY_EXISTS: '`flotilla topic describe NAME` shows it.',
  INVALID_REPLICATION_FACTOR: '`flotilla cluster describe` shows the brokers.',
  REQUEST_TIMED_OUT: '`flotilla cluster describe` shows who is alive; then try again.',
  NOT_ENOUGH_REPLICAS: '`flotilla cluster describe` shows who is alive; then try again.',
  NOT_CONTROLLER: '`flotilla cluster describe` shows who leads the metadata quorum; then try again.',
  OFFSET_OUT_OF_RANGE: '`flotilla topic describe NAME` shows the offsets there are; --from beginning always works.',
  MESSAGE_TOO_LARGE: 'Raise message.max.bytes on the brokers, or send smaller records.',
};

/** What went wrong and what to do about it, as lines for stderr. */
export function explain(error: unknown): string {
  if (error instanceof FlotillaError) {
    const next = nextSteps[error.code];
    return next === undefined ? error.message : `${error.message}\n  ${next}`;
  }
  if (error instanceof UsageError || error instanceof Failure) return error.message;
  if (isSystemError(error)) return error.message;
  return `${messageOf(error)}\n  This is a defect of Flotilla; please report it with what follows.\n${error instanceof Error ? error.stack : ''}`;
}

/** The same for `--json`: one object a line. */
export function explainJson(error: unknown): string {
  const code = error instanceof FlotillaError ? error.code : error instanceof UsageError ? 'USAGE' : 'FAILED';
  const retriable = error instanceof FlotillaError && error.retriable;
  return JSON.stringify({ error: { code, retriable, message: messageOf(error) } });
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string';
}
