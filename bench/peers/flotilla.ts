import { connect } from '../../src/client/index.ts';
import { DevCluster } from '../dev-cluster.ts';
import { makeTopic, measureConsume, measureGap, measureLatency, measureProduce } from '../measures.ts';
import { largestResident, type Plan, RECORD_BYTES, type Result } from './system.ts';

const LATENCY_RECORDS = 2000;
const WARM_UP_SHARE = 1 / 3;

/** Three brokers of this repository, and its SDK, with their defaults. */
export async function measureFlotilla({ parts, records }: Plan): Promise<Result> {
  await using cluster = await DevCluster.start({ quiet: true });
  await using client = await connect({ bootstrap: cluster.bootstrap });
  for (const topic of ['warm', 'load', 'latency', 'failover']) await makeTopic(client, topic);
  let result: Result = { readyMs: cluster.readyMs };
  if (parts.has('produce') || parts.has('consume')) {
    await measureProduce(client, 'warm', { bytes: records * RECORD_BYTES * WARM_UP_SHARE });
    const { megabytesPerSecond } = await measureProduce(client, 'load', { bytes: records * RECORD_BYTES });
    const residentMB = largestResident([1, 2, 3].map((broker) => cluster.pid(broker)));
    result = { ...result, produceMBs: megabytesPerSecond, residentMB };
  }
  if (parts.has('latency')) {
    const { p50Ms, p99Ms } = await measureLatency(client, 'latency', LATENCY_RECORDS);
    result = { ...result, p50Ms, p99Ms };
  }
  if (parts.has('consume')) result = { ...result, consumeMBs: (await measureConsume(client, 'load', records)).megabytesPerSecond };
  if (parts.has('gap'))
    result = { ...result, gapMs: (await measureGap(client, 'failover', (leader) => cluster.signal(leader, 'SIGKILL'))).gapMs };
  return result;
}
