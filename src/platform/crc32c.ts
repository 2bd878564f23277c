import { crc32c as native } from '@node-rs/crc32';
import type { Crc32c } from '../record/types.ts';

/** CRC32C with the processor's own instruction, about 4 GB/s. `seed` is the checksum of what came before. */
export const nativeCrc32c: Crc32c = (bytes, seed) => native(bytes, seed);
