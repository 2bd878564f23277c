/** A file system of a few megabytes, for real processes: a tmpfs in a mount namespace of its own, so that nothing of it outlives the test. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TemporaryDirectory, until } from '../processes.ts';

/** Root may mount; who is not can be root of a user namespace, where the kernel lets him. */
const isRoot = process.getuid?.() === 0;
const unshare = isRoot ? ['unshare', '--mount'] : ['unshare', '--user', '--map-root-user', '--mount'];
const enter = isRoot ? ['nsenter', '--mount'] : ['nsenter', '--user', '--preserve-credentials', '--mount'];

export class SmallFileSystem implements AsyncDisposable {
  readonly #where = new TemporaryDirectory();
  /** A process that does nothing but keep the namespace. */
  readonly #keeper: ChildProcess;

  private constructor(megabytes: number) {
    const script = `mount -t tmpfs -o size=${megabytes}m tmpfs "$1" && echo mounted && exec sleep 86400`;
    const [file = '', ...args] = [...unshare, 'sh', '-c', script, 'sh', this.path];
    this.#keeper = spawn(file, args, { stdio: 'pipe' });
  }

  static async mount(megabytes: number): Promise<SmallFileSystem> {
    const made = new SmallFileSystem(megabytes);
    let said = '';
    for (const stream of [made.#keeper.stdout, made.#keeper.stderr])
      stream?.on('data', (chunk: Buffer) => {
        said += chunk.toString();
      });
    await until(() => said.includes('mounted') || made.#keeper.exitCode !== null);
    if (!said.includes('mounted')) throw new Error(`no file system can be mounted here: ${said}`);
    return made;
  }

  /** Why none can be mounted here; undefined: it can. */
  static missing(): string | undefined {
    const [file = '', ...args] = [...unshare, 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'];
    const { status, stderr, error } = spawnSync(file, args, { encoding: 'utf8' });
    return status === 0 ? undefined : (error?.message ?? stderr.trim());
  }

  /** As the processes within see it. */
  get path(): string {
    return this.#where.path;
  }

  /** A command that runs another one where the file system is. */
  get within(): readonly string[] {
    return [...enter, '--target', String(this.#keeper.pid), '--'];
  }

  get freeBytes(): number {
    const { bsize, bavail } = statfsSync(this.#outside());
    return bsize * bavail;
  }

  /** A file of zeros, of whoever else is on this disk. */
  fill(name: string, bytes: number): void {
    writeFileSync(this.#outside(name), new Uint8Array(bytes));
  }

  remove(name: string): void {
    rmSync(this.#outside(name), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#keeper.kill('SIGKILL');
    this.#where[Symbol.dispose]();
  }

  #outside(...names: string[]): string {
    return join(`/proc/${this.#keeper.pid}/root`, this.path, ...names);
  }
}
