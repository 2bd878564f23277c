import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { checkFiles } from '../spec/check.ts';
import type { Cluster } from './cluster.ts';

/** What the brokers' Raft replicas did, judged by the specification (test/spec) when all is over. Made before the brokers, which inherit the environment. */
export class BrokerTrace {
  readonly directory = mkdtempSync(join(tmpdir(), 'flotilla-trace-'));

  constructor() {
    const preload = pathToFileURL(join(import.meta.dirname, '../spec/preload.ts')).href;
    process.env['FLOTILLA_TRACE'] = this.directory;
    process.env['NODE_OPTIONS'] = [process.env['NODE_OPTIONS'], `--import=${preload}`].filter(Boolean).join(' ');
  }

  /** What the specification does not allow: nothing, or one thing. */
  async check({ ids, brokers }: Cluster): Promise<string[]> {
    await Promise.all(brokers.map((broker) => broker.kill()));
    const files = ids.map((id) => join(this.directory, `broker-${id}.ndjson`)).filter((file) => existsSync(file));
    try {
      const { checker, torn } = await checkFiles(files);
      console.log(
        `the specification of Raft explains all ${checker.events} events of ${files.length} traces (${torn} lines torn by kills)`,
      );
      return files.length === ids.length && checker.events > 0 ? [] : ['a broker left no trace'];
    } catch (error) {
      return [error instanceof Error ? error.message : String(error)];
    }
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
