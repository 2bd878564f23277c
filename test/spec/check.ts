/** Checks traces in files: those of one broker in one file, its processes one after another. */
import { createReadStream, existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { TraceChecker } from './cluster.ts';
import { parseLine, type TraceEvent } from './trace.ts';

export interface Checked {
  readonly checker: TraceChecker;
  /** Half lines, which killed processes left. */
  readonly torn: number;
}

/** Throws Rejected at the first event that the specification does not explain. */
export async function checkFiles(files: readonly string[]): Promise<Checked> {
  const checker = new TraceChecker();
  let torn = 0;
  for (const file of files) {
    if (!existsSync(file)) throw new Error(`no trace: ${file}`);
    for await (const line of createInterface({ input: createReadStream(file) })) {
      if (line === '') continue;
      const event = parsed(line);
      if (event === undefined) torn++;
      else checker.check(event);
    }
  }
  return { checker, torn };
}

function parsed(line: string): TraceEvent | undefined {
  try {
    return parseLine(line);
  } catch {
    return undefined;
  }
}
