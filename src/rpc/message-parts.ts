import { lengthOf } from '../base/bytes.ts';

/**
 * A serialized message in parts: small fields in buffers of their own, large payloads where they are. gRPC copies a message behind
 * its five-byte prefix anyway; with parts that is the only copy. The payloads must not change until the message is sent.
 */
export class MessageParts {
  readonly parts: readonly Uint8Array[];
  /** As of a Buffer; gRPC reads the one on clients and the other on servers. */
  readonly length: number;
  readonly byteLength: number;

  constructor(parts: readonly Uint8Array[]) {
    this.parts = parts;
    this.length = lengthOf(parts);
    this.byteLength = this.length;
  }

  /** As of a Buffer. */
  copy(target: Uint8Array, at: number): number {
    let position = at;
    for (const part of this.parts) {
      target.set(part, position);
      position += part.length;
    }
    return this.length;
  }

  /** gRPC's types ask for a Buffer; of it, it uses `length`, `byteLength` and `copy` alone, which the loopback tests hold it to. */
  asBuffer(): Buffer {
    return this as unknown as Buffer;
  }
}
