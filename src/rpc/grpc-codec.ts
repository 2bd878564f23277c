import { create, type DescMessage, fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import type { GenMessage } from '@bufbuild/protobuf/codegenv2';
import { lengthOf } from '../base/bytes.ts';
import { FetchResponseSchema, ProduceRequestSchema, ProduceResponseSchema } from '../gen/flotilla/v1/data_pb.ts';
import { type PeerFrame, PeerFrameSchema } from '../gen/flotilla/v1/raft_pb.ts';
import {
  readFetchResponse,
  readProduceRequest,
  readProduceResponse,
  writeFetchResponse,
  writeProduceRequest,
  writeProduceResponse,
} from './data-codec.ts';
import { MessageParts } from './message-parts.ts';
import { payloadParts } from './parted-frame.ts';

/** Upper bound of one message on any stream or call, both ways. */
export const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;
/** HTTP/2 flow control, of streams and connections: the default 64 KiB halves the throughput. */
export const FLOW_CONTROL_WINDOW_BYTES = 8 * 1024 * 1024;

/** A message's writer and reader: protobuf-es, but by hand where the messages carry all the data. */
export interface MessageCodec {
  serialize(message: Message): Buffer;
  deserialize(bytes: Uint8Array): Message;
}

const codecs = new Map<string, MessageCodec>();

const PAYLOAD_TAG = (1 << 3) | 2;

/** The codec of a message type, the same object each time. */
export function codecFor(schema: DescMessage): MessageCodec {
  const known = codecs.get(schema.typeName);
  if (known !== undefined) return known;
  const codec = byHand.get(schema.typeName) ?? protobufCodec(schema);
  codecs.set(schema.typeName, codec);
  return codec;
}

function protobufCodec(schema: DescMessage): MessageCodec {
  return {
    serialize(message) {
      const bytes = toBinary(schema, message);
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    },
    deserialize: (bytes) => fromBinary(schema, plain(bytes)),
  };
}

/** Views of a plain Uint8Array are plain as well; a Buffer's `slice` is a view, which who takes a copy does not expect. */
function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** One `bytes` field: its tag and length, and the payload's parts where they are. */
const peerFrameCodec: MessageCodec = {
  serialize(message) {
    const parts = payloadParts(message as PeerFrame);
    const prefix = [PAYLOAD_TAG];
    let length = lengthOf(parts);
    for (; length >= 0x80; length >>>= 7) prefix.push((length & 0x7f) | 0x80);
    prefix.push(length);
    return new MessageParts([Uint8Array.from(prefix), ...parts]).asBuffer();
  },
  deserialize(bytes) {
    const payload = soleField(bytes);
    return payload === undefined ? fromBinary(PeerFrameSchema, plain(bytes)) : create(PeerFrameSchema, { payload });
  },
};

/** The payload, when the message is exactly tag, length and payload; otherwise protobuf-es knows what it is. */
function soleField(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes[0] !== PAYLOAD_TAG) return undefined;
  let length = 0;
  for (let at = 1; at < 6; at++) {
    const byte = bytes[at];
    if (byte === undefined) return undefined;
    length += (byte & 0x7f) * 2 ** (7 * (at - 1));
    if (byte < 0x80) {
      if (length !== bytes.length - at - 1) return undefined;
      return new Uint8Array(bytes.buffer, bytes.byteOffset + at + 1, length);
    }
  }
  return undefined;
}

/** By hand where that knows the message, otherwise by protobuf-es. */
function handCodec<M extends Message>(
  schema: GenMessage<M>,
  write: (message: M) => MessageParts | undefined,
  read: (bytes: Uint8Array) => M | undefined,
): [string, MessageCodec] {
  const protobuf = protobufCodec(schema);
  return [
    schema.typeName,
    {
      serialize: (message) => write(message as M)?.asBuffer() ?? protobuf.serialize(message),
      deserialize: (bytes) => read(bytes) ?? protobuf.deserialize(bytes),
    },
  ];
}

const byHand = new Map<string, MessageCodec>([
  [PeerFrameSchema.typeName, peerFrameCodec],
  handCodec(ProduceRequestSchema, writeProduceRequest, readProduceRequest),
  handCodec(ProduceResponseSchema, writeProduceResponse, readProduceResponse),
  handCodec(FetchResponseSchema, writeFetchResponse, readFetchResponse),
]);
