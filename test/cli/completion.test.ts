/** The completion scripts in the shells they are for: bash is on every machine that runs these tests, zsh and fish where they are installed. */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { completionScript, type Shell } from '../../src/cli/commands/completion.ts';
import { defineProgram } from '../../src/cli/program.ts';
import { TemporaryDirectory } from '../processes.ts';

const directory = new TemporaryDirectory();
afterAll(() => directory[Symbol.dispose]());

const program = defineProgram({ stdout: process.stdout, stderr: process.stderr, env: {} }, () => {});
const isInstalled = (shell: string) => spawnSync(shell, ['-c', 'true']).status === 0;
const shells = (['bash', 'zsh', 'fish'] as const).filter((shell) => shell === 'bash' || isInstalled(shell));

/** What <TAB> at the end of the line offers. */
function offered(shell: Shell, line: string): string[] {
  const script = directory.join(`flotilla.${shell}`);
  writeFileSync(script, completionScript(shell, program));
  const words = line.split(' ').map((word) => `'${word}'`);
  const asBash = `COMP_WORDS=(${words.join(' ')}); COMP_CWORD=${words.length - 1}; _flotilla; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const drivers = {
    bash: ['--norc', '-c', `source ${script}; complete -p flotilla >/dev/null || exit 1; ${asBash}`],
    zsh: [
      '-f',
      '-c',
      `autoload -U compinit; compinit -u -D; source ${script}; emulate sh -c ${JSON.stringify(asBash).replaceAll('$', '\\$')}`,
    ],
    fish: ['--no-config', '-c', `source ${script}; complete -C '${line}' | string match -r '^\\S+'`],
  };
  const { status, stdout, stderr } = spawnSync(shell, drivers[shell], { encoding: 'utf8', cwd: directory.path });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  // zsh itself leaves out what does not begin as the word does.
  const word = line.slice(line.lastIndexOf(' ') + 1);
  const shown = (offer: string) => offer !== '' && (shell !== 'zsh' || offer.startsWith(word));
  return stdout.split('\n').filter(shown).sort();
}

describe.each(shells)('in %s', (shell) => {
  it.each([
    ['flotilla t', ['topic']],
    ['flotilla topic ', ['alter', 'create', 'delete', 'delete-records', 'describe', 'list']],
    ['flotilla topic de', ['delete', 'delete-records', 'describe']],
    ['flotilla --json topic d', ['delete', 'delete-records', 'describe']],
    ['flotilla --bootstrap localhost:1 cluster ', ['describe']],
    ['flotilla raft ', ['describe', 'list']],
    ['flotilla raft list --p', ['--problems']],
    ['flotilla topic create orders --p', ['--partitions']],
    ['flotilla topic create produce --c', ['--config']],
    ['flotilla produce orders --compression ', ['gzip', 'lz4', 'none', 'snappy', 'zstd']],
    ['flotilla produce orders --compression z', ['zstd']],
    ['flotilla completion ', ['bash', 'fish', 'zsh']],
    ['flotilla bench p', ['produce']],
  ])('%j <TAB> offers %j', (line, words) => {
    expect(offered(shell, line)).toEqual(words);
  });
});
