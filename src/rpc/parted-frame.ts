import { create } from '@bufbuild/protobuf';
import { concat } from '../base/bytes.ts';
import { type PeerFrame, PeerFrameSchema } from '../gen/flotilla/v1/raft_pb.ts';

const partsOf = new WeakMap<object, readonly Uint8Array[]>();

/** A PeerFrame whose payload stays in parts, which gRPC then copies once; put together only for who reads `payload`. */
export function partedFrame(parts: readonly Uint8Array[]): PeerFrame {
  const [payload] = parts;
  if (parts.length === 1 && payload !== undefined) return create(PeerFrameSchema, { payload });
  const frame = create(PeerFrameSchema);
  partsOf.set(frame, parts);
  Object.defineProperty(frame, 'payload', { get: () => concat(parts), enumerable: true });
  return frame;
}

/** The parts of the payload, one for an ordinary frame. */
export function payloadParts(frame: PeerFrame): readonly Uint8Array[] {
  return partsOf.get(frame) ?? [frame.payload];
}
