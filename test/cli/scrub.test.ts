import { describe, expect, it } from 'vitest';
import { FlotillaError } from '../../src/base/errors.ts';
import type { BrokerScrub } from '../../src/client/index.ts';
import { FakeCluster, flotilla } from './fake.ts';

const scrub = (brokerId: number, change: Partial<BrokerScrub> = {}): BrokerScrub => ({
  brokerId,
  error: undefined,
  pass: 1,
  running: false,
  segments: 12,
  segmentsDone: 12,
  bytesDone: 3 << 20,
  findings: [],
  entriesDamaged: 0,
  entriesRepaired: 0,
  ...change,
});

const finding = { group: 'orders/0', file: '/data/groups/x/1.log', position: 4096, what: 'entry 7 does not match its checksum' };

function clusterWith(...scrubs: BrokerScrub[]): FakeCluster {
  const cluster = new FakeCluster();
  cluster.scrubs = scrubs;
  return cluster;
}

describe('log scrub', () => {
  it('has a line for each broker, and one for each damaged place', async () => {
    const found = scrub(2, { findings: [{ ...finding, repaired: true }], entriesDamaged: 1, entriesRepaired: 1 });
    const { out, code } = await flotilla(['log', 'scrub', '--now'], { cluster: clusterWith(scrub(1), found) });
    expect(out.split('\n')).toEqual([
      'BROKER  SEGMENTS READ  SIZE    DAMAGED PLACES  ENTRIES DAMAGED  REPAIRED',
      '1       12             3.1 MB  0               0                0',
      '2       12             3.1 MB  1               1                1',
      'broker 2, orders/0: /data/groups/x/1.log:4096: entry 7 does not match its checksum: repaired',
      '',
    ]);
    expect(code).toBe(0);
  });

  it('exits 1 for what is not put right, and for a broker that does not answer', async () => {
    const open = scrub(1, { findings: [{ ...finding, repaired: false }] });
    const damaged = await flotilla(['log', 'scrub'], { cluster: clusterWith(open) });
    expect(damaged.code).toBe(1);
    expect(damaged.err).toContain('1 damaged place not put right yet');
    const silent = scrub(3, { error: new FlotillaError('BROKER_NOT_AVAILABLE', "host-3:9400 can't be reached") });
    const { code, err } = await flotilla(['log', 'scrub', '--now'], { cluster: clusterWith(scrub(1), silent) });
    expect(code).toBe(1);
    expect(err).toContain('broker 3 did not answer');
  });

  it('tells programs the same', async () => {
    const { json } = await flotilla(['log', 'scrub', '--json'], { cluster: clusterWith(scrub(1)) });
    expect(json).toEqual([{ ...scrub(1), error: null }]);
  });
});
