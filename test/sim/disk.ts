/**
 * A disk in memory with the crash model of a real one, deterministic: completions come through the injected scheduler, choices from the injected
 * random numbers. What was written and not synced may survive a crash in any subset of 512-byte sectors; of the names that were created, renamed or
 * removed since their directory was synced, a prefix of each directory's changes survives. A failed sync drops the writes it covered, though reads
 * still see them (fsyncgate). A buffer that changes while its write is in flight is an error (hazard B42).
 */
import { assert, must } from '../../src/base/assert.ts';
import { concat } from '../../src/base/bytes.ts';
import type { Disk, DiskFile, DiskLock, DiskSpace, Random, Scheduler } from '../../src/base/environment.ts';
import { randomBelow } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import { Inode, newestInode, SECTOR_BYTES } from './disk-inode.ts';
import { type NameChange, Names, normalize, parentOf, survivors } from './disk-names.ts';

export interface DiskOperation {
  /** Counts from 1, over the disk's life. */
  readonly number: number;
  readonly kind:
    | 'open'
    | 'makeDirectory'
    | 'list'
    | 'exists'
    | 'rename'
    | 'remove'
    | 'removeTree'
    | 'syncDirectory'
    | 'freeSpace'
    | 'size'
    | 'read'
    | 'write'
    | 'sync'
    | 'truncate'
    | 'close'
    | 'lock';
  readonly path: string;
  /** Bytes of room that it needs and the disk has not given yet. */
  readonly growth: number;
}

/**
 * What an operation meets: 'crash' cuts the power while it is in flight; a system error's code makes it fail; 'misdirect' puts a write to a wrong
 * place, and nobody hears of it; undefined lets it be.
 */
export type Fate = 'crash' | 'EIO' | 'ENOSPC' | 'misdirect' | undefined;
export type Intercept = (operation: DiskOperation) => Fate;

/** Of a disk that nothing fills. */
const CAPACITY_BYTES = 2 ** 40;
/** What a new name takes. */
const NAME_BYTES = 1;

export class SimDisk implements Disk {
  /** Asked before each operation. */
  intercept: Intercept | undefined;
  /** Milliseconds that an operation takes; 0: the next turn. */
  latencyMs: (operation: DiskOperation) => number = () => 0;
  /** Reads and writes take their effect when they begin or when they end, by chance: several that are under way have no order. */
  disorderly = false;
  /** Told of each range of a file that has become durable. */
  onDurable: ((path: string, inode: Inode, position: number, length: number) => void) | undefined;
  operations = 0;
  /** True between the power cut and {@link restart}. */
  off = false;
  bytesWritten = 0;
  openFileLimit: number | undefined;

  readonly #scheduler: Scheduler;
  readonly #random: Random;
  #names = new Names([['', new Inode(true)]]);
  #durableNames = new Names(this.#names.entries());
  #nameChanges: NameChange[] = [];
  #locks = new Set<string>();
  #life = 0;
  readonly #faults = new Set<Intercept>();
  readonly #slowness = new Set<() => number>();
  readonly #fillings = new Set<{ readonly capacity: number; told(): void }>();
  readonly #stalls = new Set<{ held(): void }>();
  /** Completions that a stall holds back. */
  #held: (() => void)[] = [];

  constructor(scheduler: Scheduler, random: Random) {
    this.#scheduler = scheduler;
    this.#random = random;
  }

  /** Cuts the power: operations in flight, and all later ones, never complete. */
  crash(): void {
    this.off = true;
    this.#life++;
  }

