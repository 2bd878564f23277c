/**
 * An immutable map with structural sharing: a change costs a path of at most seven small nodes, whatever the map's size.
 * A hash array mapped trie (Bagwell, "Ideal Hash Trees", 2001), five bits of the key's hash a level. Iteration order depends on
 * the keys alone, except where two 32-bit hashes collide.
 */
export class PersistentMap<K extends string, V> implements ReadonlyMap<K, V> {
  readonly #root: Node<K, V>;
  readonly size: number;

  private constructor(root: Node<K, V>, size: number) {
    this.#root = root;
    this.size = size;
  }

  static empty<K extends string, V>(): PersistentMap<K, V> {
    return new PersistentMap<K, V>(EMPTY, 0);
  }

  static from<K extends string, V>(entries: Iterable<readonly [K, V]>): PersistentMap<K, V> {
    if (entries instanceof PersistentMap) return entries;
    let map = PersistentMap.empty<K, V>();
    for (const [key, value] of entries) map = map.with(key, value);
    return map;
  }

  get(key: K): V | undefined {
    return find(this.#root, hashOf(key), key)?.value;
  }

  has(key: K): boolean {
    return find(this.#root, hashOf(key), key) !== undefined;
  }

  with(key: K, value: V): PersistentMap<K, V> {
    const hash = hashOf(key);
    const added = find(this.#root, hash, key) === undefined ? 1 : 0;
    return new PersistentMap(insert(this.#root, 0, { hash, key, value }), this.size + added);
  }

  without(key: K): PersistentMap<K, V> {
    const hash = hashOf(key);
    if (find(this.#root, hash, key) === undefined) return this;
    return new PersistentMap(remove(this.#root, 0, hash, key) ?? EMPTY, this.size - 1);
  }

  forEach(visit: (value: V, key: K, map: ReadonlyMap<K, V>) => void): void {
    for (const [key, value] of this) visit(value, key, this);
  }

  *entries(): Generator<[K, V], undefined> {
    for (const { key, value } of leaves(this.#root)) yield [key, value];
  }

  *keys(): Generator<K, undefined> {
    for (const { key } of leaves(this.#root)) yield key;
  }

  *values(): Generator<V, undefined> {
    for (const { value } of leaves(this.#root)) yield value;
  }

  [Symbol.iterator](): Generator<[K, V], undefined> {
    return this.entries();
  }
}

interface Leaf<K, V> {
  readonly hash: number;
  readonly key: K;
  readonly value: V;
}

/** `bitmap` has a bit for each child; with all hash bits used up (depth 7), `children` are the leaves that collide and it is 0. */
interface Node<K, V> {
  readonly bitmap: number;
  readonly children: readonly (Node<K, V> | Leaf<K, V>)[];
}

const EMPTY: Node<never, never> = { bitmap: 0, children: [] };
const BITS = 5;
const DEPTH = 7;

/** FNV-1a over UTF-16 units, finished as MurmurHash3 does. */
function hashOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

function bitAt(hash: number, depth: number): number {
  return 1 << ((hash >>> (depth * BITS)) & 31);
}

function slotOf(bitmap: number, bit: number): number {
  return popCount(bitmap & (bit - 1));
}

function popCount(bits: number): number {
  let n = bits - ((bits >>> 1) & 0x55555555);
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333);
  return Math.imul((n + (n >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

function isLeaf<K, V>(child: Node<K, V> | Leaf<K, V>): child is Leaf<K, V> {
  return 'key' in child;
}

function find<K, V>(root: Node<K, V>, hash: number, key: K): Leaf<K, V> | undefined {
  let node = root;
  for (let depth = 0; depth < DEPTH; depth++) {
    const bit = bitAt(hash, depth);
    if ((node.bitmap & bit) === 0) return undefined;
    const child = node.children[slotOf(node.bitmap, bit)];
    if (child === undefined) return undefined;
    if (isLeaf(child)) return child.key === key ? child : undefined;
    node = child;
  }
  return node.children.find((child): child is Leaf<K, V> => isLeaf(child) && child.key === key);
}

function insert<K, V>(node: Node<K, V>, depth: number, leaf: Leaf<K, V>): Node<K, V> {
  if (depth === DEPTH) {
    const others = node.children.filter((child) => isLeaf(child) && child.key !== leaf.key);
    return { bitmap: 0, children: [...others, leaf] };
  }
  const bit = bitAt(leaf.hash, depth);
  const slot = slotOf(node.bitmap, bit);
  const present = (node.bitmap & bit) === 0 ? undefined : node.children[slot];
  if (present === undefined) return { bitmap: node.bitmap | bit, children: node.children.toSpliced(slot, 0, leaf) };
  if (!isLeaf(present)) return { bitmap: node.bitmap, children: node.children.with(slot, insert(present, depth + 1, leaf)) };
  if (present.key === leaf.key) return { bitmap: node.bitmap, children: node.children.with(slot, leaf) };
  const split = insert(insert<K, V>(EMPTY, depth + 1, present), depth + 1, leaf);
  return { bitmap: node.bitmap, children: node.children.with(slot, split) };
}

/** Undefined: nothing is left. The key is there. */
function remove<K, V>(node: Node<K, V>, depth: number, hash: number, key: K): Node<K, V> | undefined {
  if (depth === DEPTH) {
    const children = node.children.filter((child) => isLeaf(child) && child.key !== key);
    return children.length === 0 ? undefined : { bitmap: 0, children };
  }
  const bit = bitAt(hash, depth);
  const slot = slotOf(node.bitmap, bit);
  const child = node.children[slot];
  if (child === undefined) return node;
  const rest = isLeaf(child) ? undefined : remove(child, depth + 1, hash, key);
  if (rest === undefined) {
    return node.children.length === 1 ? undefined : { bitmap: node.bitmap & ~bit, children: node.children.toSpliced(slot, 1) };
  }
  // A lone leaf moves up, so that equal sets of keys make equal tries.
  const only = rest.children[0];
  const lifted = rest.children.length === 1 && only !== undefined && isLeaf(only) ? only : rest;
  return { bitmap: node.bitmap, children: node.children.with(slot, lifted) };
}

function* leaves<K, V>(node: Node<K, V>): Generator<Leaf<K, V>, undefined> {
  for (const child of node.children) {
    if (isLeaf(child)) yield child;
    else yield* leaves(child);
  }
}
