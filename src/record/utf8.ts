/** UTF-8 for header keys, by hand: this folder has no TextEncoder, and keys are short. Lone surrogates and bad bytes become U+FFFD. */
const REPLACEMENT = 0xfffd;
const fromCodePoint = String.fromCodePoint;

export function utf8Size(text: string): number {
  let size = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) continue;
    if (unit < 0x800) size += 1;
    else {
      size += 2;
      // A pair is two units and four bytes.
      if (isPairAt(text, i)) i++;
    }
  }
  return size;
}

/** Returns the position after the text. */
export function writeUtf8(bytes: Uint8Array, at: number, text: string): number {
  let position = at;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) {
      bytes[position++] = unit;
      continue;
    }
    let point = unit;
    if (isPairAt(text, i)) point = text.codePointAt(i++) as number;
    else if (unit >= 0xd800 && unit <= 0xdfff) point = REPLACEMENT;
    if (point < 0x800) bytes[position++] = 0xc0 | (point >> 6);
    else {
      if (point < 0x10000) bytes[position++] = 0xe0 | (point >> 12);
      else {
        bytes[position++] = 0xf0 | (point >> 18);
        bytes[position++] = 0x80 | ((point >> 12) & 0x3f);
      }
      bytes[position++] = 0x80 | ((point >> 6) & 0x3f);
    }
    bytes[position++] = 0x80 | (point & 0x3f);
  }
  return position;
}

function isPairAt(text: string, i: number): boolean {
  const high = text.charCodeAt(i);
  if (high < 0xd800 || high > 0xdbff || i + 1 >= text.length) return false;
  const low = text.charCodeAt(i + 1);
  return low >= 0xdc00 && low <= 0xdfff;
}

export function readUtf8(bytes: Uint8Array): string {
  let text = '';
  let at = 0;
  while (at < bytes.length) {
    const first = bytes[at++] as number;
    if (first < 0x80) {
      text += String.fromCharCode(first);
      continue;
    }
    const more = first >= 0xf0 && first < 0xf5 ? 3 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xc2 && first < 0xe0 ? 1 : 0;
    let point = more === 0 ? REPLACEMENT : first & (0x3f >> more);
    let read = 0;
    while (read < more && ((bytes[at] ?? 0) & 0xc0) === 0x80) {
      point = (point << 6) | ((bytes[at++] as number) & 0x3f);
      read++;
    }
    text += fromCodePoint(read === more && isScalar(point, more) ? point : REPLACEMENT);
  }
  return text;
}

/** Not overlong, not a surrogate, not beyond Unicode. */
function isScalar(point: number, continuations: number): boolean {
  if (continuations === 2) return point >= 0x800 && (point < 0xd800 || point > 0xdfff);
  if (continuations === 3) return point >= 0x10000 && point <= 0x10ffff;
  return true;
}
