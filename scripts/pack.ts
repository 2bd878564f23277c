/**
 * `npm run pack`: the SDK as the package `@flotilla/client`, plain JavaScript with types for Node 20 and later, in dist/.
 *
 * gRPC comes inside, without the loader of .proto files, which the SDK never calls: of all that is under it, that alone would run a script
 * at installation. So installing the SDK runs none.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, runSteps, tool } from './steps.ts';

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  readonly dependencies: Readonly<Record<string, string>>;
}

const built = join(root, 'dist/client');
const modules = join(root, 'node_modules');
const BUNDLED = '@grpc/grpc-js';
/** What gRPC loads for channelz and ORCA alone, when they are asked for. */
const LEFT_OUT = '@grpc/proto-loader';

function readManifest(directory: string): Manifest {
  return JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as Manifest;
}

function writeJson(path: string, value: unknown): void {
  writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);
}

/** TypeScript leaves the .ts of imports in declarations; older compilers don't take them. */
function rewriteDeclarations(directory: string): void {
  for (const entry of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    if (!entry.endsWith('.d.ts')) continue;
    const path = join(directory, entry);
    writeFileSync(path, readFileSync(path, 'utf8').replaceAll(/((?:from |import\()['"]\.[^'"]*)\.ts(['"])/g, '$1.js$2'));
  }
}

function bundle(name: string, leftOut: readonly string[]): void {
  const from = join(modules, name);
  const to = join(built, 'node_modules', name);
  const isWanted = (path: string) => !/\.(map|ts)$/.test(path) || path.endsWith('.d.ts');
  mkdirSync(to, { recursive: true });
  for (const part of readdirSync(from)) {
    if (/^(build|dist|LICENSE.*|README.*)$/.test(part)) cpSync(join(from, part), join(to, part), { recursive: true, filter: isWanted });
  }
  const { scripts: _, devDependencies: __, ...manifest } = readManifest(from) as Manifest & Record<string, unknown>;
  const dependencies = Object.fromEntries(Object.entries(manifest.dependencies ?? {}).filter(([each]) => !leftOut.includes(each)));
  writeJson(join(to, 'package.json'), { ...manifest, dependencies });
  for (const each of Object.keys(dependencies)) bundle(each, []);
}

function manifestOfClient(project: Manifest): unknown {
  const { version, license, dependencies } = project;
  const entry = (path: string) => ({ types: `./${path}.d.ts`, default: `./${path}.js` });
  const peers = ['lz4-napi', 'snappy'];
  return {
    name: '@flotilla/client',
    version,
    description: 'The client of Flotilla: produce, consume, administer.',
    license,
    type: 'module',
    sideEffects: false,
    engines: { node: '>=20' },
    exports: {
      '.': entry('client/index'),
      './lz4': entry('platform/compression-lz4'),
      './snappy': entry('platform/compression-snappy'),
      './package.json': './package.json',
    },
    dependencies: {
      '@bufbuild/protobuf': dependencies['@bufbuild/protobuf'],
      [BUNDLED]: readManifest(join(modules, BUNDLED)).version,
    },
    bundleDependencies: [BUNDLED],
    peerDependencies: Object.fromEntries(peers.map((name) => [name, dependencies[name]])),
    peerDependenciesMeta: Object.fromEntries(peers.map((name) => [name, { optional: true }])),
  };
}

/** The page about the SDK, under the name that it has here, without links into the clone. */
function readme(): string {
  const page = readFileSync(join(root, 'docs/sdk.md'), 'utf8');
  return page
    .replaceAll("'flotilla/client", "'@flotilla/client")
    .replace(
      /\n\n.*is not on npm yet[\s\S]*?runs no script\.\n/,
      '\n\nPure TypeScript over gRPC, for Node 20 and later; installing it runs no script.\n',
    )
    .replaceAll(/\[([^\]]*)\]\((?!https?:|#)[^)]*\)/g, '$1');
}

rmSync(built, { recursive: true, force: true });
runSteps([{ name: 'compile', command: [...tool('typescript', 'tsc'), '-p', 'tsconfig.client.json'] }]);
rewriteDeclarations(built);
bundle(BUNDLED, [LEFT_OUT]);
writeJson(join(built, 'package.json'), manifestOfClient(readManifest(root)));
writeFileSync(join(built, 'README.md'), readme());
cpSync(join(root, 'LICENSE'), join(built, 'LICENSE'));
const packed = spawnSync('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', '..'], {
  cwd: built,
  encoding: 'utf8',
  shell: process.platform === 'win32',
});
if (packed.status !== 0) {
  console.error(packed.stderr);
  process.exit(1);
}
const [archive] = JSON.parse(packed.stdout) as [{ filename: string; size: number; unpackedSize: number }];
const mb = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
console.log(`dist/${archive.filename}: ${mb(archive.size)}, ${mb(archive.unpackedSize)} unpacked`);
