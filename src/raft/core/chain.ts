/**
 * The chain: a 64-bit hash carried by every entry over all entries up to it, so that two logs with the same chain at an index are
 * the same log up to there (a check on log matching, and hazard B29). It is computed once, by the leader that makes the entry;
 * it is on disks for ever, so this function may never change (a golden test holds it).
 */
import type { LogPosition } from './types.ts';

export interface Chain {
  readonly chainHigh: number;
  readonly chainLow: number;
}

/** Where {@link chainAfter} leaves its result, so that no object is made per entry. */
export interface ChainResult {
  chainHigh: number;
  chainLow: number;
}

/** The chain before the first entry of a log. */
export const CHAIN_START: Chain = { chainHigh: 0, chainLow: 0 };

/** The position before the first entry of a log. */
export const LOG_ORIGIN: LogPosition = { index: 0, term: 0, nextOffset: 0, ...CHAIN_START };

/**
 * The chain after an entry. Six 32-bit words go through two lanes that feed each other (the block step and final mix of
 * MurmurHash3 x86, which passes the avalanche tests). Not cryptographic: it finds mistakes, not attackers.
 */
export function chainAfter(previous: Chain, index: number, term: number, kind: number, payloadChecksum: number, into: ChainResult): void {
  let high = previous.chainHigh;
  let low = previous.chainLow;
  low = mix(low, high, term);
  high = mix(high, low, (index / 0x1_0000_0000) | 0);
  low = mix(low, high, index | 0);
  high = mix(high, low, kind);
  low = mix(low, high, payloadChecksum);
  high = mix(high, low, 0x464c4f54);
  into.chainHigh = finish(high ^ low);
  into.chainLow = finish((low + into.chainHigh) | 0);
}

function mix(lane: number, other: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = (k << 15) | (k >>> 17);
  let h = lane ^ Math.imul(k, 0x1b873593);
  h = (h << 13) | (h >>> 19);
  return (Math.imul((h + other) | 0, 5) + 0xe6546b64) | 0;
}

function finish(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
