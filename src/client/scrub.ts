/** What all brokers say of their search for rot. */
import { create } from '@bufbuild/protobuf';
import { FlotillaError } from '../base/errors.ts';
import { Admin } from '../gen/flotilla/v1/admin_pb.ts';
import type { BrokerNode } from '../gen/flotilla/v1/common_pb.ts';
import { ScrubRequestSchema } from '../gen/flotilla/v1/raft_groups_pb.ts';
import { type CallOptions, type Cluster, fromWire } from './cluster.ts';
import { askMetadata, DEAD_PAGE_TIMEOUT_MS, NO_TOPIC, PAGE_TIMEOUT_MS, within } from './raft-groups.ts';
import { throwIfAborted } from './wait.ts';

export interface BrokerScrub {
  readonly brokerId: number;
  /** Set: it did not answer. */
  readonly error: FlotillaError | undefined;
  /** Passes that its process began. */
  readonly pass: number;
  readonly running: boolean;
  /** Of the present pass, or the last: segments, and snapshots of replicas. */
  readonly segments: number;
  readonly segmentsDone: number;
  readonly bytesDone: number;
  readonly findings: readonly ScrubFinding[];
  /** Since its process began, whoever found them. */
  readonly entriesDamaged: number;
  readonly entriesRepaired: number;
}

export interface ScrubFinding {
  /** TOPIC/PARTITION, or `metadata`. */
  readonly group: string;
  readonly file: string;
  /** Bytes from the start of the file. */
  readonly position: number;
  readonly what: string;
  readonly repaired: boolean;
}

/** All brokers, by their ids. `now`: each begins a pass, unless one is under way. */
export async function scrub(cluster: Cluster, now: boolean, options?: CallOptions): Promise<BrokerScrub[]> {
  const { brokers } = await askMetadata(cluster, [NO_TOPIC], options);
  const answers = await within(cluster, options, (signal) => Promise.all(brokers.map((broker) => ask(cluster, broker, now, signal))));
  return answers.sort((a, b) => a.brokerId - b.brokerId);
}

const NOTHING = {
  pass: 0,
  running: false,
  segments: 0,
  segmentsDone: 0,
  bytesDone: 0,
  findings: [],
  entriesDamaged: 0,
  entriesRepaired: 0,
};

async function ask(cluster: Cluster, { brokerId, address, alive }: BrokerNode, now: boolean, signal: AbortSignal): Promise<BrokerScrub> {
  try {
    if (address === '') throw new FlotillaError('BROKER_NOT_AVAILABLE', 'it has no address on this listener');
    const timeoutMs = alive ? PAGE_TIMEOUT_MS : DEAD_PAGE_TIMEOUT_MS;
    const answer = await cluster.channels
      .get(address)
      .unary(Admin.method.scrub, create(ScrubRequestSchema, { now }), { timeoutMs, signal });
    if (answer.error !== undefined) throw fromWire(answer.error);
    const { pass, running, segments, segmentsDone } = answer;
    return {
      brokerId,
      error: undefined,
      pass,
      running,
      segments,
      segmentsDone,
      bytesDone: Number(answer.bytesDone),
      findings: answer.findings.map(({ group, file, position, what, repaired }) => ({
        group,
        file,
        position: Number(position),
        what,
        repaired,
      })),
      entriesDamaged: Number(answer.entriesDamaged),
      entriesRepaired: Number(answer.entriesRepaired),
    };
  } catch (error) {
    throwIfAborted(signal);
    if (!(error instanceof FlotillaError)) throw error;
    return { brokerId, error, ...NOTHING };
  }
}
