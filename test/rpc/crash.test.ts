import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const source = fileURLToPath(new URL('../../src/', import.meta.url));

/** A broker of one handler that breaks an invariant, and its caller, in a process of their own. */
const broken = `
  import { assert } from '${source}base/assert.ts';
  import { silentLogger } from '${source}base/environment.ts';
  import { Data } from '${source}gen/flotilla/v1/data_pb.ts';
  import { grpcConnect } from '${source}rpc/grpc-channel.ts';
  import { serveGrpc } from '${source}rpc/grpc-server.ts';
  import { streamHandler, unaryHandler } from '${source}rpc/types.ts';
  const fail = () => assert(false, 'two leaders in one term');
  const service = {
    unary: new Map([unaryHandler(Data.method.listOffsets, async () => fail())]),
    streams: new Map([streamHandler(Data.method.fetch, fail)]),
  };
  const server = await serveGrpc({ listeners: [{ name: 'x', host: '127.0.0.1', port: 0 }], service, log: silentLogger });
  const channel = grpcConnect()(server.addresses.get('x'));
  const call = process.argv.at(-1);
  if (call === 'unary') await channel.unary(Data.method.listOffsets, { $typeName: 'flotilla.v1.ListOffsetsRequest', partitions: [], isolationLevel: 0, timeoutMs: 0 }, { timeoutMs: 5000 });
  else channel.stream(Data.method.fetch, { message() {}, closed() {}, drained() {} }, {});
  setTimeout(() => process.exit(0), 5000);
`;

test.each(['unary', 'stream'])('a broken invariant ends the process: %s', (call) => {
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', broken, call], { encoding: 'utf8' });
  expect(stderr).toContain('InvariantError: two leaders in one term');
  expect(status).not.toBe(0);
});
