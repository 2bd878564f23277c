import { FlotillaError } from '../base/errors.ts';
import type { Compression, CompressionName } from './types.ts';

/** What to do when a codec is missing. */
const remedies: Readonly<Record<CompressionName, string>> = {
  none: 'It needs no codec.',
  gzip: 'It comes with Node; register gzipCompression.',
  snappy: 'Install the package "snappy" (npm install snappy).',
  lz4: 'Install the package "lz4-napi" (npm install lz4-napi).',
  zstd: 'It comes with Node from 22.15 on; run a newer Node.',
};

/** The codecs at hand, by name: injected, because they are native or asynchronous and differ between broker, client and simulation. */
export class CompressionTable {
  private readonly codecs = new Map<CompressionName, Compression>();

  constructor(codecs: Iterable<Compression> = []) {
    for (const codec of codecs) this.register(codec);
  }

  /** Adds a codec; a second of the same name replaces the first. */
  register(codec: Compression): this {
    this.codecs.set(codec.name, codec);
    return this;
  }

  has(name: CompressionName): boolean {
    return name === 'none' || this.codecs.has(name);
  }

  /** @throws FlotillaError UNSUPPORTED_COMPRESSION_TYPE that says what to install. */
  get(name: CompressionName): Compression {
    const codec = this.codecs.get(name);
    if (codec === undefined) {
      throw new FlotillaError('UNSUPPORTED_COMPRESSION_TYPE', `No codec for compression type "${name}" is registered. ${remedies[name]}`);
    }
    return codec;
  }
}
