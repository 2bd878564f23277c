/**
 * A disk in memory with the crash model of a real one, deterministic: completions come through the injected scheduler, choices from the injected
 * random numbers. What was written and not synced may survive a crash in any subset of 512-byte sectors; names that were created, renamed or
 * removed since their directory was synced survive as a prefix of those changes. A failed sync drops the writes it covered, though reads still
 * see them (fsyncgate). A buffer that changes while its write is in flight is an error (hazard B42).
 */
import { assert, must } from '../../src/base/assert.ts';
import { concat } from '../../src/base/bytes.ts';
import type { Disk, DiskFile, DiskLock, Random, Scheduler } from '../../src/base/environment.ts';
import { randomBelow } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';

const SECTOR = 512;

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
    | 'size'
    | 'read'
    | 'write'
    | 'sync'
    | 'truncate'
    | 'close'
    | 'lock';
  readonly path: string;
}

/** What an operation meets: 'crash' cuts the power while it is in flight; a system error's code makes it fail; undefined lets it be. */
export type Fate = 'crash' | 'EIO' | 'ENOSPC' | undefined;

type Change = { readonly position: number; readonly bytes: Uint8Array } | { readonly truncateTo: number };

class Inode {
  readonly directory: boolean;
  /** As reads see it. */
  content = new Uint8Array(0);
  size = 0;
  /** As a crash leaves it when no pending change survives. */
  durable = new Uint8Array(0);
  durableSize = 0;
  pending: Change[] = [];
  constructor(directory: boolean) {
    this.directory = directory;
  }
}

/** Paths with their inodes, and the children of each directory: listing and moving must not look at all the disk's names. */
class Names {
  readonly #inodes = new Map<string, Inode>();
  readonly #children = new Map<string, Set<string>>();

  constructor(entries: Iterable<readonly [path: string, inode: Inode]>) {
    for (const [path, inode] of entries) this.set(path, inode);
  }

  get(path: string): Inode | undefined {
    return this.#inodes.get(path);
  }

  has(path: string): boolean {
    return this.#inodes.has(path);
  }

  set(path: string, inode: Inode): void {
    this.#inodes.set(path, inode);
    if (path === '') return;
    const parent = parentOf(path);
    const siblings = this.#children.get(parent);
    if (siblings === undefined) this.#children.set(parent, new Set([path]));
    else siblings.add(path);
  }

