/** Kafka's default partitioner for records with a key: the same key goes to the same partition from every Kafka client. */

const SEED = 0x9747b28c;
const M = 0x5bd1e995;
const R = 24;

/** MurmurHash2, 32 bits, signed, as org.apache.kafka.common.utils.Utils.murmur2 computes it. */
export function murmur2(bytes: Uint8Array): number {
  const length = bytes.length;
  const byte = (i: number): number => bytes[i] as number;
  let h = SEED ^ length;
  const whole = length - (length % 4);
  for (let i = 0; i < whole; i += 4) {
    let k = byte(i) | (byte(i + 1) << 8) | (byte(i + 2) << 16) | (byte(i + 3) << 24);
    k = Math.imul(k, M);
    k ^= k >>> R;
    h = Math.imul(h, M) ^ Math.imul(k, M);
  }
  const left = length - whole;
  if (left >= 3) h ^= byte(whole + 2) << 16;
  if (left >= 2) h ^= byte(whole + 1) << 8;
  if (left >= 1) h = Math.imul(h ^ byte(whole), M);
  h = Math.imul(h ^ (h >>> 13), M);
  return h ^ (h >>> 15);
}

/** The partition, 0 to `partitions` - 1, of a record with this key: Kafka's toPositive(murmur2(key)) % partitions. */
export function partitionForKey(key: Uint8Array, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions;
}
