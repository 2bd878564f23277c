/**
 * The ledger of campaigns, committed beside the code: one line for each, with its seeds, the code that it ran and what came of it. A line is valid as
 * long as the code under test is the same, by a hash over its files; its commit names the simulator that ran it. Older lines tell the history.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Kind } from './options.ts';
import { add, EMPTY, type SummaryData } from './summary.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
export const LEDGER = join(root, 'test/sim/ledger.ndjson');

export interface Campaign {
  readonly kind: Kind;
  /** Hash of the code under test. */
  readonly code: string;
  /** Where that code, and the simulator that ran it, are to be found; with a + when either was changed since. */
  readonly commit: string;
  readonly from: number;
  readonly to: number;
  /** Of all processes together. */
  readonly minutes: number;
  readonly summary: SummaryData;
}

/** The code under test, of each kind of simulation. */
const CODE: Readonly<Record<Kind, readonly string[]>> = {
  broker: ['src', 'package-lock.json'],
  core: ['src/base', 'src/raft/core'],
};
/** What is in those folders and no simulation runs. */
const BESIDE = /^src\/cli\/|\.md$/;

export function codeHash(kind: Kind): string {
  const hash = createHash('sha256');
  for (const path of CODE[kind]
    .flatMap(filesOf)
    .filter((path) => !BESIDE.test(path))
    .sort())
    hash
      .update(path)
      .update('\0')
      .update(readFileSync(join(root, path)))
      .update('\0');
  return hash.digest('hex').slice(0, 16);
}

export function commitName(): string {
  try {
    const git = (...args: string[]) =>
      execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    const changed = git('status', '--porcelain', '--', ...CODE.broker, 'test/sim', ':(exclude)test/sim/ledger.ndjson') !== '';
    return `${git('rev-parse', '--short=12', 'HEAD')}${changed ? '+' : ''}`;
  } catch {
    return 'unknown';
  }
}

export function readLedger(path = LEDGER): Campaign[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.filter((line) => line.trim() !== '').map((line) => JSON.parse(line) as Campaign);
}

/** Puts the campaign at the ledger's end, or in the place of what it was before: it is written while it runs. */
export function writeDown(campaign: Campaign, path = LEDGER): void {
  const same = ({ kind, code, from }: Campaign) => kind === campaign.kind && code === campaign.code && from === campaign.from;
  const campaigns = [...readLedger(path).filter((other) => !same(other)), campaign];
  writeFileSync(path, campaigns.map((each) => `${JSON.stringify(each)}\n`).join(''));
}

/** The campaigns of the code as it is now. */
export function validCampaigns(kind: Kind, path = LEDGER): Campaign[] {
  const code = codeHash(kind);
  return readLedger(path).filter((campaign) => campaign.kind === kind && campaign.code === code);
}

/** The first seed that no campaign of this code has run. */
export function nextSeed(campaigns: readonly Campaign[]): number {
  return 1 + Math.max(0, ...campaigns.map(({ to }) => to));
}

export function totalOf(campaigns: readonly Campaign[]): SummaryData {
  return campaigns.reduce((sum, { summary }) => add(sum, summary), EMPTY);
}

function filesOf(path: string): string[] {
  const absolute = join(root, path);
  if (path.endsWith('.ts') || path.endsWith('.json')) return [path];
  return readdirSync(absolute, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length).replaceAll('\\', '/'));
}
