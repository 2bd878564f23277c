/** What the handlers of a broker share. */
import { InvariantError } from '../base/assert.ts';
import type { Environment, Logger } from '../base/environment.ts';
import type { FlotillaError } from '../base/errors.ts';
import type { Error as WireError } from '../gen/flotilla/v1/common_pb.ts';
import type { MetadataView } from '../metadata/image.ts';
import type { Crc32c } from '../record/types.ts';
import type { BrokerConfig } from './config.ts';
import type { ProduceLoad } from './old-reads.ts';
import type { Partitions } from './partitions.ts';
import { toFlotillaError, toWireError } from './wire.ts';

export interface BrokerContext {
  readonly config: BrokerConfig;
  readonly partitions: Partitions;
  readonly metadata: MetadataView;
  readonly environment: Environment;
  readonly produceLoad: ProduceLoad;
  readonly crc32c: Crc32c;
  readonly log: Logger;
  /** Ends the process: an invariant is broken or the disk is lost. */
  readonly fatal: (error: Error) => void;
}

/** Anything thrown, as the error that the client gets. A broken invariant ends the process; a defect of ours is logged. */
export function answerError(context: BrokerContext, listener: string, error: unknown): WireError {
  if (error instanceof InvariantError) context.fatal(error);
  const known: FlotillaError = toFlotillaError(error);
  if (known.code === 'UNKNOWN_SERVER_ERROR')
    context.log.error('request.defect', { error: known.message, stack: error instanceof Error ? error.stack : undefined });
  return toWireError(known, context.metadata.image, listener);
}
