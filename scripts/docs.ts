/** `node scripts/docs.ts`: writes the generated parts of the documentation. A test (test/docs.test.ts) fails when one of them is stale. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brokerKeys, topicKeys } from '../src/broker/config-keys.ts';
import type { ConfigKey } from '../src/broker/config-value.ts';
import { mutantTable } from '../test/mutants/results.ts';
import { root } from './steps.ts';

const INT32_MAX = 2_147_483_647;

/** A part of a page between `<!-- generated: NAME -->` and `<!-- end of NAME -->`. */
export interface Part {
  readonly page: string;
  readonly name: string;
  readonly text: string;
}

export function parts(): readonly Part[] {
  return [
    { page: 'docs/operations.md', name: 'broker configuration', text: brokerTable() },
    { page: 'docs/operations.md', name: 'topic configuration', text: topicTable() },
    { page: 'docs/testing.md', name: 'mutants', text: mutantTable() },
  ];
}

/** The page with the part's text in its place. */
export function withPart(page: string, { name, text }: Part): string {
  const begin = `<!-- generated: ${name} -->\n`;
  const end = `<!-- end of ${name} -->`;
  const from = page.indexOf(begin);
  const to = page.indexOf(end);
  if (from < 0 || to < from) throw new Error(`no place for '${name}': write ${begin.trim()} and ${end}`);
  return `${page.slice(0, from + begin.length)}\n${text}\n${page.slice(to)}`;
}

function brokerTable(): string {
  const rows: readonly ConfigKey[] = brokerKeys;
  return table(
    ['key', 'default', 'allowed', 'what'],
    rows.map((row) => [`\`${row.key}\``, defaultOf(row), allowedOf(row), row.doc]),
  );
}

function topicTable(): string {
  const rows: readonly ConfigKey[] = brokerKeys;
  return table(
    ['key of a topic', 'where it is not set', 'allowed', 'what'],
    topicKeys.map((topic) => {
      const broker = rows.find(({ key }) => key === topic.broker);
      if (broker === undefined) throw new Error(`${topic.key} falls back to ${topic.broker}, which is no key of a broker`);
      return [`\`${topic.key}\``, `\`${topic.broker}\``, allowedOf({ ...broker, ...topic }), broker.doc];
    }),
  );
}

function defaultOf({ default: text }: ConfigKey): string {
  if (text === undefined) return 'none';
  return text === String(Number.MAX_SAFE_INTEGER) ? 'no bound' : `\`${text}\``;
}

function allowedOf({ type, min, max, values }: ConfigKey): string {
  if (values !== undefined) return `${type === 'list' ? 'some of ' : ''}${values.map((value) => `\`${value}\``).join(', ')}`;
  if (type === 'list') return 'a list, by commas';
  if (type === 'string') return 'text';
  const number = (value: number) => quantity(type, value);
  if (min === undefined) return type;
  return max === undefined || max === INT32_MAX ? `from ${number(min)}` : `${number(min)} to ${number(max)}`;
}

function quantity(type: ConfigKey['type'], value: number): string {
  if (type === 'bytes') return value >= 2 ** 20 ? `${value / 2 ** 20} MiB` : `${value} B`;
  if (type === 'duration') return value >= 1000 ? `${value / 1000} s` : `${value} ms`;
  return value.toLocaleString('en');
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line), ''].join('\n');
}

if (import.meta.main) {
  for (const part of parts()) {
    const path = join(root, part.page);
    writeFileSync(path, withPart(readFileSync(path, 'utf8'), part));
    console.log(`${part.page}: ${part.name}`);
  }
}
