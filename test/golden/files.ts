/** Golden files: bytes that some release wrote, as text that a person can read and a diff can show. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const LINE_BYTES = 32;

/** A line for each 32 bytes: their offset and they themselves, in hex; lines of zeros are left out. The last line is the end's offset alone. */
export function toText(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += LINE_BYTES) {
    const line = Buffer.from(bytes.subarray(at, at + LINE_BYTES));
    if (line.some((byte) => byte !== 0)) lines.push(`${offset(at)} ${line.toString('hex').replaceAll(/(.{8})(?=.)/g, '$1 ')}`);
  }
  return `${lines.join('\n')}\n${offset(bytes.length)}\n`;
}

export function fromText(text: string): Uint8Array {
  const lines = text.trimEnd().split('\n');
  const bytes = new Uint8Array(Number.parseInt(lines.at(-1) as string, 16));
  for (const line of lines.slice(0, -1)) {
    const [at = '', ...words] = line.split(' ');
    bytes.set(Buffer.from(words.join(''), 'hex'), Number.parseInt(at, 16));
  }
  return bytes;
}

const offset = (at: number) => at.toString(16).padStart(6, '0');

export function goldenPath(name: string): URL {
  return new URL(`${name}.hex`, import.meta.url);
}

export function readGolden(name: string): Uint8Array {
  return fromText(readFileSync(goldenPath(name), 'utf8'));
}

/** With NEW_GOLDEN set, writes the file when there is none yet. Never changes one. */
export function addGolden(name: string, bytes: Uint8Array): void {
  if (process.env['NEW_GOLDEN'] !== undefined && !existsSync(goldenPath(name))) writeFileSync(goldenPath(name), toText(bytes));
}

/** Several files as one text. */
export function toFilesText(files: Iterable<readonly [path: string, bytes: Uint8Array]>): string {
  return Array.from(files, ([path, bytes]) => `file ${path}\n${toText(bytes)}`).join('');
}

export function fromFilesText(text: string): [path: string, bytes: Uint8Array][] {
  const parts = text.split(/^file /m).slice(1);
  return parts.map((part) => [part.slice(0, part.indexOf('\n')), fromText(part.slice(part.indexOf('\n') + 1))]);
}
