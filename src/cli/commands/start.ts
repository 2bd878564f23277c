/** `flotilla start`: one broker, as production runs it. */
import { flushCompileCache } from 'node:module';
import { FlotillaError, messageOf } from '../../base/errors.ts';
import { loadConfig } from '../../broker/config.ts';
import { tuneHeap } from '../../platform/heap.ts';
import { openLogger } from '../../platform/logger.ts';
import { composeBroker } from '../compose.ts';
import { type ConfigOptions, readSources } from '../config-file.ts';
import { Parent } from '../dev/parent.ts';
import { Exit, explain } from '../failures.ts';
import type { Session } from '../session.ts';

/** For leaderships to be handed over and everything to be synced. */
const STOP_TIMEOUT_MS = 10_000;
/** After the broker is ready, when it has time for it. */
const SAVE_COMPILED_MS = 2_000;

export async function start(session: Session, options: ConfigOptions): Promise<void> {
  tuneHeap();
  const parent = Parent.find();
  const log = openLogger();
  const fatal = (error: unknown): never => {
    parent?.failed(messageOf(error));
    log.error('broker.failed', error instanceof FlotillaError ? { reason: error.message, code: error.code } : { error });
    process.exit(Exit.failed);
  };
  process.on('uncaughtException', fatal);
  process.on('unhandledRejection', fatal);
  parent?.onGone(() => session.interrupt());
  try {
    const config = loadConfig(await readSources(options, session.streams.env));
    const broker = await composeBroker(config, log, fatal);
    const ready = broker.ready(session.signal).then(
      () => {
        log.info('broker.ready', { brokerId: broker.brokerId, addresses: [...broker.addresses.values()], pid: process.pid });
        parent?.ready();
        // Node saves it at a clean end only; a broker that is killed shall be back as fast.
        setTimeout(flushCompileCache, SAVE_COMPILED_MS).unref();
      },
      (error: unknown) => (session.signal.aborted ? undefined : fatal(error)),
    );
    await interrupted(session.signal);
    await broker.stop(STOP_TIMEOUT_MS);
    await ready;
  } catch (error) {
    parent?.failed(explain(error));
    throw error;
  }
}

function interrupted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