  delete(path: string): void {
    if (this.#inodes.delete(path)) this.#children.get(parentOf(path))?.delete(path);
  }

  childrenOf(path: string): Iterable<string> {
    return this.#children.get(path) ?? [];
  }

  /** The path and all below it, parents first. */
  treeOf(path: string): string[] {
    const tree = [path];
    for (let at = 0; at < tree.length; at++) tree.push(...this.childrenOf(tree[at] ?? ''));
    return tree;
  }

  entries(): IterableIterator<[string, Inode]> {
    return this.#inodes.entries();
  }

  inodes(): Iterable<Inode> {
    return this.#inodes.values();
  }
}

type NameChange = { readonly directories: readonly string[]; apply(names: Names): void };

export class SimDisk implements Disk {
  /** Asked before each operation. */
  intercept: ((operation: DiskOperation) => Fate) | undefined;
  /** Milliseconds that an operation takes; 0: the next turn. */
  latencyMs: (operation: DiskOperation) => number = () => 0;
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
    const kept = randomBelow(this.#random, this.#nameChanges.length + 1);
    for (const change of this.#nameChanges.slice(0, kept)) change.apply(this.#durableNames);
    for (const inode of new Set([...this.#names.inodes(), ...this.#durableNames.inodes()])) this.#settle(inode);
    this.#names = new Names([...this.#durableNames.entries()].filter(([path]) => this.#reachable(path)));
    this.#durableNames = new Names(this.#names.entries());
    this.#nameChanges = [];
    this.#locks = new Set();
    this.off = false;
  }

  /** The process dies and the machine stays up: the page cache keeps what was written. */
  kill(): void {
    this.#life++;
    this.#locks = new Set();
    this.off = false;
  }

  /** Flips bits of a stored byte, durably: rot. */
  corrupt(path: string, position: number, mask = 0xff): void {
    const inode = must(this.#names.get(normalize(path)), 'no such file', path);
    assert(position < inode.size, 'position lies in the file', { path, position, size: inode.size });
    inode.content[position] = (inode.content[position] ?? 0) ^ mask;
    if (position < inode.durableSize) inode.durable[position] = (inode.durable[position] ?? 0) ^ mask;
  }

  /** The bytes of a file as a reader sees them. */
  bytes(path: string): Uint8Array {
    const inode = must(this.#names.get(normalize(path)), 'no such file', path);
    return inode.content.slice(0, inode.size);
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
    return this.#run('open', name, () => {
      let inode = this.#names.get(name);
      if (inode === undefined) {
        if (!options.create || !this.#names.get(parentOf(name))?.directory) throw systemError('ENOENT', name);
        const created = new Inode(false);
        inode = created;
        this.#change([parentOf(name)], (names) => names.set(name, created));
      }
      if (inode.directory) throw systemError('EISDIR', name);
      return new SimFile(this, name, inode, this.#life);
    });
  }

  makeDirectory(path: string): Promise<void> {
    const name = normalize(path);
    return this.#run('makeDirectory', name, () => {
      const parts = name.split('/');
      for (let depth = 1; depth <= parts.length; depth++) {
        const prefix = parts.slice(0, depth).join('/');
        if (prefix === '' || this.#names.has(prefix)) continue;
        const created = new Inode(true);
        this.#change([parentOf(prefix)], (names) => names.set(prefix, created));
      }
    });
  }

  list(path: string): Promise<string[]> {
    const name = normalize(path);
    return this.#run('list', name, () => {
      const children = Array.from(this.#names.childrenOf(name), (child) => child.slice(name === '' ? 0 : name.length + 1));
      return children.sort();
    });
  }

  exists(path: string): Promise<boolean> {
    const name = normalize(path);
    return this.#run('exists', name, () => this.#names.has(name));
  }

  rename(from: string, to: string): Promise<void> {
    const source = normalize(from);
    const target = normalize(to);
    return this.#run('rename', source, () => {
      if (!this.#names.has(source) || !this.#names.has(parentOf(target))) throw systemError('ENOENT', source);
      this.#change([parentOf(source), parentOf(target)], (names) => moveTree(names, source, target));
    });
  }

  remove(path: string): Promise<void> {
    const name = normalize(path);
    return this.#run('remove', name, () => {
      if (!this.#names.has(name)) throw systemError('ENOENT', name);
      this.#change([parentOf(name)], (names) => void names.delete(name));
    });
  }

  removeTree(path: string): Promise<void> {
    const name = normalize(path);
    return this.#run('removeTree', name, () => {
      if (!this.#names.has(name)) return;
      this.#change([parentOf(name)], (names) => {
        for (const child of names.treeOf(name)) names.delete(child);
      });
    });
  }

