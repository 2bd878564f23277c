import type { SimMachine } from '../cluster.ts';
import { allWhole } from '../convergence.ts';
import type { DiskOperation, Fate } from '../disk.ts';
import { type Fault, isOfMinority, type Occurrence, victimOf } from './fault.ts';

/** What a disk does besides forgetting at a power cut. After a failed write or sync the process must end by itself (hazard B25). */
export const diskFaults: readonly Fault[] = [
  { name: 'slowDisk', about: 'each operation of a disk takes long', inflict: slow },
  { name: 'stallDisk', about: 'a disk ends no operation for a while', inflict: (occurrence) => stall(occurrence, [victimOf(occurrence)]) },
  {
    name: 'stallAllDisks',
    about: 'all brokers share one disk, which stalls',
    inflict: (occurrence) => stall(occurrence, occurrence.cluster.machines),
  },
  { name: 'readError', about: 'EIO: reads fail for a while', inflict: (occurrence) => fail(occurrence, readsFail(occurrence)) },
  { name: 'writeError', about: 'EIO: one write fails, done in part', inflict: (occurrence) => fail(occurrence, once('write', 'EIO')) },
  {
    name: 'syncError',
    about: 'EIO: one fsync fails, and what it covered is clean and not durable',
    inflict: (occurrence) => fail(occurrence, once('sync', 'EIO')),
  },
  {
    name: 'directoryError',
    about: 'EIO: one fsync of a directory fails',
    inflict: (occurrence) => fail(occurrence, once('syncDirectory', 'EIO')),
  },
  {
    name: 'diskFull',
    about: 'ENOSPC: next to nothing grows for a while',
    inflict: fill,
  },
  {
    name: 'misdirect',
    about: 'a write goes to a wrong place of its file, on a minority of the disks',
    inflict: misdirect,
  },
  { name: 'rot', about: 'bits of a file flip, on a minority of the disks', inflict: rot },
];

function slow(occurrence: Occurrence): void {
  const { random, bite, until } = occurrence;
  const { disk } = victimOf(occurrence);
  const most = random.pick([20, 200, 1_500]);
  until(
    disk.slow(() => {
      bite();
      return random.between(0, most);
    }),
  );
}

/** A stall is long beside the other faults: elections must run their course in it. */
const STALL_FACTOR = 3;

function stall({ random, ms, bite, until }: Occurrence, machines: readonly SimMachine[]): void {
  const lastMs = random.chance(0.5) ? ms : ms * STALL_FACTOR;
  for (const { disk } of machines) until(disk.stall(bite), lastMs);
}

function fail(occurrence: Occurrence, fate: (operation: DiskOperation) => Fate): void {
  const { bite, until } = occurrence;
  const { disk } = victimOf(occurrence);
  until(
    disk.impose((operation) => {
      const met = fate(operation);
      if (met !== undefined) bite();
      return met;
    }),
  );
}

/** Bytes that are left: none, less than the reserve, or enough for a while. */
const LEFT_BYTES = [0, 20_000, 500_000];

function fill(occurrence: Occurrence): void {
  const { random, bite, until } = occurrence;
  until(victimOf(occurrence).disk.fill(random.pick(LEFT_BYTES), bite));
}

function once(kind: DiskOperation['kind'], code: Fate): (operation: DiskOperation) => Fate {
  let done = false;
  return (operation) => {
    if (done || operation.kind !== kind) return undefined;
    done = true;
    return code;
  };
}

function readsFail({ random }: Occurrence): (operation: DiskOperation) => Fate {
  const chance = random.pick([0.1, 1]);
  return ({ kind }) => (kind === 'read' && random.chance(chance) ? 'EIO' : undefined);
}

/** The one disk that is ever damaged, so that every byte has a good copy on the others: none of which is empty, and yet to be filled. */
function damageable({ cluster }: Occurrence): SimMachine | undefined {
  if (cluster.machines.some(({ wiped }) => wiped)) {
    if (!allWhole(cluster)) return undefined;
    for (const machine of cluster.machines) machine.wiped = false;
  }
  const copies = cluster.machines.flatMap(({ broker }) =>
    Array.from(broker?.replicas ?? [], ({ configuration }) => configuration.voters.length),
  );
  if (copies.some((count) => count < 3)) return undefined;
  return cluster.machines.find((machine) => isOfMinority({ cluster }, machine));
}

function misdirect(occurrence: Occurrence): void {
  const machine = damageable(occurrence);
  if (machine === undefined) return;
  const goesAstray = once('write', 'misdirect');
  const { bite, until } = occurrence;
  until(
    machine.disk.impose((operation) => {
      // A frame that nothing followed yet when the process ends is torn, as far as anybody can tell.
      const met = /\.wal$|directory/.test(operation.path) ? undefined : goesAstray(operation);
      if (met === undefined) return undefined;
      machine.rots = true;
      bite();
      return met;
    }),
  );
}

function rot(occurrence: Occurrence): void {
  const { random, bite } = occurrence;
  const machine = damageable(occurrence);
  if (machine === undefined) return;
  const { disk } = machine;
  if (random.chance(0.1)) rotState(occurrence, machine);
  const files = disk.files().filter((path) => disk.sizeOf(path) > 0 && !isLastCopy(path));
  if (files.length === 0) return;
  machine.rots = true;
  const path = random.pick(files);
  for (let bytes = random.pick([1, 16, 512]); bytes > 0; bytes--)
    disk.corrupt(path, random.below(disk.sizeOf(path)), 1 + random.below(255));
  bite();
}

/** Of the two files that say whose a directory is, one at most rots. */
function isLastCopy(path: string): boolean {
  return path.endsWith('directory.copy.json');
}

function rotState({ random, bite }: Occurrence, { stores }: SimMachine): void {
  for (const store of stores.values()) {
    void store.entries('').then(async (entries) => {
      if (entries.length === 0) return;
      const [key, value] = random.pick(entries);
      if (value.length === 0) return;
      const at = random.below(value.length);
      value[at] = (value[at] ?? 0) ^ (1 + random.below(255));
      await store.write([{ key, value }]);
      bite();
    });
  }
}
