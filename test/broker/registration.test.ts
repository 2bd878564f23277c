import { expect, it } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import type { BrokerId, DirectoryId } from '../../src/base/ids.ts';
import type { Partition } from '../../src/broker/partition.ts';
import type { Partitions } from '../../src/broker/partitions.ts';
import { Registration } from '../../src/broker/registration.ts';
import type { BrokerHeartbeat, Controller } from '../../src/controller/types.ts';
import { MetadataStore } from '../../src/metadata/view.ts';
import { topicId } from './fake-replica.ts';
import { ManualEnvironment, settled } from './manual-environment.ts';

/** A broker with so many open partitions, none of which leads, and what the controller hears of it. */
function broker(count: number) {
  let looks = 0;
  let term = 0;
  const refusals: FlotillaError[] = [];
  const heard: string[][] = [];
  const open = Array.from({ length: count }, (_, partition) => {
    const replica = { leadership: { ready: false, term: 0 } };
    return { topicId, partition, replica, leaderEpoch: 0 };
  });
  const partitions = {
    *all() {
      for (const each of open) {
        looks++;
        yield each;
      }
    },
    get: (_: unknown, partition: number) => open[partition],
  } as unknown as Partitions;
  const controller = {
    registerBroker: async () => {},
    heartbeat: async ({ leaders }: BrokerHeartbeat) => {
      const refusal = refusals.shift();
      if (refusal !== undefined) throw refusal;
      heard.push(leaders.map(({ partition, leaderEpoch }) => `${partition}@${leaderEpoch}`));
    },
  } as unknown as Controller;
  const environment = new ManualEnvironment();
  const registration = new Registration({
    registration: {
      brokerId: 1 as BrokerId,
      directoryId: 'd'.repeat(32) as DirectoryId,
      incarnation: 1,
      rack: undefined,
      listeners: new Map(),
      peerAddress: 'here:1',
    },
    controller,
    partitions,
    metadata: new MetadataStore(),
    environment,
    log: silentLogger,
    heartbeatIntervalMs: 1000,
    requestTimeoutMs: 1000,
  });
  const lead = (partition: number, ready = true) => {
    const one = open[partition];
    if (one === undefined) return;
    term++;
    Object.assign(one, { leaderEpoch: term, replica: { leadership: { ready, term } } });
    registration.leadershipChanged(one as unknown as Partition);
  };
  return { registration, environment, heard, open, refusals, lead, looks: () => looks };
}

it('looks only at partitions whose leadership changed: thousands begin to lead at a start', async () => {
  const { registration, heard, lead, looks } = broker(1000);
  registration.start();
  await settled();
  const before = looks();
  for (let partition = 0; partition < 50; partition++) {
    lead(partition);
    await settled();
  }
  expect(looks()).toBe(before);
  expect(heard.flat()).toEqual(Array.from({ length: 50 }, (_, at) => `${at}@${at + 1}`));
  await registration.stop();
});

it('repeats what was not acknowledged, and after a new registration all of it', async () => {
  const { registration, environment, heard, refusals, lead, open } = broker(3);
  registration.start();
  await settled();
  lead(0);
  await settled();
  expect(heard.flat()).toEqual(['0@1']);
  refusals.push(new FlotillaError('REQUEST_TIMED_OUT', 'lost'));
  lead(1);
  await settled();
  expect(heard.flat()).toEqual(['0@1']);
  environment.advance(5000);
  await settled();
  expect(heard.flat()).toEqual(['0@1', '1@2']);
  refusals.push(new FlotillaError('BROKER_ID_NOT_REGISTERED', 'who?'));
  environment.advance(5000);
  await settled();
  environment.advance(5000);
  await settled();
  expect(heard.at(-1)).toEqual(['0@1', '1@2']);
  // One that is being opened, or was replaced, is nobody's news.
  lead(2, false);
  await settled();
  expect(heard.flat().some((what) => what.startsWith('2@'))).toBe(false);
  const former = open[2];
  open[2] = { ...open[1] } as (typeof open)[number];
  registration.leadershipChanged(former as unknown as Partition);
  await settled();
  expect(heard.flat().some((what) => what.startsWith('2@'))).toBe(false);
  await registration.stop();
});