  syncDirectory(path: string): Promise<void> {
    const name = normalize(path);
    const covered = this.#nameChanges.filter((change) => change.directories.includes(name));
    return this.#run('syncDirectory', name, undefined, () => {
      for (const change of covered) change.apply(this.#durableNames);
      this.#nameChanges = this.#nameChanges.filter((change) => !covered.includes(change));
    });
  }

  lock(path: string): Promise<DiskLock> {
    const name = normalize(path);
    return this.#run('lock', name, () => {
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
    kind: DiskOperation['kind'],
    path: string,
    life: number,
    effect: (() => T) | undefined,
    completion?: (fate: Fate) => void,
  ): Promise<T> {
    if (this.off || life !== this.#life) return new Promise(() => {});
    const operation = { number: ++this.operations, kind, path };
    const fate = this.intercept?.(operation);
    return new Promise((resolve, reject) => {
      let result: T;
      try {
        result = effect?.() as T;
      } catch (error) {
        this.#complete(operation, life, () => reject(error));
        return;
      }
      if (fate === 'crash') {
        this.crash();
        return;
      }
      this.#complete(operation, life, () => {
        completion?.(fate);
        if (fate === undefined) resolve(result);
        else reject(systemError(fate, path));
      });
    });
  }

  #run<T>(kind: DiskOperation['kind'], path: string, effect: (() => T) | undefined, completion?: () => void): Promise<T> {
    return this.run(kind, path, this.#life, effect, (fate) => fate === undefined && completion?.());
  }

  #complete(operation: DiskOperation, life: number, complete: () => void): void {
    const task = (): void => {
      if (!this.off && life === this.#life) complete();
    };
    const latency = this.latencyMs(operation);
    if (latency > 0) this.#scheduler.after(latency, task);
    else this.#scheduler.nextTurn(task);
  }

  #change(directories: readonly string[], apply: (names: Names) => void): void {
    apply(this.#names);
    this.#nameChanges.push({ directories, apply });
  }

  #reachable(path: string): boolean {
    for (let name = path; name !== ''; name = parentOf(name)) if (!this.#durableNames.has(name)) return false;
    return true;
  }

  /** Each pending change survives whole, not at all, or (a write) in a random subset of its sectors. */
  #settle(inode: Inode): void {
    for (const change of inode.pending) {
      const choice = randomBelow(this.#random, 3);
      if (choice === 0) continue;
      if ('truncateTo' in change) applyDurable(inode, change);
      else if (choice === 1) applyDurable(inode, change);
      else
        for (const sector of sectorsOf(change.position, change.bytes)) if (randomBelow(this.#random, 2) === 0) applyDurable(inode, sector);
    }
    inode.pending = [];
    inode.content = inode.durable.slice();
    inode.size = inode.durableSize;
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
    return this.#run('size', () => this.#inode.size);
  }

  read(position: number, length: number, room?: Uint8Array): Promise<Uint8Array> {
    return this.#run('read', () => {
      const bytes = this.#inode.content.slice(position, Math.min(position + length, this.#inode.size));
      room?.set(bytes);
      return room?.subarray(0, bytes.length) ?? bytes;
    });
  }

  write(position: number, buffers: readonly Uint8Array[]): Promise<void> {
    const bytes = concat(buffers).slice();
    return this.#run(
      'write',
      () => {
        const change = { position, bytes };
        const grown = applyTo(this.#inode.content, this.#inode.size, change);
        this.#inode.content = grown.bytes;
        this.#inode.size = grown.size;
        this.#inode.pending.push(change);
        this.#disk.bytesWritten += bytes.length;
      },
      () => assert(sameBytes(concat(buffers), bytes), 'a buffer must not change while its write is in flight (B42)', this.#path),
    );
  }

  sync(): Promise<void> {
    const covered = this.#inode.pending.length;
    return this.#run('sync', undefined, (fate) => {
      const synced = this.#inode.pending.splice(0, covered);
      if (fate === undefined) for (const change of synced) applyDurable(this.#inode, change);
    });
  }

  truncate(length: number): Promise<void> {
    return this.#run('truncate', () => {
      const change = { truncateTo: length };
      const cut = applyTo(this.#inode.content, this.#inode.size, change);
      this.#inode.content = cut.bytes;
      this.#inode.size = cut.size;
      this.#inode.pending.push(change);
    });
  }

  close(): Promise<void> {
    assert(this.#inFlight === 0, 'a file is not closed while it is used: its descriptor may be another file’s at once', this.#path);
    return this.#run('close', () => {
      this.#closed = true;
    });
  }

  async #run<T>(kind: DiskOperation['kind'], effect: (() => T) | undefined, completion?: (fate: Fate) => void): Promise<T> {
    assert(!this.#closed, 'the file is open', { kind, path: this.#path });
    this.#inFlight++;
    try {
      return await this.#disk.run(kind, this.#path, this.#life, effect, completion);
    } finally {
      this.#inFlight--;
    }
  }
}

function applyDurable(inode: Inode, change: Change): void {
  const grown = applyTo(inode.durable, inode.durableSize, change);
  inode.durable = grown.bytes;
  inode.durableSize = grown.size;
}

function applyTo(bytes: Uint8Array<ArrayBuffer>, size: number, change: Change): { bytes: Uint8Array<ArrayBuffer>; size: number } {
  if ('truncateTo' in change) {
    const target = reserve(bytes, change.truncateTo);
    if (change.truncateTo < size) target.fill(0, change.truncateTo, size);
    return { bytes: target, size: change.truncateTo };
  }
  const end = change.position + change.bytes.length;
  const target = reserve(bytes, end);
  target.set(change.bytes, change.position);
  return { bytes: target, size: Math.max(size, end) };
}

function reserve(bytes: Uint8Array<ArrayBuffer>, size: number): Uint8Array<ArrayBuffer> {
  if (bytes.length >= size) return bytes;
  const grown = new Uint8Array(Math.max(size, bytes.length * 2, 4096));
  grown.set(bytes);
  return grown;
}

function* sectorsOf(position: number, bytes: Uint8Array): Generator<{ position: number; bytes: Uint8Array }> {
  let at = 0;
  while (at < bytes.length) {
    const next = Math.min(bytes.length, at + SECTOR - ((position + at) % SECTOR));
    yield { position: position + at, bytes: bytes.subarray(at, next) };
    at = next;
  }
}

function moveTree(names: Names, from: string, to: string): void {
  for (const path of names.treeOf(from)) {
    const inode = names.get(path);
    if (inode === undefined) continue;
    names.delete(path);
    names.set(to + path.slice(from.length), inode);
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function normalize(path: string): string {
  if (!/^\/|\/$|\/\/|(^|\/)\.(\/|$)/.test(path)) return path;
  return path
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/');
}

function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '' : path.slice(0, slash);
}

function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
