/** What goes wrong around a real broker process: its ports, its directory, its configuration, and who connects to it. */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Client, connect } from '../../src/client/index.ts';
import { BrokerUnderTest, type Ended, freePorts, run, start, TemporaryDirectory, until } from '../processes.ts';

let home: TemporaryDirectory;
let clientPort: number;
let internalPort: number;
let config: string;
let broker: BrokerUnderTest;
let client: Client;
const silent: { readonly closed: Promise<string> }[] = [];
const sent: string[] = [];

const settings = (lines: string) => `node.id: 1\nlog.dir: ${home.join('data')}\n${lines}`;
const refused = (...argv: string[]) => run(['start', '--config', config, ...argv]);

beforeAll(async () => {
  home = new TemporaryDirectory();
  clientPort = await freePorts(2);
  internalPort = clientPort + 1;
  config = home.join('broker.yaml');
  const listeners = `CLIENT://127.0.0.1:${clientPort},INTERNAL://127.0.0.1:${internalPort}`;
  writeFileSync(config, settings(`listeners: ${listeners}\ninter.broker.listener.name: INTERNAL\n`));
  broker = await new BrokerUnderTest(['--config', config]).ready();
  client = await connect({ bootstrap: `127.0.0.1:${clientPort}` });
  await client.admin.createTopic({ name: 'kept', partitions: 1, replicas: 1 });
  for (const start of ['', 'PRI', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']) {
    for (const port of [clientPort, internalPort]) silent.push({ closed: heard(port, start) });
  }
}, 30_000);

/** Whatever came: the broker goes on serving, and has lost nothing. */
afterEach(async () => {
  expect(broker.isRunning, broker.log).toBe(true);
  sent.push(`after ${sent.length}`);
  await client.producer().send('kept', { value: sent.at(-1) as string });
  expect(await readAll(client)).toEqual(sent);
});

afterAll(async () => {
  await client?.close({ deadlineMs: 1_000 });
  await broker?.end('SIGKILL');
  home?.[Symbol.dispose]();
});

async function readAll(from: Client): Promise<string[]> {
  const values: string[] = [];
  await using consumer = from.consumer({ topics: ['kept'], from: 'beginning' });
  for await (const { value } of consumer) {
    values.push(Buffer.from(value as Uint8Array).toString());
    if (values.length === sent.length) break;
  }
  return values;
}

/** What a connection that sends `bytes` is told until the broker closes it. */
function heard(port: number, bytes: string | Uint8Array): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connectTcp(port, '127.0.0.1');
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
    socket.write(bytes);
  });
}

/** One line for a person, no stack, exit 1. */
function expectClear({ code, out, err }: Ended, pattern: RegExp): void {
  expect(err).toMatch(pattern);
  expect({ code, out, lines: err.split('\n').length }).toEqual({ code: 1, out: '', lines: 2 });
}

describe('a port', () => {
  it('that is in use is named with the next step', async () => {
    const taken = await refused('--set', `log.dir=${home.join('other')}`);
    expectClear(
      taken,
      new RegExp(`Port ${clientPort} on 127.0.0.1 is in use. Stop the program that holds it, or give listener "CLIENT" another`),
    );
  });

  it('that no broker can have is refused', async () => {
    const other = ['--set', `log.dir=${home.join('elsewhere')}`, '--set'];
    expectClear(
      await refused(...other, 'listeners=CLIENT://192.0.2.1:9400,INTERNAL://127.0.0.1:0'),
      /192.0.2.1 is no address of this machine/,
    );
    expectClear(await refused(...other, 'listeners=CLIENT://127.0.0.1:99999'), /Set listeners to NAME:\/\/host:port/);
  });

  it('of another server is named by the client', async () => {
    const server = createHttpServer((_, response) => response.end('hello'));
    const port = await new Promise<number>((resolve) =>
      server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port)),
    );
    try {
      const connecting = connect({ bootstrap: `127.0.0.1:${port}`, connectTimeoutMs: 500 });
      await expect(connecting).rejects.toMatchObject({ code: 'BROKER_NOT_AVAILABLE', message: expect.stringContaining(String(port)) });
    } finally {
      server.close();
    }
  }, 30_000);
});

