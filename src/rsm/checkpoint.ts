/**
 * A checkpoint in the StateStore: u8 format (1), varint index of the last applied entry, then the state as its machine
 * encodes it. One value, so index and state can't come apart (hazard B28).
 */
import { ByteReader, ByteWriter, MalformedRecordError } from './codec.ts';

const FORMAT = 1;

export function encodeCheckpoint(index: number, state: Uint8Array): Uint8Array {
  return new ByteWriter().u8(FORMAT).varint(index).bytes(state).finish();
}

export function decodeCheckpoint(bytes: Uint8Array): { readonly index: number; readonly state: Uint8Array } {
  const reader = new ByteReader(bytes);
  const format = reader.u8();
  if (format !== FORMAT)
    throw new MalformedRecordError(`checkpoint format ${format}: this broker is older than the data directory, upgrade it`);
  const index = reader.varint();
  return { index, state: reader.bytes(reader.remaining) };
}
