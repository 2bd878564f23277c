/** Faults of the disk below real processes: disk-faults.c, built, and its rules, which may change while they run. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SOURCE = new URL('disk-faults.c', import.meta.url).pathname;

export class DiskFaults implements Disposable {
  /** What the processes must have, so that their files below the given directory are hit. */
  readonly environment: Readonly<Record<string, string>>;
  readonly #directory = mkdtempSync(join(tmpdir(), 'flotilla-faults-'));
  readonly #rules = join(this.#directory, 'rules');

  /** @param below the beginning of the paths of the files that rules are for. Errors: there is no C compiler. */
  constructor(below: string) {
    const library = join(this.#directory, 'disk-faults.so');
    execFileSync('cc', ['-O2', '-shared', '-fPIC', '-o', library, SOURCE, '-ldl', '-lpthread']);
    // libuv's io_uring would pass libc by.
    this.environment = { LD_PRELOAD: library, DISK_FAULTS_DIRECTORY: below, DISK_FAULTS: this.#rules, UV_USE_IO_URING: '0' };
  }

  /** In the place of all rules before; the format is disk-faults.c's. Without any, the disk is well. */
  set(...rules: readonly string[]): void {
    const aside = `${this.#rules}.new`;
    writeFileSync(aside, rules.map((rule) => `${rule}\n`).join(''));
    renameSync(aside, this.#rules);
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