  /** Applies the crash model; the disk then serves the next process. Files still open from before stay dead. */
  restart(): void {
    this.off = true;
    this.#life++;
    for (const change of survivors(this.#nameChanges, this.#random)) change.apply(this.#durableNames);
    const paths = new Map([...this.#names.entries(), ...this.#durableNames.entries()].map(([path, inode]) => [inode, path]));
    for (const [inode, path] of paths) {
      inode.settle(this.#random, (position, length) => this.onDurable?.(path, inode, position, length));
    }
    this.#names = new Names([...this.#durableNames.entries()].filter(([path]) => this.#durableNames.reaches(path)));
    this.#durableNames = new Names(this.#names.entries());
    this.#nameChanges = [];
    this.#locks = new Set();
    this.off = false;
  }

  /** What a power cut at this moment could leave, as a disk of its own: one of the legal states, by the random numbers, torn at sectors of that size. */
  afterPowerCut(scheduler: Scheduler, random: Random, sectorBytes = SECTOR_BYTES): SimDisk {
    const names = new Names(this.#durableNames.entries());
    for (const change of survivors(this.#nameChanges, random)) change.apply(names);
    const copies = new Map<Inode, Inode>();
    const copyOf = (inode: Inode): Inode => {
      const copy = copies.get(inode) ?? inode.settledCopy(random, sectorBytes);
      copies.set(inode, copy);
      return copy;
    };
    const left = new SimDisk(scheduler, random);
    for (const [path, inode] of names.entries()) if (names.reaches(path)) left.#names.set(path, copyOf(inode));
    left.#durableNames = new Names(left.#names.entries());
    return left;
  }

  /** The process dies and the machine stays up: the page cache keeps what was written. */
  kill(): void {
    this.#life++;
    this.#locks = new Set();
    this.off = false;
  }

  /** Another that is asked before each operation, until the function that this returns is called. */
  impose(fault: Intercept): () => void {
    this.#faults.add(fault);
    return () => void this.#faults.delete(fault);
  }

  /** Each operation takes so much longer, until the function that this returns is called. */
  slow(extraMs: () => number): () => void {
    this.#slowness.add(extraMs);
    return () => void this.#slowness.delete(extraMs);
  }

  /** No operation ends any more, until the function that this returns is called. `held` is told of each that is held back. */
  stall(held: () => void = () => {}): () => void {
    const stall = { held };
    this.#stalls.add(stall);
    return () => {
      if (!this.#stalls.delete(stall) || this.#stalls.size > 0) return;
      for (const task of this.#held.splice(0)) this.#scheduler.nextTurn(task);
    };
  }

  /** Others have written the file system full but for so many bytes, until the function that this returns is called. `told` of each operation that fails. */
  fill(freeBytes: number, told: () => void = () => {}): () => void {
    const filling = { capacity: this.usedBytes + freeBytes, told };
    this.#fillings.add(filling);
    return () => void this.#fillings.delete(filling);
  }

  get usedBytes(): number {
    return [...new Set(this.#names.inodes())].reduce((sum, inode) => sum + inode.size, 0);
  }

  get isStalled(): boolean {
    return this.#stalls.size > 0;
  }

  /** Flips bits of a stored byte, durably: rot. */
  corrupt(path: string, position: number, mask = 0xff): void {
    const inode = this.#inode(path);
    assert(position < inode.size, 'position lies in the file', { path, position, size: inode.size });
    inode.corrupt(position, mask);
  }

  /** The bytes of a file as a reader sees them. */
  bytes(path: string): Uint8Array {
    return this.#inode(path).content.slice();
  }

  sizeOf(path: string): number {
    return this.#inode(path).size;
  }

  /** Every file's path, sorted. */
  files(): string[] {
    return [...this.#names.entries()]
      .filter(([, inode]) => !inode.directory)
      .map(([path]) => path)
      .sort();
  }

  open(path: string, options: { create: boolean }): Promise<DiskFile> {
    const name = normalize(path);
    return this.#run('open', name, options.create && !this.#names.has(name) ? NAME_BYTES : 0, () => {
      let inode = this.#names.get(name);
      if (inode === undefined) {
        if (!options.create || !this.#names.get(parentOf(name))?.directory) throw systemError('ENOENT', name);
        inode = new Inode(false);
        this.#add(name, inode);
      }
      if (inode.directory) throw systemError('EISDIR', name);
      return new SimFile(this, name, inode, this.#life);
    });
  }

  makeDirectory(path: string): Promise<void> {
    const name = normalize(path);
    return this.#run('makeDirectory', name, this.#names.has(name) ? 0 : NAME_BYTES, () => {
      const parts = name.split('/');
      for (let depth = 1; depth <= parts.length; depth++) {
        const prefix = parts.slice(0, depth).join('/');
        if (prefix === '' || this.#names.has(prefix)) continue;
        this.#add(prefix, new Inode(true));
      }
    });
  }

  list(path: string): Promise<string[]> {
    const name = normalize(path);
    return this.#run('list', name, 0, () => {
      const children = Array.from(this.#names.childrenOf(name), (child) => child.slice(name === '' ? 0 : name.length + 1));
      return children.sort();
    });
  }

  exists(path: string): Promise<boolean> {
    const name = normalize(path);
    return this.#run('exists', name, 0, () => this.#names.has(name));
  }

  rename(from: string, to: string): Promise<void> {
    const source = normalize(from);
    const target = normalize(to);
    return this.#run('rename', source, 0, () => {
      if (!this.#names.has(source) || !this.#names.has(parentOf(target))) throw systemError('ENOENT', source);
      const newest = newestInode();
      this.#change([parentOf(source), parentOf(target)], (names) => names.move(source, target, newest));
    });
  }

  remove(path: string): Promise<void> {
    const name = normalize(path);
    return this.#run('remove', name, 0, () => {
      if (!this.#names.has(name)) throw systemError('ENOENT', name);
      const newest = newestInode();
      this.#change([parentOf(name)], (names) => names.delete(name, newest));
    });
  }

  removeTree(path: string): Promise<void> {
    const name = normalize(path);
    return this.#run('removeTree', name, 0, () => {
      if (!this.#names.has(name)) return;
      const newest = newestInode();
      this.#change([parentOf(name)], (names) => {
        for (const child of names.treeOf(name)) names.delete(child, newest);
      });
    });
  }

  syncDirectory(path: string): Promise<void> {
    const name = normalize(path);
    const covered = new Set(this.#nameChanges.filter((change) => change.directories.includes(name)));
    return this.#run('syncDirectory', name, 0, undefined, () => {
      // One that another sync made durable meanwhile is not applied again, over what came after it.
      for (const change of this.#nameChanges) if (covered.has(change)) change.apply(this.#durableNames);
      this.#nameChanges = this.#nameChanges.filter((change) => !covered.has(change));
    });
  }

  freeSpace(path: string): Promise<DiskSpace> {
    return this.#run('freeSpace', normalize(path), 0, () => {
      const used = this.usedBytes;
      const capacity = Math.min(CAPACITY_BYTES, ...Array.from(this.#fillings, (filling) => filling.capacity));
      return { freeBytes: Math.max(0, capacity - used), totalBytes: CAPACITY_BYTES };
    });
  }

  lock(path: string): Promise<DiskLock> {
    const name = normalize(path);
    return this.#run('lock', name, 0, () => {
      if (this.#locks.has(name)) throw new FlotillaError('DATA_DIRECTORY', `${path} is in use by process 1; stop that broker first`);
      this.#locks.add(name);
      return {
        release: async () => {
          this.#locks.delete(name);
        },
      };
    });
  }

  /** Runs an operation: `effect` at once, `completion` when it completes. For {@link SimFile} too. */
  run<T>(
    operation: Omit<DiskOperation, 'number'>,
    life: number,
    effect: ((fate: Fate) => T) | undefined,
    completion?: (fate: Fate) => void,
  ): Promise<T> {
    if (this.off || life !== this.#life) return new Promise(() => {});
    const numbered = { ...operation, number: ++this.operations };
    const fate = this.#fateOf(numbered);
    const late = this.disorderly && (operation.kind === 'read' || operation.kind === 'write') && randomBelow(this.#random, 2) === 0;
    return new Promise((resolve, reject) => {
      let result: T;
      try {
        if (!late) result = effect?.(fate) as T;
      } catch (error) {
        this.#complete(numbered, life, () => reject(error));
        return;
      }
      if (fate === 'crash') {
        this.crash();
        return;
      }
      this.#complete(numbered, life, () => {
        if (late) result = effect?.(fate) as T;
        completion?.(fate);
        if (fate === undefined || fate === 'misdirect') resolve(result);
        else reject(systemError(fate, `injected, ${operation.kind} of ${operation.path}`));
      });
    });
  }

  /** Of a write that fails or goes astray: how much of it, or how far. */
  draw(bound: number): number {
    return randomBelow(this.#random, bound);
  }

  #run<T>(kind: DiskOperation['kind'], path: string, growth: number, effect: (() => T) | undefined, completion?: () => void): Promise<T> {
    // What fails takes no effect; a power cut, in contrast, may come after it.
    const applied =
      effect &&
      ((fate: Fate) => {
        if (fate === undefined || fate === 'crash') return effect();
        return undefined as T;
      });
    return this.run({ kind, path, growth }, this.#life, applied, (fate) => fate === undefined && completion?.());
  }

  #fateOf(operation: DiskOperation): Fate {
    if (operation.growth > 0) {
      for (const { capacity, told } of this.#fillings) {
        if (this.usedBytes + operation.growth <= capacity) continue;
        told();
        return 'ENOSPC';
      }
    }
    const fate = this.intercept?.(operation);
    if (fate !== undefined || this.#faults.size === 0) return fate;
    for (const fault of this.#faults) {
      const met = fault(operation);
      if (met !== undefined) return met;
    }
    return undefined;
  }

  #complete(operation: DiskOperation, life: number, complete: () => void): void {
    const task = (): void => {
      if (this.off || life !== this.#life) return;
      if (this.#stalls.size === 0) {
        complete();
        return;
      }
      this.#held.push(task);
      for (const stall of this.#stalls) stall.held();
    };
    let latency = this.latencyMs(operation);
    for (const extraMs of this.#slowness) latency += extraMs();
    if (latency > 0) this.#scheduler.after(latency, task);
    else this.#scheduler.nextTurn(task);
  }

  #change(directories: readonly string[], apply: (names: Names) => void): void {
    apply(this.#names);
    this.#nameChanges.push({ directories, apply });
  }

  #add(name: string, inode: Inode): void {
    const directory = parentOf(name);
    const made = this.#names.get(directory)?.number ?? 0;
    this.#change([directory], (names) => {
      // Where another directory has got the name meanwhile, this is none of its changes.
      if ((names.get(directory)?.number ?? 0) <= made) names.set(name, inode);
    });
  }

  #inode(path: string): Inode {
    return must(this.#names.get(normalize(path)), 'no such file', path);
  }
}

class SimFile implements DiskFile {
  readonly #disk: SimDisk;
  readonly #path: string;
  readonly #inode: Inode;
  readonly #life: number;
  #closed = false;
  #inFlight = 0;
  constructor(disk: SimDisk, path: string, inode: Inode, life: number) {
    this.#disk = disk;
    this.#path = path;
    this.#inode = inode;
    this.#life = life;
  }

  size(): Promise<number> {
    return this.#run('size', 0, () => this.#inode.size);
  }

  read(position: number, length: number, room?: Uint8Array): Promise<Uint8Array> {
    return this.#run('read', 0, () => {
      const bytes = this.#inode.read(position, length);
      room?.set(bytes);
      return room?.subarray(0, bytes.length) ?? bytes;
    });
  }

  write(position: number, buffers: readonly Uint8Array[]): Promise<void> {
    const given = concat(buffers);
    const bytes = given.slice();
    const growth = Math.max(0, position + bytes.length - this.#inode.size);
    return this.#run(
      'write',
      growth,
      (fate) => {
        this.#disk.bytesWritten += bytes.length;
        this.#inode.change(this.#placed(position, bytes, fate));
      },
      () =>
        assert(
          sameBytes(buffers.length === 1 ? given : concat(buffers), bytes),
          'a buffer must not change while its write is in flight (B42)',
          this.#path,
        ),
    );
  }

  sync(): Promise<void> {
    const covered = this.#inode.changes;
    return this.#run('sync', 0, undefined, (fate) => {
      this.#inode.synced(covered, fate !== undefined, (position, length) =>
        this.#disk.onDurable?.(this.#path, this.#inode, position, length),
      );
    });
  }

