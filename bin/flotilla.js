#!/usr/bin/env node
// Runs the CLI on the Node that the sources need (24), whatever Node started this file (20 and up).
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));
const [major = 0] = process.versions.node.split('.').map(Number);

/** The pinned Node 24 of the optional dependency for this platform, or undefined where there is none. */
function pinnedNode() {
  const platform = process.platform === 'win32' ? 'win' : process.platform;
  try {
    const manifest = createRequire(import.meta.url).resolve(`node-${platform}-${process.arch}/package.json`);
    return fileURLToPath(new URL(process.platform === 'win32' ? 'bin/node.exe' : 'bin/node', `file://${manifest.replaceAll('\\', '/')}`));
  } catch {
    return undefined;
  }
}

if (major >= 24) {
  const { run } = await import(main);
  await run(process.argv.slice(2));
} else {
  const node = pinnedNode();
  if (node === undefined) {
    process.stderr.write(
      `flotilla needs Node 24 to run from its sources, and this is ${process.version}. Install Node 24, or run npm ci again.\n`,
    );
    process.exit(1);
  }
  const child = spawn(node, [main, ...process.argv.slice(2)], { stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => (signal ? process.kill(process.pid, signal) : process.exit(code ?? 1)));
}
