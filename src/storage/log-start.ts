/**
 * The payload of a setLogStart entry (offset-payload.ts): the offset that readers start from once the entry has committed. The leader decides it, and every
 * replica drops what lies below as its own segments allow (hazard B36).
 */
import { decodeOffset, encodeOffset } from './offset-payload.ts';

export function encodeLogStart(offset: number): Uint8Array {
  return encodeOffset(offset);
}

/** An unknown version stops the replica: skipped, it would serve what the others have dropped. */
export function decodeLogStart(payload: Uint8Array): number {
  return decodeOffset(payload, 'the start of the log');
}
