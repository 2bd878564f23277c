import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Client, connect } from '../src/client/index.ts';
import { DevCluster } from './dev-cluster.ts';
import { makeTopic, measureGap } from './measures.ts';

const STALL_MS = 5_000;
const LOOK_MS = 20;

export interface Stall {
  /** Until another broker led the partition. */
  readonly movedMs: number;
  readonly gapMs: number;
}

/**
 * What becomes of a partition when its leader's disk, and no other, ends no sync for five seconds, on real processes. Undefined where it can't be made: on
 * Linux, a C compiler (`cc`) makes what is loaded into the brokers.
 */
export async function measureStalledDisk(): Promise<Stall | undefined> {
  const directory = mkdtempSync(join(tmpdir(), 'flotilla-stall-'));
  try {
    const library = join(directory, 'stalled-disk.so');
    const source = fileURLToPath(new URL('stalled-disk.c', import.meta.url));
    const compiled = spawnSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, source, '-ldl']);
    if (process.platform !== 'linux' || compiled.status !== 0) return undefined;
    await using cluster = await DevCluster.start({ env: { LD_PRELOAD: library, STALL_DIRECTORY: directory }, quiet: true });
    await using client = await connect({ bootstrap: cluster.bootstrap });
    await makeTopic(client, 'stall');
    let moved: Promise<number> = Promise.resolve(0);
    const { gapMs } = await measureGap(client, 'stall', (leader) => {
      const stalled = join(directory, String(cluster.pid(leader)));
      writeFileSync(stalled, '');
      setTimeout(() => rmSync(stalled, { force: true }), STALL_MS);
      moved = untilMoved(client, leader);
    });
    return { movedMs: await moved, gapMs };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function untilMoved(client: Client, from: number): Promise<number> {
  const started = performance.now();
  for (;;) {
    const { partitions } = await client.admin.describeTopic('stall');
    const leader = partitions[0]?.leader ?? 0;
    const elapsed = performance.now() - started;
    if ((leader !== 0 && leader !== from) || elapsed > STALL_MS) return elapsed;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}
