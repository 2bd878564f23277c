/** Lines of bytes: what stdin holds need not be text. */
import { Failure } from './failures.ts';

const LINE_END = 0x0a;

/** A line longer than this is refused: no record may be larger (message.max.bytes allows at most 64 MiB). */
export const MAX_LINE_BYTES = 96 * 2 ** 20;

/**
 * The lines of each chunk, without their ends; the last one counts without an end too, unless it is empty.
 * A line's bytes are its own: nothing overwrites them.
 */
export async function* lineChunks(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<readonly Uint8Array[]> {
  let rest: Uint8Array[] = [];
  let restBytes = 0;
  for await (const chunk of chunks) {
    const lines: Uint8Array[] = [];
    let start = 0;
    for (let end = chunk.indexOf(LINE_END); end !== -1; end = chunk.indexOf(LINE_END, start)) {
      lines.push(join(rest, chunk.subarray(start, end)));
      rest = [];
      restBytes = 0;
      start = end + 1;
    }
    if (start < chunk.length) {
      rest.push(chunk.subarray(start));
      restBytes += chunk.length - start;
      if (restBytes > MAX_LINE_BYTES) throw new Failure(`A line is longer than ${MAX_LINE_BYTES} bytes. Is this input made of lines?`);
    }
    if (lines.length > 0) yield lines;
  }
  if (restBytes > 0) yield [join(rest, new Uint8Array())];
}

function join(parts: readonly Uint8Array[], last: Uint8Array): Uint8Array {
  return parts.length === 0 ? last : Buffer.concat([...parts, last]);
}
