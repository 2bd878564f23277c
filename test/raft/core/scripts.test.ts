import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { runScript } from './script.ts';

const folder = new URL('./testdata/', import.meta.url);
/** REWRITE=1 writes what the scripts print into them: read the diff before you commit it. */
const rewrite = process.env['REWRITE'] === '1';

describe('scripts of the raft core', () => {
  for (const name of readdirSync(folder).filter((each) => each.endsWith('.txt'))) {
    test(name.slice(0, -4).replaceAll('-', ' '), () => {
      const file = new URL(name, folder);
      const script = readFileSync(file, 'utf8');
      const actual = runScript(script);
      if (rewrite) writeFileSync(file, actual);
      else expect(actual).toBe(script);
    });
  }
});
