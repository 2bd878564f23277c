/** The codecs that take native packages. The SDK's package has each of them apart, for who has its library. */
import type { Compression } from '../record/types.ts';
import { lz4Compression } from './compression-lz4.ts';
import { snappyCompression } from './compression-snappy.ts';

export const nativeCompressions: readonly Compression[] = [lz4Compression, snappyCompression];
