/** What the documentation says and a machine can check: links, commands, scripts, error codes, generated tables. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { parts, withPart } from '../scripts/docs.ts';
import { root } from '../scripts/steps.ts';
import { ErrorCodes } from '../src/base/errors.ts';
import { Exit } from '../src/cli/failures.ts';
import { parse } from '../src/cli/program.ts';

const pages = ['.', 'docs', 'docs/adr', 'deploy', 'examples'].flatMap((folder) =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.md'))
    .map((name) => join(folder, name)),
);
const read = (page: string) => readFileSync(join(root, page), 'utf8');

/** Streams that go nowhere, and what went to stderr. */
function captured() {
  const said: string[] = [];
  const stderr = new Writable({
    write(chunk: Buffer, _encoding, done) {
      said.push(chunk.toString());
      done();
    },
  });
  const stdout = new Writable({ write: (_chunk, _encoding, done) => done() });
  return { stdin: Readable.from([]), stdout, stderr, env: {}, said };
}

/** The name that GitHub gives a heading. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-');

/** `flotilla …` as it stands in code, up to a pipe, a redirection or a comment, as words. */
function commandsIn(text: string): string[][] {
  const code = [...text.matchAll(/```[a-z]*\n([\s\S]*?)```|`([^`\n]+)`/g)].flatMap((match) => (match[1] ?? match[2] ?? '').split('\n'));
  return code.flatMap((line) => {
    const match = /(?:^|\| |npx )flotilla ((?:[^|<>#&'"]|'[^']*'|"[^"]*")+)/.exec(line.trim());
    if (match === null || /…|\bNAME\b/.test(match[1] ?? '')) return [];
    const argv = [...(match[1] ?? '').matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map((word) => word[1] ?? word[2] ?? word[3] ?? '');
    // One word alone only names a command.
    return argv.length === 1 ? [] : [argv];
  });
}

describe('the documentation holds', () => {
  test('links lead somewhere', () => {
    const broken = pages.flatMap((page) =>
      [...read(page).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, target = '']) => {
        if (/^[a-z]+:/.test(target)) return [];
        const [file = '', anchor] = target.split('#');
        const path = file === '' ? page : join(dirname(page), file);
        if (!existsSync(join(root, path))) return [`${page}: ${target}`];
        if (anchor === undefined) return [];
        const anchors = [...read(path).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => anchorOf(heading));
        return anchors.includes(anchor) ? [] : [`${page}: ${target}`];
      }),
    );
    expect(broken).toEqual([]);
  });

  test('files that are named exist', () => {
    const missing = pages.flatMap((page) =>
      [...read(page).matchAll(/`((?:src|test|bench|scripts|examples|proto|deploy|docs)\/[\w./-]+)`/g)].flatMap(([, path = '']) =>
        existsSync(join(root, path)) ? [] : [`${page}: ${path}`],
      ),
    );
    expect(missing).toEqual([]);
  });

  test('npm scripts that are named exist', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const missing = pages.flatMap((page) =>
      [...read(page).matchAll(/npm run ([\w:-]+)/g)].flatMap(([, name = '']) => (scripts[name] === undefined ? [`${page}: ${name}`] : [])),
    );
    expect(missing).toEqual([]);
  });

  test('every flotilla command that is printed is one', async () => {
    const commands = pages.flatMap((page) => commandsIn(read(page)).map((argv) => ({ page, argv })));
    expect(commands.length).toBeGreaterThan(10);
    const wrong: string[] = [];
    for (const { page, argv } of commands) {
      const streams = captured();
      const parsed = await parse(argv, streams);
      if (parsed === Exit.usage) wrong.push(`${page}: flotilla ${argv.join(' ')}: ${streams.said.join('')}`);
    }
    expect(wrong).toEqual([]);
  });

  test('a wrong command would be noticed', async () => {
    expect(commandsIn('```\nnpx flotilla topic make orders --partitions 3 | cat  # x\n```')).toEqual([
      ['topic', 'make', 'orders', '--partitions', '3'],
    ]);
    expect(await parse(['topic', 'make', 'orders'], captured())).toBe(Exit.usage);
  });

  test('every error code is explained, and whether it is retriable', () => {
    const page = read('docs/operations.md');
    const rows = new Map([...page.matchAll(/^\| `([A-Z_]+)` \| (yes|no) \|/gm)].map(([, code, retriable]) => [code, retriable]));
    expect(Object.fromEntries(rows)).toEqual(
      Object.fromEntries(Object.entries(ErrorCodes).map(([code, { retriable }]) => [code, retriable ? 'yes' : 'no'])),
    );
  });

  test.each(parts())('$page: $name is what the source says (else: node scripts/docs.ts)', (part) => {
    expect(read(part.page)).toBe(withPart(read(part.page), part));
  });

  test('every page is reached from the README', () => {
    const reached = new Set(['README.md']);
    for (const page of reached) {
      for (const [, target = ''] of read(page).matchAll(/\]\(([^)\s#]+)/g)) {
        const path = relative(root, join(root, dirname(page), target));
        const file = path.endsWith('.md') ? path : `${path.replace(/\/$/, '')}/README.md`;
        if (!/^[a-z]+:/.test(target) && existsSync(join(root, file))) reached.add(file);
      }
    }
    const lost = pages.filter((page) => !reached.has(page) && !page.startsWith('docs/adr') && page !== 'CHANGELOG.md');
    expect(lost).toEqual([]);
  });
});
