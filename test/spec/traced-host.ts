/**
 * The Raft host of a real broker, whose cores tell what they do: a line an event, appended to `broker-N.ndjson` in the directory that FLOTILLA_TRACE names. A
 * line is written before anything follows from its event, so a kill loses none that another broker heard of.
 */
import { openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createRaftHost as createHost, type RaftHostOptions } from '../../src/raft/raft-host.ts';
import type { RaftHost } from '../../src/raft/types.ts';
import { recorded } from './recorder.ts';
import { lineOf } from './trace.ts';

export function createRaftHost(options: RaftHostOptions): RaftHost {
  const file = openSync(join(process.env['FLOTILLA_TRACE'] ?? '.', `broker-${options.brokerId}.ndjson`), 'a');
  // A process that was killed may have left half a line.
  writeSync(file, '\n');
  return createHost({ ...options, makeCore: recorded((event) => writeSync(file, `${lineOf(event)}\n`)) });
}
