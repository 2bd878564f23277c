/**
 * The command line. Everything but the names of the commands and their options is imported when a command runs, so that
 * `flotilla --help` and a broker's start load no more than they need.
 */
import { enableCompileCache } from 'node:module';
import type { Streams } from './io.ts';
import type { Connect } from './session.ts';

enableCompileCache();

/** Runs one command and ends the process with its exit code. `argv` is without the executable and the script. */
export async function run(argv: readonly string[]): Promise<never> {
  const { stdin, stdout, stderr, env } = process;
  stderr.on('error', () => {}); // Nobody listens: there is nobody to tell.
  const code = await execute(argv, { stdin, stdout, stderr, env }, connectSdk, (interrupt) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
    onSecondInterrupt(() => {
      stderr.write('flotilla: ended at once, since Ctrl-C came again\n');
      process.exit(1);
    });
  });
  process.exit(code);
}

/** {@link run} without the process: returns the exit code. `onInterrupt` is given what a signal should call. */
export async function execute(
  argv: readonly string[],
  streams: Streams,
  connect: Connect,
  onInterrupt: (interrupt: () => void) => void = () => {},
): Promise<number> {
  const { parse } = await import('./program.ts');
  const parsed = await parse(argv, streams);
  if (typeof parsed === 'number') return parsed;
  const { Session } = await import('./session.ts');
  const session = new Session(streams, connect, parsed.options);
  onInterrupt(() => session.interrupt());
  return session.run(parsed.command);
}

/** One Ctrl-C may come twice within milliseconds: from the terminal, and from npm, which hands it on. */
const SECOND_INTERRUPT_MS = 500;

/** A person who presses Ctrl-C again does not want to wait for a clean end: acknowledgements alone may take two minutes. */
function onSecondInterrupt(end: () => void): void {
  process.once('SIGINT', () => {
    setTimeout(() => process.on('SIGINT', end), SECOND_INTERRUPT_MS).unref();
  });
}

async function connectSdk(bootstrap: string, signal: AbortSignal) {
  const { connectCluster } = await import('./sdk.ts');
  return connectCluster(bootstrap, signal);
}

if (import.meta.main) await run(process.argv.slice(2));
