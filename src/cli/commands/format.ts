/** `flotilla format`: makes an empty data directory a member of a cluster, before its broker first starts. */
import { FlotillaError } from '../../base/errors.ts';
import { type BrokerId, type ClusterId, isUuid } from '../../base/ids.ts';
import { loadConfig } from '../../broker/config.ts';
import { crc32 } from '../../platform/crc32.ts';
import { NodeDisk } from '../../platform/disk.ts';
import { nodeEnvironment } from '../../platform/environment.ts';
import { type Access, formatDirectory, initDirectory } from '../../storage/directory.ts';
import { type ConfigOptions, readSources } from '../config-file.ts';
import { newClusterId } from '../dev/cluster.ts';
import { UsageError } from '../failures.ts';
import type { Session } from '../session.ts';

export interface FormatOptions extends ConfigOptions {
  readonly clusterId?: string;
}

export async function format(session: Session, options: FormatOptions): Promise<void> {
  if (options.clusterId !== undefined && !isUuid(options.clusterId)) {
    throw new UsageError(`'${options.clusterId}' is not a cluster id: 32 lower-case hex digits. Without --cluster-id, a new one is made.`);
  }
  const config = loadConfig(await readSources(options, session.streams.env));
  const given = (options.clusterId as ClusterId | undefined) ?? config.clusterId;
  const access = { disk: new NodeDisk(), path: config.dataDirectory, crc32 };
  await access.disk.makeDirectory(access.path);
  const lock = await access.disk.lock(access.path);
  try {
    await formatLocked(session, access, config.nodeId, given);
  } finally {
    await lock.release();
  }
}

async function formatLocked(session: Session, access: Access, nodeId: BrokerId, given: ClusterId | undefined): Promise<void> {
  const directory = await initDirectory(access, { brokerId: nodeId, clusterId: given, random: nodeEnvironment });
  if (directory.clusterId !== undefined && given === undefined) {
    throw new FlotillaError('DATA_DIRECTORY', `${access.path} belongs to cluster ${directory.clusterId} already; nothing was changed.`);
  }
  const clusterId = given ?? newClusterId();
  await formatDirectory(access, { clusterId });
  const { directoryId, brokerId } = directory;
  if (session.json) return void (await session.out.json({ clusterId, brokerId, directoryId, directory: access.path }));
  await session.out.line(clusterId);
  session.note(`${access.path} belongs to broker ${brokerId} of cluster ${clusterId}; format the others with --cluster-id ${clusterId}`);
}
