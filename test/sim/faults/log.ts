import { METADATA_GROUP } from '../../../src/base/ids.ts';
import { isOfDisk } from '../cluster.ts';
import { type Fault, type Occurrence, victimOf } from './fault.ts';

/** What a broker does with its own logs, at the worst of times. */
export const logFaults: readonly Fault[] = [
  {
    name: 'dropLog',
    about: 'a controller drops the beginning of the metadata’s log, as far as a snapshot covers it: who lags needs that snapshot',
    inflict: dropLog,
  },
];

function dropLog(occurrence: Occurrence): void {
  const { cluster, random, bite } = occurrence;
  const { broker, environment } = victimOf(occurrence);
  if (broker === undefined || environment?.killed !== false) return;
  const replica = [...broker.replicas].find(({ group }) => group === METADATA_GROUP);
  if (replica === undefined) return;
  const { log } = replica;
  const before = log.firstReplicableIndex;
  // Beyond its end: all of it, with a snapshot taken for it.
  const index = random.chance(0.5) ? log.lastIndex + 1 : 1 + random.below(log.lastIndex + 1);
  log.dropBefore(index).then(
    (first) => {
      if (first > before) bite();
    },
    (error: Error) => {
      if (!environment.killed && !isOfDisk(error)) cluster.failures.push(error);
    },
  );
}
