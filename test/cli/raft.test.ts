import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { duration } from '../../src/cli/format.ts';
import { table } from '../../src/cli/table.ts';
import { configuration, group, leading, member, replica, silent } from '../client/raft-fixtures.ts';
import { FakeCluster, flotilla } from './fake.ts';

function clusterWith(...groups: ReturnType<typeof group>[]): FakeCluster {
  const cluster = new FakeCluster();
  cluster.add('orders', 2);
  cluster.groups = groups;
  return cluster;
}

const metadata = group({ name: 'metadata', topic: undefined });
const down = group({
  name: 'orders/1',
  partition: 1,
  inSync: [1, 2],
  replicas: [leading(1, { inSync: [1, 2] }), replica(2)],
  silent: [silent(3, false)],
});

describe('raft list', () => {
  it('has a line for each group', async () => {
    const quiet = group({ replicas: [leading(1, { quiesced: true }), replica(2), replica(3)] });
    const { out, err, code } = await flotilla(['raft', 'list'], { cluster: clusterWith(metadata, quiet, down) });
    expect(code).toBe(0);
    expect(out.split('\n')).toEqual([
      'GROUP     LEADER  TERM  COMMIT  IN SYNC  STATE',
      'metadata  1       4     1,204   3/3      ok',
      'orders/0  1       4     1,204   3/3      quiesced',
      'orders/1  1       4     1,204   2/3      no-answer',
      '',
    ]);
    expect(err).toBe("broker 3 did not answer, so its replicas are not counted: host-3:9400 can't be reached\n");
  });

  it('says that nobody leads', async () => {
    const headless = group({ leader: undefined, inSync: undefined, replicas: [replica(1), replica(2), replica(3)] });
    const { out } = await flotilla(['raft', 'list'], { cluster: clusterWith(headless) });
    expect(out).toContain('orders/0  none    4     1,204   ?/3      no-leader');
  });

  it('filters by topic, by broker and by problems', async () => {
    const cluster = clusterWith(metadata, group(), down);
    const names = async (...argv: string[]) => {
      const { json } = await flotilla(['raft', 'list', '--json', ...argv], { cluster });
      return (json as { name: string }[]).map(({ name }) => name);
    };
    expect(await names('--topic', 'orders')).toEqual(['orders/0', 'orders/1']);
    expect(await names('--problems')).toEqual(['orders/1']);
    // Broker 3 is a member, though it does not answer.
    expect(await names('--broker', '3')).toEqual(['metadata', 'orders/0', 'orders/1']);
    cluster.groups = [group({ replicas: [leading(1)], configuration: configuration({ voters: [member(1)] }) })];
    expect(await names('--broker', '2')).toEqual([]);
    expect(await flotilla(['raft', 'list', '--problems'], { cluster: clusterWith(group()) })).toMatchObject({
      code: 0,
      out: '',
      err: 'nothing to show of 1 group\n',
    });
  });

  it('is one document with --json', async () => {
    expect((await flotilla(['raft', 'list', '--json'], { cluster: clusterWith(group(), down) })).json).toEqual([
      { name: 'orders/0', leader: 1, term: 4, commitIndex: 1204, voters: 3, inSync: 3, state: 'ok', problems: [] },
      expect.objectContaining({ state: 'no-answer', inSync: 2, problems: [expect.objectContaining({ brokerId: 3 })] }),
    ]);
  });

  it('marks problems red on a terminal', async () => {
    const lines: string[] = [];
    const write = (chunk: Buffer, _encoding: string, done: () => void) => {
      lines.push(chunk.toString());
      done();
    };
    const stdout = Object.assign(new Writable({ write }), { isTTY: true });
    await flotilla(['raft', 'list'], { cluster: clusterWith(group(), down), stdout });
    expect(lines.join('')).toContain('\u001b[31mno-answer\u001b[39m');
    expect(lines.join('')).not.toContain('\u001b[31mok');
  });

  it('names the broker that there is not', async () => {
    const { code, err } = await flotilla(['raft', 'list', '--broker', '9'], { cluster: clusterWith(group()) });
    expect({ code, err }).toMatchObject({ code: 1, err: expect.stringContaining('There is no broker 9: there are 1, 2, 3.') });
  });
});