describe.each(['CLIENT', 'INTERNAL'])('a connection to %s', (listener) => {
  const port = () => (listener === 'CLIENT' ? clientPort : internalPort);
  let session: ClientHttp2Session;
  beforeAll(() => {
    session = connectHttp2(`http://127.0.0.1:${port()}`);
  });
  afterAll(() => session.destroy());

  /** The status that a gRPC call with this body ends with. */
  function statusOf(path: string, body: Uint8Array, contentType = 'application/grpc'): Promise<string> {
    return new Promise((resolve, reject) => {
      const request = session.request({ ':method': 'POST', ':path': path, 'content-type': contentType, te: 'trailers' });
      request.on('response', (headers) => {
        if (headers[':status'] !== 200) resolve(`HTTP ${headers[':status']}`);
        else if (headers['grpc-status'] !== undefined) resolve(`${headers['grpc-status']} ${headers['grpc-message']}`);
      });
      request.on('trailers', (trailers) => resolve(`${trailers['grpc-status']} ${trailers['grpc-message']}`));
      request.on('error', reject);
      request.resume();
      request.write(body);
    });
  }

  const frame = (length: number, bytes: Uint8Array) => {
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(length, 1);
    return Buffer.concat([prefix, bytes]);
  };

  it('that speaks HTTP/1.1 is told the protocol, and closed', async () => {
    // An HTTP/2 server's first words are its SETTINGS; then GOAWAY.
    const answer = await heard(port(), 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    expect(Buffer.from(answer, 'latin1')[3]).toBe(4);
  });

  it('that speaks nonsense is closed', async () => {
    const noise = Uint8Array.from({ length: 100_000 }, (_, at) => (at * 7919 + (at >> 3)) & 0xff);
    await heard(port(), noise);
    await heard(port(), Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), noise]));
  });

  it('whose message is over the limit, or is none, is answered with a status', async () => {
    const over = 64 * 2 ** 20 + 1;
    for (const method of ['Admin/Metadata', 'Data/Produce', 'Data/Fetch', 'Raft/Messages']) {
      const answer = await statusOf(`/flotilla.v1.${method}`, frame(over, new Uint8Array(1_000)));
      expect(answer, method).toMatch(/^(8 Received%20message%20larger|12 )/);
      expect(await statusOf(`/flotilla.v1.${method}`, frame(9, new Uint8Array(9).fill(0xff))), method).toMatch(/^(13|3|12) /);
    }
    expect(await statusOf('/flotilla.v1.Admin/Metadata', frame(over, new Uint8Array(1)))).toMatch(/^8 /);
    expect(await statusOf('/nobody/Knows', frame(0, new Uint8Array()))).toMatch(/^12 /);
    expect(await statusOf('/flotilla.v1.Admin/Metadata', Buffer.from('{}'), 'application/json')).toBe('HTTP 415');
  });

  it('comes and goes thousands of times', async () => {
    for (let wave = 0; wave < 20; wave++) {
      const sockets: Socket[] = Array.from({ length: 100 }, () => connectTcp(port(), '127.0.0.1'));
      await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('connect', resolve))));
      for (const [at, socket] of sockets.entries()) {
        if (at % 3 === 0) socket.end();
        else if (at % 3 === 1) socket.destroy();
        else socket.resetAndDestroy();
      }
    }
  });

  it('opens thousands of calls and cancels them at once', async () => {
    const resets = connectHttp2(`http://127.0.0.1:${port()}`);
    resets.on('error', () => {});
    const closed = new Promise((resolve) => resets.once('close', resolve));
    for (let at = 0; at < 3_000 && !resets.closed && !resets.destroyed; at++) {
      const request = resets.request({ ':method': 'POST', ':path': '/flotilla.v1.Data/Produce', 'content-type': 'application/grpc' });
      request.on('error', () => {});
      request.close(8);
      if (at % 100 === 0) await new Promise(setImmediate);
    }
    resets.destroy();
    await closed;
  });
});

