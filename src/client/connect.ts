import { nodeCompressions } from '../platform/compression.ts';
import { nodeEnvironment } from '../platform/environment.ts';
import { CompressionTable } from '../record/compression.ts';
import { crc32c } from '../record/crc32c.ts';
import type { Compression, Crc32c } from '../record/types.ts';
import { grpcConnect } from '../rpc/grpc-channel.ts';
import { Client, type ClientOptions } from './client.ts';

export interface ConnectOptions extends ClientOptions {
  /** Codecs beyond gzip and zstd, which come with Node: snappy and lz4 from their packages. */
  readonly codecs?: readonly Compression[] | undefined;
}

/**
 * Connects to a cluster.
 *
 * ```ts
 * await using client = await connect({ bootstrap: '127.0.0.1:7101' });
 * const { partition, offset } = await client.producer().send('orders', { key: 'a', value: '1' });
 * ```
 * @throws FlotillaError BROKER_NOT_AVAILABLE (no broker answered within connectTimeoutMs, default 10,000), INVALID_REQUEST (bootstrap),
 *   UNSUPPORTED_VERSION, ABORTED
 */
export async function connect(options: ConnectOptions): Promise<Client> {
  const compression = new CompressionTable([...nodeCompressions, ...(options.codecs ?? [])]);
  return Client.open({ environment: nodeEnvironment, connect: grpcConnect(), compression, crc32c: await fastestCrc32c() }, options);
}

/** The processor's own instruction where the package "@node-rs/crc32" is installed, ten times as fast as JavaScript; the client works without it. */
async function fastestCrc32c(): Promise<Crc32c> {
  try {
    return (await import('../platform/crc32c.ts')).nativeCrc32c;
  } catch {
    return crc32c;
  }
}