  truncate(length: number): Promise<void> {
    return this.#run('truncate', Math.max(0, length - this.#inode.size), (fate) => {
      if (fate === undefined || fate === 'crash') this.#inode.change({ truncateTo: length });
    });
  }

  close(): Promise<void> {
    assert(this.#inFlight === 0, 'a file is not closed while it is used: its descriptor may be another file’s at once', this.#path);
    return this.#run('close', 0, () => {
      this.#closed = true;
    });
  }

  /** A write that failed was done in part; one that went astray is elsewhere in its file. */
  #placed(position: number, bytes: Uint8Array, fate: Fate): { position: number; bytes: Uint8Array } {
    if (fate === 'EIO' || fate === 'ENOSPC') return { position, bytes: bytes.subarray(0, this.#disk.draw(bytes.length + 1)) };
    if (fate !== 'misdirect') return { position, bytes };
    const sectors = Math.max(1, Math.ceil(this.#inode.size / SECTOR_BYTES));
    return { position: this.#disk.draw(sectors) * SECTOR_BYTES + (position % SECTOR_BYTES), bytes };
  }

  async #run<T>(
    kind: DiskOperation['kind'],
    growth: number,
    effect: ((fate: Fate) => T) | undefined,
    completion?: (fate: Fate) => void,
  ): Promise<T> {
    assert(!this.#closed, 'the file is open', { kind, path: this.#path });
    this.#inFlight++;
    try {
      return await this.#disk.run({ kind, path: this.#path, growth }, this.#life, effect, completion);
    } finally {
      this.#inFlight--;
    }
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