describe('a data directory', () => {
  it('in use by a running broker stays with it', async () => {
    const inUse = new RegExp(`${home.join('data')} is in use by process ${broker.pid} .*stop that broker first`);
    expectClear(await refused(), inUse);
    expectClear(await run(['format', '--config', config, '--cluster-id', 'f'.repeat(32)]), inUse);
  });

  it.each([
    ['a file', (path: string) => writeFileSync(path, 'x')],
    ['in a file', (path: string) => writeFileSync(path.slice(0, path.lastIndexOf('/')), 'x')],
  ])('that is %s is refused', async (what, make) => {
    const path = what === 'a file' ? home.join('file') : home.join('file2', 'data');
    make(path);
    expectClear(await refused('--set', `log.dir=${path}`), /data directory .*file.* can't be made: .*set log.dir to another/);
  });

  /** A directory with this identity alone, which is looked at before anything else. */
  const directoryWith = (name: string, identity: string) => {
    mkdirSync(home.join(name));
    writeFileSync(home.join(name, 'directory.json'), identity);
    return ['--set', `log.dir=${home.join(name)}`];
  };
  const meta = () => home.join('data', 'directory.json');

  it('of another broker or another cluster is refused', async () => {
    const copy = directoryWith('copy', readFileSync(meta(), 'utf8'));
    expectClear(
      await refused(...copy, '--set', 'node.id=2'),
      /belongs to broker 1, not 2; start broker 1 on it or choose another directory/,
    );
    const other = `cluster.id=${'f'.repeat(32)}`;
    expectClear(await refused(...copy, '--set', other), /belongs to cluster [0-9a-f]{32}, not f{32}; choose another directory/);
  });

  it('with a damaged identity is refused and left as it is', async () => {
    const text = readFileSync(meta(), 'utf8');
    const damaged = ['', text.slice(0, -20), 'null', text.replace(/"incarnation": \d+/, '"incarnation": 9')];
    const refusals = damaged.map(async (bad, at) => {
      expectClear(
        await refused(...directoryWith(`damaged-${at}`, bad)),
        /directory\.json is damaged: .*; restore it, or wipe the directory/,
      );
      expect(readFileSync(home.join(`damaged-${at}`, 'directory.json'), 'utf8')).toBe(bad);
    });
    await Promise.all(refusals);
  });

  it('whose identity is put right again has everything', async () => {
    await client.close();
    await broker.end('SIGKILL');
    const good = readFileSync(meta());
    const copy = home.join('data', 'directory.copy.json');
    for (const path of [meta(), copy]) writeFileSync(path, good.subarray(0, 100));
    expectClear(await refused(), /directory\.json is damaged/);
    // One of the two is enough.
    writeFileSync(copy, good);
    broker = await new BrokerUnderTest(['--config', config]).ready();
    client = await connect({ bootstrap: `127.0.0.1:${clientPort}` });
  }, 30_000);
});

describe('a configuration', () => {
  const written = (name: string, text: string) => {
    writeFileSync(home.join(name), text);
    return home.join(name);
  };
  const started = (path: string, ...set: string[]) => run(['start', '--config', path, ...set.flatMap((each) => ['--set', each])]);

  it('that can not be read is named with what is wrong', async () => {
    mkdirSync(home.join('directory'));
    const none = home.join('none.yaml');
    await Promise.all([
      started(none).then((ended) => expectClear(ended, /There is no configuration file .*none\.yaml. Give --config the file/)),
      started(home.join('directory')).then((ended) =>
        expectClear(ended, /directory is a directory. Give --config the configuration file itself/),
      ),
      started(written('bad.yaml', 'node.id: [1\nlog.dir: }')).then((ended) =>
        expectClear(ended, /bad\.yaml is not valid YAML: .* at line 2, column/),
      ),
      started(written('text.yaml', 'node.id 1')).then((ended) => expectClear(ended, /text\.yaml must hold keys and values/)),
      started(written('empty.yaml', '')).then((ended) =>
        expectClear(ended, /node\.id is not set. Set it in the file, as FLOTILLA_NODE_ID, or with --set/),
      ),
    ]);
  });

  it('with an unknown key or a wrong value is refused with what is right', async () => {
    const slip = written('slip.yaml', settings('num.partition: 3'));
    const voters = 'controller.quorum.voters=2@127.0.0.1:1';
    await Promise.all([
      started(slip).then((ended) => expectClear(ended, /no setting num\.partition \(in the file\). Did you mean num\.partitions\?/)),
      started(config, 'num.partitions=many').then((ended) => expectClear(ended, /Set num\.partitions to a whole number, 1 to 100000/)),
      started(config, 'log.segment.bytes=1').then((ended) => expectClear(ended, /log\.segment\.bytes=1 is not valid. Set/)),
      started(config, voters, 'process.roles=controller').then((ended) =>
        expectClear(ended, /node\.id=1 is not in controller\.quorum\.voters/),
      ),
    ]);
  });
});

describe('a broker that may open few files', () => {
  it('serves more partitions than it can hold open, and is not starved by idle connections', async () => {
    const data = home.join('few');
    const port = await freePorts(1);
    const few = new BrokerUnderTest(['--set', 'node.id=1', '--set', `log.dir=${data}`, '--set', `listeners=A://127.0.0.1:${port}`], {
      openFiles: 160,
    });
    const idle: Socket[] = [];
    try {
      await few.ready();
      await using own = await connect({ bootstrap: `127.0.0.1:${port}` });
      await own.admin.createTopic({ name: 'wide', partitions: 100, replicas: 1 });
      for (let at = 0; at < 300; at++) idle.push(connectTcp(port, '127.0.0.1').on('error', () => {}));
      const values = Array.from({ length: 300 }, (_, at) => `${at}`);
      await using producer = own.producer();
      await Promise.all(values.map((value, at) => producer.send('wide', { value, partition: at % 100 })));
      await using consumer = own.consumer({ topics: ['wide'], from: 'beginning' });
      const read: string[] = [];
      for await (const { value } of consumer) if (read.push(Buffer.from(value as Uint8Array).toString()) === values.length) break;
      expect(read.sort()).toEqual(values.sort());
      await own.close();
      expect(await few.end('SIGTERM')).toMatchObject({ code: 0 });
    } finally {
      for (const socket of idle) socket.destroy();
      await few.end('SIGKILL');
    }
    const again = await new BrokerUnderTest(
      ['--set', 'node.id=1', '--set', `log.dir=${data}`, '--set', `listeners=A://127.0.0.1:${port}`],
      {
        openFiles: 160,
      },
    ).ready();
    try {
      await using own = await connect({ bootstrap: `127.0.0.1:${port}` });
      await using consumer = own.consumer({ topics: ['wide'], from: 'beginning' });
      let count = 0;
      for await (const _ of consumer) if (++count === 300) break;
    } finally {
      await again.end('SIGKILL');
    }
  }, 30_000);
});

describe('a person who presses Ctrl-C', () => {
  it('ends what waits for input', async () => {
    const producing = await typing('one');
    producing.child.kill('SIGINT');
    expect(await producing.ended).toMatchObject({ code: 1, err: expect.stringContaining('before the end of the input') });
  }, 30_000);

  it('twice does not wait for a broker that answers nothing', async () => {
    const producing = await typing('two');
    try {
      process.kill(broker.pid, 'SIGSTOP');
      producing.child.stdin!.write('never acknowledged\n');
      // Another process comes up meanwhile, so that the line is on its way.
      await run(['config', '--set', 'node.id=1']);
      await until(() => {
        producing.child.kill('SIGINT');
        return producing.child.exitCode !== null;
      });
    } finally {
      process.kill(broker.pid, 'SIGCONT');
    }
    expect(await producing.ended).toMatchObject({ code: 1, err: expect.stringContaining('Ctrl-C came again') });
  }, 30_000);
});

/** `flotilla produce` into a topic of its own, with one record acknowledged and its input open. */
async function typing(topic: string): Promise<{ child: ChildProcess; ended: Promise<Pick<Ended, 'code' | 'err'>> }> {
  await client.admin.createTopic({ name: topic, partitions: 1, replicas: 1 });
  const child = start(['produce', topic], { FLOTILLA_BOOTSTRAP: `127.0.0.1:${clientPort}` });
  const err = child.stderr!.toArray();
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  child.stdin!.on('error', () => {});
  child.stdin!.write('one\n');
  await until(async () => (await client.admin.listOffsets([{ topic, partition: 0, at: 'end' }]))[0] === 1);
  return { child, ended: ended.then(async (code) => ({ code, err: Buffer.concat(await err).toString() })) };
}

describe('connections that say nothing', () => {
  it('are closed by the broker after a while', async () => {
    expect(await Promise.all(silent.map(({ closed }) => closed))).toHaveLength(6);
  }, 30_000);
});
