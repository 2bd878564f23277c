import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const source = join(root, 'src');

/**
 * The import table: which rooms a room may import. A room's own files are always allowed. Imports point one way, so that a reader can take the
 * rooms from the bottom up, and so that the pure ones run in the simulator and in the client.
 */
const allowed: Record<string, readonly string[]> = {
  gen: [],
  base: [],
  record: ['base'],
  'raft/core': ['base'],
  platform: ['base', 'record'],
  storage: ['base', 'record', 'raft/core'],
  raft: ['base', 'raft/core', 'storage'],
  rsm: ['base', 'raft', 'raft/core'],
  metadata: ['base', 'rsm'],
  controller: ['base', 'gen', 'rpc/types', 'raft', 'raft/core', 'rsm', 'metadata'],
  broker: ['base', 'gen', 'rpc/types', 'record', 'raft', 'raft/core', 'storage', 'rsm', 'metadata', 'controller'],
  'rpc/types': [],
  rpc: ['base', 'gen', 'raft', 'rpc/types'],
  client: ['base', 'gen', 'record', 'rpc/types'],
  cli: ['base', 'gen', 'record', 'platform', 'rpc', 'rpc/types', 'client', 'broker', 'controller', 'storage', 'metadata'],
};
/** Composition roots: the one file of a room that may also reach for what is impure. */
const composition: Record<string, readonly string[]> = { 'client/connect.ts': ['platform', 'rpc'] };
/** Rooms that may use Node itself; all others get clocks, timers, disks and sockets by injection (design decision 10). */
const impure = ['platform', 'cli', 'rpc'];

function files(directory: string): string[] {
  return readdirSync(directory).flatMap((name) => {
    const path = join(directory, name);
    if (statSync(path).isDirectory()) return files(path);
    return path.endsWith('.ts') ? [path] : [];
  });
}

function roomOf(path: string): string {
  const place = relative(source, path).replaceAll('\\', '/');
  if (place.startsWith('raft/core/')) return 'raft/core';
  if (place === 'rpc/types.ts') return 'rpc/types';
  return place.split('/')[0] as string;
}

const sources = files(source);
const imports = sources.flatMap((path) => {
  const text = readFileSync(path, 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => ({ path, target: match[1] as string }));
});

describe('the house is in order', () => {
  test('imports point one way', () => {
    const wrong = imports.flatMap(({ path, target }) => {
      if (!target.startsWith('.')) return [];
      const from = roomOf(path);
      const to = roomOf(resolve(dirname(path), target));
      const extra = composition[relative(source, path).replaceAll('\\', '/')] ?? [];
      if (from === to || (allowed[from] ?? []).includes(to) || extra.includes(to)) return [];
      return [`${relative(root, path)} imports ${target}: ${from} may import only ${(allowed[from] ?? []).join(', ')}`];
    });
    expect(wrong).toEqual([]);
  });

  test('no fault can be injected into what ships: nothing of test/ is reached, and no source has a place for it', () => {
    const outside = imports.filter(
      ({ path, target }) => target.startsWith('.') && relative(source, resolve(dirname(path), target)).startsWith('..'),
    );
    expect(outside.map(({ path, target }) => `${relative(root, path)} imports ${target}`)).toEqual([]);
    const hooks =
      /\b(?:fail-?points?|inject(?:ed)?-?(?:faults?|errors?|failures?)|fault-?injection|nemesis|chaos|sabotage|Sim(?:Disk|Network|Cluster))\b/i;
    const hooked = sources.filter((path) => hooks.test(readFileSync(path, 'utf8')));
    expect(hooked.map((path) => relative(root, path))).toEqual([]);
  });

  test('every room is in the table', () => {
    expect([...new Set(sources.map(roomOf))].filter((room) => allowed[room] === undefined)).toEqual([]);
  });

  test('only platform, rpc and the command line use Node', () => {
    const wrong = imports.filter(({ path, target }) => target.startsWith('node:') && !impure.includes(roomOf(path)));
    expect(
      wrong.map(({ path, target }) => `${relative(root, path)} imports ${target}; take it by injection (src/base/environment.ts)`),
    ).toEqual([]);
  });

  test('no clock, timer or random number outside src/platform and the gRPC edge', () => {
    const pattern = /\b(?:Date\.now|new Date\(\)|Math\.random|setTimeout|setInterval|setImmediate|performance\.now|AbortSignal\.timeout)\b/;
    const wrong = sources
      .filter((path) => !['platform', 'cli', 'gen'].includes(roomOf(path)) && !/rpc[\\/]grpc-/.test(path))
      .filter((path) => pattern.test(readFileSync(path, 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')));
    expect(wrong.map((path) => relative(root, path))).toEqual([]);
  });

  test('the wall clock stamps records, tells their age, and decides nothing else (hazard B20)', () => {
    const stamps = ['base/environment.ts', 'broker/partition.ts', 'broker/produce.ts', 'broker/trusted-clock.ts', 'client/producer.ts'];
    const readers = sources
      .filter((path) => /\bwallMs\b/.test(readFileSync(path, 'utf8')))
      .map((path) => relative(source, path).replaceAll('\\', '/'));
    expect(readers.filter((path) => !path.startsWith('platform/'))).toEqual(stamps);
  });

  test('every room has a README', () => {
    const rooms = readdirSync(source).filter((name) => name !== 'gen' && statSync(join(source, name)).isDirectory());
    const missing = [...rooms, 'raft/core'].filter((room) => !readdirSync(join(source, room)).includes('README.md'));
    expect(missing).toEqual([]);
  });

  test('files stay readable: 600 lines at most', () => {
    const long = sources
      .filter((path) => roomOf(path) !== 'gen')
      .map((path) => ({ path: relative(root, path), lines: readFileSync(path, 'utf8').split('\n').length }))
      .filter(({ lines }) => lines > 600);
    expect(long).toEqual([]);
  });

  test('nothing is skipped, and nothing is named for what it is not', () => {
    const names = sources.map((path) => relative(source, path)).filter((path) => /(?:utils?|helpers?|manager|impl)\b/i.test(path));
    expect(names).toEqual([]);
    const skipped = files(join(root, 'test')).filter((path) =>
      /\b(?:it|test|describe)\.(?:skip|only|todo)\(/.test(readFileSync(path, 'utf8')),
    );
    expect(skipped.map((path) => relative(root, path))).toEqual([]);
  });
});
