import { allWhole } from '../convergence.ts';
import { type Fault, type Occurrence, victimOf } from './fault.ts';

const HOUR_MS = 3_600_000;

/** What happens to a process, its clock and its machine. */
export const processFaults: readonly Fault[] = [
  {
    name: 'kill',
    about: 'kill -9 of a broker; the page cache stays',
    inflict: (occurrence) => end(occurrence, [victimOf(occurrence).id], 'kill'),
  },
  {
    name: 'killAll',
    about: 'kill -9 of all brokers, which come back one by one',
    inflict: (occurrence) => end(occurrence, all(occurrence), 'kill'),
  },
  {
    name: 'powerCut',
    about: 'a machine loses its power, and of what it has not synced any subset of sectors and names',
    inflict: (occurrence) => end(occurrence, [victimOf(occurrence).id], 'powerCut'),
  },
  {
    name: 'powerCutAll',
    about: 'all machines lose their power at once',
    inflict: (occurrence) => end(occurrence, all(occurrence), 'powerCut'),
  },
  { name: 'stop', about: 'a broker is asked to stop, and killed when that takes too long', inflict: stop },
  { name: 'pause', about: 'SIGSTOP of a broker', inflict: (occurrence) => pause(occurrence, [victimOf(occurrence).id]) },
  { name: 'pauseAll', about: 'all brokers are stopped and go on at once', inflict: (occurrence) => pause(occurrence, all(occurrence)) },
  { name: 'slowLoop', about: "each turn of a broker's event loop takes milliseconds", inflict: slowLoop },
  {
    name: 'clockJump',
    about: "a broker's wall clock jumps by up to a minute",
    inflict: (occurrence) => skew(occurrence, () => occurrence.random.between(-60_000, 60_000)),
  },
  {
    name: 'clockHour',
    about: "a broker's wall clock jumps by an hour, either way",
    inflict: (occurrence) => skew(occurrence, () => occurrence.random.pick([-HOUR_MS, HOUR_MS])),
  },
  { name: 'clockStrobe', about: "a broker's wall clock jumps to and fro", inflict: strobe },
  {
    name: 'wipe',
    about: 'a broker that is no controller comes back with an empty disk, as soon as all replicas are whole',
    inflict: (occurrence) => wipe(occurrence),
  },
];

const all = ({ cluster }: Occurrence) => cluster.machines.map(({ id }) => id);

function end({ cluster, random, ms, bite, until, up }: Occurrence, ids: readonly number[], how: 'kill' | 'powerCut'): void {
  for (const id of ids) {
    if (cluster.isUp(id)) bite();
    if (how === 'kill') cluster.kill(id);
    else cluster.powerCut(id);
    until(() => up(id), ids.length === 1 ? ms : random.between(0, ms));
  }
}

/** A clean stop has a deadline; a stop from outside may come before it. */
const STOP_DEADLINE_MS = 10_000;

function stop(occurrence: Occurrence): void {
  const { cluster, random, ms, bite, until, up } = occurrence;
  const { id, broker, environment } = victimOf(occurrence);
  if (broker === undefined || environment === undefined || environment.killed || environment.stopping) return;
  bite();
  environment.stopping = true;
  void broker.stop(STOP_DEADLINE_MS);
  const endMs = random.between(0, STOP_DEADLINE_MS * 1.1);
  until(() => {
    if (!environment.killed) cluster.kill(id);
    until(() => up(id), ms);
  }, endMs);
}

function pause({ cluster, ms, bite, until }: Occurrence, ids: readonly number[]): void {
  for (const id of ids) {
    const { environment } = cluster.machine(id);
    if (environment === undefined || environment.killed) continue;
    const { deferred } = environment;
    cluster.pause(id, ms);
    until(() => {
      if (environment.deferred > deferred) bite();
    });
  }
}

function slowLoop(occurrence: Occurrence): void {
  const { random, bite, until } = occurrence;
  const { environment } = victimOf(occurrence);
  if (environment === undefined || environment.killed) return;
  const most = random.pick([0.5, 5, 20]);
  const { deferred } = environment;
  environment.turnMs = () => random.between(0, most);
  until(() => {
    environment.turnMs = undefined;
    if (environment.deferred > deferred) bite();
  });
}

function skew(occurrence: Occurrence, draw: () => number): void {
  const { bite, until } = occurrence;
  const { environment } = victimOf(occurrence);
  if (environment === undefined || environment.killed) return;
  environment.wallSkewMs = draw();
  const { wallReads } = environment;
  until(() => {
    if (environment.wallReads > wallReads) bite();
  });
}

function strobe(occurrence: Occurrence): void {
  const { random, ms, bite, until } = occurrence;
  const { environment } = victimOf(occurrence);
  if (environment === undefined || environment.killed) return;
  const { wallReads } = environment;
  const everyMs = Math.max(20, ms / 50);
  for (let at = everyMs; at < ms; at += everyMs) {
    until(() => {
      environment.wallSkewMs = random.between(-HOUR_MS, HOUR_MS);
    }, at);
  }
  until(() => {
    environment.wallSkewMs = 0;
    if (environment.wallReads > wallReads) bite();
  });
}

/** How often it is looked whether all is whole, in milliseconds, and how many times: then nothing comes of it. */
const WHOLE_EVERY_MS = 200;
const WHOLE_LOOKS = 100;

/** Members of the metadata quorum do not change yet, so its voters keep their disks. One disk at a time: what two disks of three held is lost for good. */
function wipe(occurrence: Occurrence, looks = WHOLE_LOOKS): void {
  const { cluster, random, ms, bite, until, up } = occurrence;
  // What rots on one disk and was lost with another would be two of three.
  const isBad = cluster.machines.some(({ rots }) => rots);
  const candidates = cluster.machines.filter(
    ({ id, broker, rots }) => broker !== undefined && !cluster.isController(id) && (rots || !isBad),
  );
  if (candidates.length > 0 && allWhole(cluster)) {
    const { id } = random.pick(candidates);
    cluster.wipe(id);
    bite();
    until(() => up(id), ms);
    return;
  }
  const next = cluster.time.nowMs + WHOLE_EVERY_MS;
  const again = () => {
    // Before its time it is called when all is healed, and then nothing more may break.
    if (cluster.time.nowMs >= next) wipe(occurrence, looks - 1);
  };
  if (looks > 0 && cluster.machines.some(({ id }) => !cluster.isController(id))) until(again, WHOLE_EVERY_MS);
}
