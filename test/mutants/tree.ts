/** A copy of the sources and tests in a directory of its own, where bugs are planted. */
import { createHash } from 'node:crypto';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from '../../scripts/steps.ts';
import { type Mutant, mutate } from './mutant.ts';

const COPIED = ['src', 'test', 'scripts', 'package.json', 'vitest.config.ts', 'tsconfig.json'];
const TYPES = { extends: './tsconfig.json', include: ['src'], compilerOptions: { noUnusedLocals: false, noUnusedParameters: false } };

export class Tree {
  readonly path: string;
  #planted = new Map<string, string>();

  constructor() {
    this.path = mkdtempSync(join(tmpdir(), 'flotilla-mutant-'));
    for (const name of COPIED) cpSync(join(root, name), join(this.path, name), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(this.path, 'node_modules'));
    // A mutant may leave something unused.
    writeFileSync(join(this.path, 'tsconfig.mutant.json'), JSON.stringify(TYPES));
  }

  /** Puts the mutant, and no other, into the sources. */
  plant(mutant: Mutant | undefined): void {
    for (const [file, text] of this.#planted) writeFileSync(join(this.path, file), text);
    this.#planted = new Map();
    if (mutant === undefined) return;
    for (const [file, text] of mutate(mutant, (name) => this.#read(name))) {
      this.#planted.set(file, this.#read(file));
      writeFileSync(join(this.path, file), text);
    }
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }

  #read(file: string): string {
    return readFileSync(join(this.path, file), 'utf8');
  }
}

/** Of what decides which mutants live: 12 hexadecimal digits over all sources and tests; the mutants themselves are not part of it. */
export function treeHash(): string {
  const hash = createHash('sha256');
  for (const folder of ['src', 'test']) {
    const names = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' });
    for (const name of names.filter((name) => /\.(ts|txt|hex)$/.test(name) && !name.startsWith('mutants/')).sort()) {
      hash.update(`${name}\0`).update(readFileSync(join(root, folder, name)));
    }
  }
  return hash.digest('hex').slice(0, 12);
}
