/** The metadata log as a replicated state machine. */
import type { StateMachine } from '../rsm/types.ts';
import { applyRecords, emptyImage } from './apply.ts';
import { decodeImage, encodeImage } from './checkpoint.ts';
import type { MetadataDelta, MetadataImage } from './image.ts';
import { type MetadataRecord, metadataCodec } from './records.ts';

export const metadataMachine: StateMachine<MetadataImage, MetadataRecord, MetadataDelta> = {
  empty: emptyImage,
  codec: metadataCodec,
  apply(state, index, records) {
    const delta = applyRecords(state, index, records);
    return { state: delta.image, delta };
  },
  encodeState: encodeImage,
  decodeState: decodeImage,
};
