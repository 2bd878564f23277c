/** The production broker: the real clock, disk, state store and gRPC behind the broker's interfaces. */
import type { Logger } from '../base/environment.ts';
import { type Broker, startBroker } from '../broker/broker.ts';
import type { BrokerConfig } from '../broker/config.ts';
import { nodeCompressions } from '../platform/compression.ts';
import { nativeCompressions } from '../platform/compression-native.ts';
import { WorkerCompute } from '../platform/compute.ts';
import { crc32 } from '../platform/crc32.ts';
import { nativeCrc32c } from '../platform/crc32c.ts';
import { NodeDisk } from '../platform/disk.ts';
import { nodeEnvironment } from '../platform/environment.ts';
import { openFileLimit } from '../platform/limits.ts';
import { CompressionTable } from '../record/compression.ts';
import { grpcConnect } from '../rpc/grpc-channel.ts';
import { serveGrpc } from '../rpc/grpc-server.ts';
import { RpcPeerTransport } from '../rpc/peer-transport.ts';

export function composeBroker(config: BrokerConfig, log: Logger, fatal: (error: Error) => void): Promise<Broker> {
  const limit = openFileLimit();
  return startBroker({
    config,
    log,
    fatal,
    environment: nodeEnvironment,
    disk: new NodeDisk(limit),
    openStateStore: async (path) => (await import('../platform/state-store.ts')).openLevelStore(path),
    connect: grpcConnect(),
    // Each lane has a connection of its own, so that heartbeats don't wait behind appends.
    createTransport: (options) => new RpcPeerTransport({ ...options, connect: grpcConnect({ ownConnection: true }) }),
    serve: (options) => serveGrpc({ ...options, openFileLimit: limit }),
    crc32,
    crc32c: nativeCrc32c,
    compression: new CompressionTable([...nodeCompressions, ...nativeCompressions]),
    compute: new WorkerCompute(),
  });
}
