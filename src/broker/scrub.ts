/** Scrub of the Admin service: how far this broker is in looking for what rotted, and what it found. */
import { create } from '@bufbuild/protobuf';
import { formatGroupName, METADATA_NAME } from '../base/group-name.ts';
import { decodeGroupKey, formatGroupKey, type GroupKey, METADATA_GROUP } from '../base/ids.ts';
import { Admin } from '../gen/flotilla/v1/admin_pb.ts';
import { ScrubFindingSchema, ScrubResponseSchema } from '../gen/flotilla/v1/raft_groups_pb.ts';
import type { RaftHost } from '../raft/types.ts';
import { type UnaryHandler, unaryHandler } from '../rpc/types.ts';
import { answerError, type BrokerContext } from './context.ts';
import type { Scrubber } from './scrubber.ts';

export function scrubHandler(context: BrokerContext, scrubber: Scrubber, host: Pick<RaftHost, 'repairs'>): [string, UnaryHandler] {
  return unaryHandler(Admin.method.scrub, async ({ now }, call) => {
    try {
      if (now) scrubber.scrubNow();
      const { pass, running, segments, segmentsDone, bytesDone, findings } = scrubber.status;
      const { found, repaired } = host.repairs;
      return create(ScrubResponseSchema, {
        pass,
        running,
        segments,
        segmentsDone,
        bytesDone: BigInt(bytesDone),
        findings: findings.map(({ group, position, ...finding }) =>
          create(ScrubFindingSchema, { ...finding, group: nameOf(context, group), position: BigInt(position) }),
        ),
        entriesDamaged: BigInt(found),
        entriesRepaired: BigInt(repaired),
      });
    } catch (error) {
      return create(ScrubResponseSchema, { error: answerError(context, call.listener, error) });
    }
  });
}

function nameOf({ metadata }: BrokerContext, group: GroupKey): string {
  if (group === METADATA_GROUP) return formatGroupName(METADATA_NAME);
  const { topicId, partition } = decodeGroupKey(group);
  const topic = metadata.image.topics.get(topicId)?.name;
  return topic === undefined ? formatGroupKey(group) : formatGroupName({ topic, partition });
}
