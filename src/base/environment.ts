/**
 * Everything impure that the broker and the client use, as interfaces. `src/platform` implements them with Node;
 * the simulation (`test/sim`) implements them on a virtual clock, network and disk. Nothing else may read a clock,
 * set a timer, draw a random number or touch a file.
 */
export interface Clock {
  /** Milliseconds, monotonic, with a fraction. For every timeout and measurement. */
  monotonicMs(): number;
  /** Milliseconds since the epoch. Only for record timestamps and what people read. */
  wallMs(): number;
}

export interface Timer {
  cancel(): void;
}

export interface Scheduler {
  /** Runs `task` once, `ms` from now. */
  after(ms: number, task: () => void): Timer;
  /** Runs `task` when the present task has ended, before any I/O. */
  soon(task: () => void): void;
  /** Runs `task` after the I/O that is already waiting, so that what arrived together is handled together. */
  nextTurn(task: () => void): void;
}

export interface Random {
  /** A uniform 32-bit unsigned integer. */
  uint32(): number;
}

/** A uniform integer in [0, bound). */
export function randomBelow(random: Random, bound: number): number {
  return Math.floor((random.uint32() / 2 ** 32) * bound);
}

export interface Environment extends Clock, Scheduler, Random {}

/**
 * A disk: the subset of file operations that storage stands on. Every promise rejects with the system's error (`code` is
 * 'EIO', 'ENOSPC', …). Nothing is durable before {@link DiskFile.sync}; a created, renamed or removed name is not
 * durable before {@link Disk.syncDirectory} (hazard B26).
 */
export interface Disk {
  /** How many files and sockets the process may have open. Undefined: no limit is known. */
  readonly openFileLimit?: number | undefined;
  /** Opens for reading and writing; `create` makes the file when it is missing. */
  open(path: string, options: { create: boolean }): Promise<DiskFile>;
  makeDirectory(path: string): Promise<void>;
  /** Names in the directory, sorted; an empty list when it does not exist. */
  list(path: string): Promise<string[]>;
  exists(path: string): Promise<boolean>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Removes a directory and all in it. No error when it is not there. */
  removeTree(path: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
  /** Of the file system that holds the path. */
  freeSpace(path: string): Promise<DiskSpace>;
  /**
   * Takes the directory's lock (a file `lock` in it) for this process; rejects with DATA_DIRECTORY naming the holder.
   * The lock of a process that died is taken over.
   */
  lock(path: string): Promise<DiskLock>;
}

export interface DiskSpace {
  /** What this process may still write. */
  readonly freeBytes: number;
  readonly totalBytes: number;
}

export interface DiskFile {
  size(): Promise<number>;
  /**
   * Reads exactly `length` bytes unless the file ends before; the result is owned by the caller. With `room`, of at least so many bytes, it is read
   * into that, and the result is a view of it.
   */
  read(position: number, length: number, room?: Uint8Array): Promise<Uint8Array>;
  /** Writes all bytes of all buffers at `position`. The buffers must not be changed until it resolves (hazard B42). */
  write(position: number, buffers: readonly Uint8Array[]): Promise<void>;
  /** Makes all earlier writes durable (fdatasync). A rejection is final: the process must end (hazard B25). */
  sync(): Promise<void>;
  truncate(length: number): Promise<void>;
  close(): Promise<void>;
}

export interface DiskLock {
  release(): Promise<void>;
}

/**
 * Applied state of replicated state machines: an ordered map of bytes. `level` in production, memory in simulation.
 * Both pass one contract test.
 */
export interface StateStore {
  get(key: string): Promise<Uint8Array | undefined>;
  /** Entries with `prefix`, in key order. */
  entries(prefix: string): Promise<[key: string, value: Uint8Array][]>;
  /** All operations or none, durable when it resolves. */
  write(operations: readonly StateOperation[]): Promise<void>;
  close(): Promise<void>;
}

export type StateOperation = { readonly key: string; readonly value: Uint8Array | undefined };

export interface LogFields {
  readonly [name: string]: unknown;
}

/** Structured logging: one event a line. */
export interface Logger {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
  child(fields: LogFields): Logger;
}

export const silentLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLogger,
};
