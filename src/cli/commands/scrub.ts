/** `flotilla log scrub [--now]`: what the brokers' search for rot in their segments found, and what became of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { createColors } from 'picocolors';
import type { ClusterAdmin } from '../client.ts';
import { Failure } from '../failures.ts';
import { byteSize, count, integerText } from '../format.ts';
import { Progress } from '../progress.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';

export interface ScrubOptions {
  readonly now?: boolean;
}

type Scrub = Awaited<ReturnType<ClusterAdmin['scrub']>>[number];

/** Between two looks at how far the brokers are. */
const LOOK_MS = 250;
/** What is damaged is put right in that time, or is reported as it is. */
const REPAIR_MS = 10_000;

export async function scrubLogs(session: Session, options: ScrubOptions): Promise<void> {
  await using client = await session.connect();
  const scrubs = options.now === true ? await passOf(session, client.admin) : await client.admin.scrub(false, session.signal);
  if (session.json) await session.out.json(scrubs.map(({ error, ...scrub }) => ({ ...scrub, error: error?.message ?? null })));
  else await tell(session, scrubs);
  const silent = scrubs.filter(({ error }) => error !== undefined);
  const bad = scrubs.flatMap(({ findings }) => findings.filter(({ repaired }) => !repaired));
  if (bad.length > 0)
    throw new Failure(
      `${count(bad.length, 'damaged place')} not put right yet: the brokers go on asking the other replicas. \`flotilla raft list --problems\` tells what they lack.`,
    );
  if (silent.length > 0) throw new Failure(`${silent.map(({ brokerId }) => `broker ${brokerId}`).join(', ')} did not answer.`);
}

/** Begins a pass on each broker, and waits for its end, and for what it found to be put right. */
async function passOf(session: Session, admin: ClusterAdmin): Promise<readonly Scrub[]> {
  const before = new Map(
    (await admin.scrub(true, session.signal)).map(({ brokerId, pass, running }) => [brokerId, running ? pass - 1 : pass]),
  );
  let scrubs: readonly Scrub[] = [];
  let done = 0;
  const progress = new Progress(session.streams, 'segments read', () => done);
  try {
    let waitedMs = 0;
    for (;;) {
      await sleep(LOOK_MS, undefined, { signal: session.signal });
      scrubs = await admin.scrub(false, session.signal);
      done = scrubs.reduce((sum, { segmentsDone }) => sum + segmentsDone, 0);
      const isRead = scrubs.every(
        ({ brokerId, error, pass, running }) => error !== undefined || (!running && pass > (before.get(brokerId) ?? -1)),
      );
      if (!isRead) continue;
      const isRepaired = scrubs.every(({ findings }) => findings.every(({ repaired }) => repaired));
      waitedMs += LOOK_MS;
      if (isRepaired || waitedMs >= REPAIR_MS) return scrubs;
    }
  } finally {
    progress.end();
  }
}

async function tell(session: Session, scrubs: readonly Scrub[]): Promise<void> {
  const { red } = createColors(session.colour);
  const rows = scrubs.map(
    ({ brokerId, error, pass, running, segments, segmentsDone, bytesDone, findings, entriesDamaged, entriesRepaired }) =>
      error !== undefined
        ? [brokerId, red(`no answer: ${error.message}`), '', '', '', '']
        : [
            brokerId,
            pass === 0 ? 'none yet' : running ? `${integerText(segmentsDone)} of ${integerText(segments)}` : integerText(segmentsDone),
            byteSize(bytesDone),
            findings.length === 0 ? 0 : red(integerText(findings.length)),
            integerText(entriesDamaged),
            integerText(entriesRepaired),
          ],
  );
  const head = ['BROKER', 'SEGMENTS READ', 'SIZE', 'DAMAGED PLACES', 'ENTRIES DAMAGED', 'REPAIRED'];
  await session.out.line(table(head, rows, session.colour));
  for (const { brokerId, findings } of scrubs) {
    for (const { group, file, position, what, repaired } of findings) {
      await session.out.line(`broker ${brokerId}, ${group}: ${file}:${position}: ${what}: ${repaired ? 'repaired' : red('not repaired')}`);
    }
  }
}