describe('raft describe', () => {
  const lines = async (described: ReturnType<typeof group>) =>
    (await flotilla(['raft', 'describe', described.name], { cluster: clusterWith(described) })).out.split('\n');

  it('puts the replicas side by side, then the configuration, then what is wrong', async () => {
    expect(await lines(down)).toEqual([
      'orders/1: broker 1 leads in term 4; committed up to 1,204; 2 of 3 voters in sync',
      `on disk: groups/${'a'.repeat(32)}-1.0`,
      '',
      'BROKER  REPLICA  ROLE       TERM  LEADER  FIRST  LAST   DURABLE  COMMIT  APPLIED  MATCH  NEXT   LAG  SENDING    IN FLIGHT',
      '1       11       leader     4     1       1      1,204  1,204    1,204   1,204    -      -      -    -          -',
      '2       12       follower   4     1       1      1,204  1,204    1,204   1,204    1,204  1,205  0    replicate  0 (0 B)',
      '3       13       no answer  -     -       -      -      -        -       -        1,204  1,205  0    replicate  0 (0 B)',
      '',
      "configuration: the group's first, committed, seen for 1 h",
      'BROKER  REPLICA  AS     DIRECTORY',
      `1       11       voter  ${'1'.repeat(32)}`,
      `2       12       voter  ${'2'.repeat(32)}`,
      `3       13       voter  ${'3'.repeat(32)}`,
      '',
      '1 problem',
      "  broker 3 did not answer, and the controller takes it for dead: host-3:9400 can't be reached",
      '',
    ]);
  });

  it('tells roles, snapshots, joint configurations and absences', async () => {
    const changing = configuration({ index: 7, committed: false, outgoing: [2, 4].map(member), learners: [member(5)], ageMs: 2_000 });
    const text = (
      await lines(
        group({
          configuration: changing,
          replicas: [
            leading(1, { lastSnapshot: { index: 1000, offset: 900, bytes: 2_000_000 }, pendingDiskBytes: 4096 }),
            replica(2, { quiesced: true }),
            replica(3, { notOpen: 'its log is not whole', role: undefined }),
            replica(4, { membership: 'outgoing', role: 'preCandidate', leader: undefined }),
            replica(5, { membership: 'learner' }),
            replica(6, { membership: 'none', quarantined: 'its log diverged' }),
          ],
        }),
      )
    ).join('\n');
    expect(text).toMatch(/^1 +11 +leader .* 1,000 \(2\.0 MB\) +4\.1 kB/m);
    expect(text).toMatch(/^2 +12 +follower, quiesced +4/m);
    expect(text).toMatch(/^3 +13 +not open +-/m);
    expect(text).toMatch(/^4 +14 +pre-candidate, outgoing +4 +none/m);
    expect(text).toMatch(/^5 +15 +learner +4/m);
    expect(text).toMatch(/^6 +16 +follower, no member, quarantined +4/m);
    expect(text).toContain('joint configuration: from index 7, not committed, seen for 2 s');
    expect(text).toMatch(/^3 +13 +incoming voter +3{32}$/m);
    expect(text).toMatch(/^4 +14 +outgoing voter +4{32}$/m);
    expect(text).toMatch(/^5 +15 +learner +5{32}$/m);
    expect(text).toContain(
      '2 problems\n  the replica of broker 6 takes no part: its log diverged\n  the replica of broker 3 is not open: its log is not whole',
    );
  });

  it('shows a replica that its broker does not know of, and brokers that are no members', async () => {
    const text = (await lines(group({ replicas: [leading(1), replica(2)], silent: [silent(7)] }))).join('\n');
    expect(text).toMatch(/^3 +13 +not there +-/m);
    expect(text).toContain("broker 7, no member, did not answer: host-7:9400 can't be reached");
  });

  it('is the typed description with --json', async () => {
    const { json } = await flotilla(['raft', 'describe', 'orders/1', '--json'], { cluster: clusterWith(down) });
    expect(json).toMatchObject({
      name: 'orders/1',
      leader: { brokerId: 1, replicaId: 11 },
      replicas: [{ brokerId: 1, role: 'leader', followers: [{ lag: 0 }, {}] }, { brokerId: 2 }],
      silent: [{ brokerId: 3, alive: false, error: { code: 'NETWORK_EXCEPTION', message: "host-3:9400 can't be reached" } }],
      problems: [{ kind: 'no-answer', brokerId: 3 }],
    });
  });

  it('says that nothing is wrong', async () => {
    expect((await lines(group())).slice(-3)).toEqual(['', 'no problems', '']);
  });

  it.each(['orders', 'orders/x', ''])('%j is wrong usage', async (name) => {
    expect(await flotilla(['raft', 'describe', name])).toMatchObject({ code: 2, err: expect.stringContaining('TOPIC/PARTITION') });
  });
});

it('a table of thousands of rows is aligned as one', () => {
  const rows = Array.from({ length: 1_234 }, (_, at) => [at, at === 1_000 ? 'a wide cell' : 'x', at]);
  const lines = table(['A', 'B', 'C'], rows, false).split('\n');
  expect(lines).toHaveLength(1_235);
  expect(lines[0]).toBe('A     B            C');
  expect(lines[1]).toBe('0     x            0');
  expect(lines[1_001]).toBe('1000  a wide cell  1000');
  expect(lines[1_234]).toBe('1233  x            1233');
});

it.each([
  [0, '0 s'],
  [59_999, '59 s'],
  [60_000, '1 min'],
  [3_600_000, '1 h'],
  [86_400_000, '1 d'],
  [40 * 86_400_000, '40 d'],
])('%d ms are %s', (ms, text) => {
  expect(duration(ms)).toBe(text);
});
