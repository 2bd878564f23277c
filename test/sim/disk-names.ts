/** The names on a simulated disk, and what a crash leaves of their changes. */
import { type Random, randomBelow } from '../../src/base/environment.ts';
import type { Inode } from './disk-inode.ts';

/** Paths with their inodes, and the children of each directory: listing and moving must not look at all the disk's names. */
export class Names {
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

  /** Unless it is of an inode that was made later than `newest`. */
  delete(path: string, newest = Number.POSITIVE_INFINITY): void {
    if ((this.get(path)?.number ?? 0) > newest) return;
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

  /** What was made later than `newest` stays: it is in another directory, which has got the name meanwhile. */
  move(from: string, to: string, newest: number): void {
    for (const path of this.treeOf(from)) {
      const inode = this.get(path);
      if (inode === undefined || inode.number > newest) continue;
      this.delete(path);
      this.set(to + path.slice(from.length), inode);
    }
  }

  /** Whether all directories above the path are there as well. */
  reaches(path: string): boolean {
    for (let name = path; name !== ''; name = parentOf(name)) if (!this.has(name)) return false;
    return true;
  }

  entries(): IterableIterator<[string, Inode]> {
    return this.#inodes.entries();
  }

  inodes(): Iterable<Inode> {
    return this.#inodes.values();
  }
}

/** A change of names that is not durable before the directories that it touches are synced. */
export interface NameChange {
  readonly directories: readonly string[];
  apply(names: Names): void;
}

/** What a crash leaves of the changes: of each directory a prefix of its own, whatever became of the others. */
export function survivors(changes: readonly NameChange[], random: Random): NameChange[] {
  const counts = new Map<string, number>();
  for (const { directories } of changes) for (const directory of directories) counts.set(directory, (counts.get(directory) ?? 0) + 1);
  const left = new Map<string, number>();
  for (const [directory, count] of counts) left.set(directory, randomBelow(random, count + 1));
  return changes.filter(({ directories }) => {
    const survives = directories.every((directory) => (left.get(directory) ?? 0) > 0);
    // What comes after a lost change of a directory is lost with it.
    for (const directory of directories) left.set(directory, survives ? (left.get(directory) ?? 0) - 1 : 0);
    return survives;
  });
}

export function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '' : path.slice(0, slash);
}

export function normalize(path: string): string {
  if (!/^\/|\/$|\/\/|(^|\/)\.(\/|$)/.test(path)) return path;
  return path
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/');
}
