import { spawnSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { root } from '../../scripts/steps.ts';

/** In a process of its own, for the load hook that opens the core. */
function model(...argv: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['test/model/main.ts', '--minutes', '5', ...argv], {
    cwd: root,
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

describe('the exhaustive small model', () => {
  test.each([
    ['elections', 11],
    ['values', 8],
    ['crash', 7],
    ['network', 7],
    ['preVote', 7],
    ['removal', 9],
    ['promotion', 12],
    ['everything', 4],
  ])('%s: every state up to depth %i', (world, depth) => {
    const { status, stdout, stderr } = model('--world', world, '--depth', String(depth));
    expect(stdout, stderr).toContain(`all of depth ${depth};`);
    expect(stdout).not.toContain('BROKEN');
    expect(status).toBe(0);
  });

  test('every state up to depth 6 from where a replica pulls what its leader does not have', () => {
    const { status, stdout, stderr } = model('--world', 'pull', '--from', 'test/model/scripts/pull.txt', '--depth', '6');
    expect(stdout, stderr).toContain('all of depth 6;');
    expect(status).toBe(0);
  });

  test('a world that ends is searched to its end', () => {
    expect(model('--world', 'elections', '--terms', '1', '--servers', '2').stdout).toContain('there are no more');
  });

  test('a script is replayed, and what is no action of a state is refused', () => {
    const file = join(mkdtempSync(join(tmpdir(), 'flotilla-model-')), 'script.txt');
    writeFileSync(file, '# an election\n1 campaigns\ndeliver vote 1>2 term 1 last 0/0 transfer\ndeliver voteResponse 2>1 term 1 granted\n');
    expect(model('--world', 'elections', '--replay', file).stdout).toContain('1 leader term 1 log [1]');
    writeFileSync(file, '2 has written\n');
    expect(model('--world', 'elections', '--replay', file).stderr).toContain('nothing that can happen here: 2 has written');
  });
});
