/**
 * A broker, put together: data directory, cluster, storage, raft host, metadata, controller, partitions, services. Everything impure comes
 * in with {@link BrokerOptions}, so this very broker runs in production and in simulation.
 */
import { FlotillaError, messageOf, once } from '../base/errors.ts';
import type { BrokerId } from '../base/ids.ts';
import type { MetadataImage } from '../metadata/image.ts';
import type { Replica } from '../raft/types.ts';
import { type Assembly, assemble, type BrokerOptions, disassemble, type Served } from './assembly.ts';
import type { BrokerConfig } from './config.ts';
import { within } from './deadline.ts';
import { handOver, passOnUntil } from './hand-over.ts';
import { type Home, identifyHandler, openHome } from './home.ts';
import { until } from './image-wait.ts';
import type { Scrubber } from './scrubber.ts';
import { Switchboard } from './switchboard.ts';

export type { BrokerOptions, Serve, Served, ServedTransport } from './assembly.ts';

export interface Broker {
  readonly brokerId: BrokerId;
  /** `host:port` that others are told, by listener name. */
  readonly addresses: ReadonlyMap<string, string>;
  /** Resolves once the broker is a live member of its cluster. Rejects with why it can't be, or ABORTED. */
  ready(signal: AbortSignal): Promise<void>;
  /** A clean stop: hands leaderships over, answers what waits, flushes, closes. Done within `deadlineMs`, cleanly or not. */
  stop(deadlineMs: number): Promise<void>;
  /** For simulation: the process is gone, nothing is flushed or said. The environment must run none of its tasks any more. */
  kill(): void;
  /** For simulation, which checks them against each other: the replicas that run here. */
  readonly replicas: Iterable<Replica>;
  /** For simulation, which asks for passes: what looks for rot here; undefined: not yet. */
  readonly scrubber: Scrubber | undefined;
  /** For simulation: the metadata as far as this broker follows them; undefined: it follows none yet. */
  readonly metadata: MetadataImage | undefined;
}

/** The part of a stop's deadline that hand-overs may take. */
const HAND_OVER_SHARE = 0.5;

/**
 * Takes the data directory and listens; resolves then. The rest follows in the background, since a new cluster only forms once all
 * its voters listen: see {@link Broker.ready}. Errors: DATA_DIRECTORY, LISTENER.
 */
export async function startBroker(given: BrokerOptions): Promise<Broker> {
  const options = { ...given, fatal: once(given.fatal) };
  const home = await openHome(options);
  const switchboard = new Switchboard();
  switchboard.addUnary(identifyHandler(home.formation));
  try {
    const served = await options.serve({ listeners: options.config.listeners, service: switchboard, log: options.log });
    return new RunningBroker({ options, home, switchboard, served });
  } catch (error) {
    await home.lock.release();
    throw error;
  }
}

interface Parts {
  readonly options: BrokerOptions;
  readonly home: Home;
  readonly switchboard: Switchboard;
  readonly served: Served;
}

class RunningBroker implements Broker {
  readonly addresses: ReadonlyMap<string, string>;
  readonly #parts: Parts;
  readonly #stopping = new AbortController();
  readonly #assembled: Promise<Assembly>;
  #assembly: Assembly | undefined;
  #stopped: Promise<void> | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.addresses = advertisedAddresses(parts.options.config, parts.served.addresses);
    this.#assembled = this.#assemble();
    this.#assembled.catch((error: unknown) => {
      if (this.#stopping.signal.aborted) return;
      parts.options.fatal(error instanceof Error ? error : new Error(messageOf(error)));
    });
  }

  get brokerId(): BrokerId {
    return this.#parts.options.config.nodeId;
  }

  get replicas(): Iterable<Replica> {
    return this.#assembly?.host.replicas ?? [];
  }

  get scrubber(): Scrubber | undefined {
    return this.#assembly?.scrubber;
  }

  get metadata(): MetadataImage | undefined {
    return this.#assembly?.metadata.image;
  }

  async ready(signal: AbortSignal): Promise<void> {
    const assembly = await abortable(this.#assembled, signal);
    await this.#joined(assembly, signal);
  }

  stop(deadlineMs: number): Promise<void> {
    this.#stopped ??= this.#stop(deadlineMs);
    return this.#stopped;
  }

  kill(): void {
    this.#stopping.abort();
    this.#parts.switchboard.clear();
  }

  async #assemble(): Promise<Assembly> {
    const { options, home, switchboard } = this.#parts;
    const cluster = await home.formation.form(this.#stopping.signal);
    const assembly = await assemble({ options, home, cluster, switchboard, advertised: this.addresses });
    this.#assembly = assembly;
    // Only then: a broker that has yet to catch up would tell clients that their topics don't exist.
    const joining = new AbortController();
    this.#joined(assembly, this.#stopping.signal)
      .then(
        () => assembly.serveClients(),
        () => undefined,
      )
      .finally(() => joining.abort());
    passOnUntil(joining.signal, { host: assembly.host, brokerId: this.brokerId, environment: options.environment, log: options.log });
    options.log.info('broker.started', { brokerId: this.brokerId, clusterId: cluster.clusterId, addresses: [...this.addresses.values()] });
    return assembly;
  }

  /** The metadata that this broker follows tells of its own registration, so it is not older than that. */
  #joined({ metadata, storage }: Assembly, signal: AbortSignal): Promise<void> {
    const isMember = (image: MetadataImage) => {
      const own = image.brokers.get(this.brokerId);
      return own?.incarnation === storage.incarnation && !own.fenced;
    };
    return until(metadata, isMember, signal);
  }

  async #stop(deadlineMs: number): Promise<void> {
    const { options, home, switchboard, served } = this.#parts;
    const { environment } = options;
    const endMs = environment.monotonicMs() + deadlineMs;
    const leftMs = () => Math.max(0, endMs - environment.monotonicMs());
    const step = async (what: string, work: () => Promise<unknown>): Promise<void> => {
      try {
        await within(environment, leftMs(), undefined, what, work);
      } catch (error) {
        options.log.warn('stop.step-failed', { what, error: messageOf(error) });
      }
    };
    options.log.info('broker.stopping', { brokerId: this.brokerId });
    this.#stopping.abort();
    let assembly: Assembly | undefined;
    await step('start', async () => {
      assembly = await this.#assembled;
    });
    if (assembly !== undefined) {
      const { host, registration } = assembly;
      registration.announceStop();
      const left = await handOver({ host, brokerId: this.brokerId, environment, log: options.log }, leftMs() * HAND_OVER_SHARE);
      options.log.info('broker.handed-over', { left });
      await disassemble(assembly, step);
    }
    switchboard.clear();
    await step('listeners', () => served.close(leftMs()));
    await step('lock', () => home.lock.release());
    options.log.info('broker.stopped', { brokerId: this.brokerId });
  }
}

/** The addresses that others are told; a port 0 is the one that was bound. */
function advertisedAddresses(config: BrokerConfig, bound: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  return new Map(
    config.advertisedListeners.map(({ name, host, port }) => {
      const boundPort = bound.get(name)?.split(':').at(-1) ?? '0';
      return [name, `${host}:${port === 0 ? boundPort : port}`];
    }),
  );
}

function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(new FlotillaError('ABORTED', 'The wait for the broker to be ready was given up.'));
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener('abort', onAbort));
}
