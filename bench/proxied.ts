import { connect } from '../src/client/index.ts';
import { Cluster } from '../test/jepsen-lite/cluster.ts';
import { CLIENTS } from '../test/jepsen-lite/proxy.ts';
import { makeTopic, measureGap } from './measures.ts';

/**
 * The longest gap after all links of a leader, to brokers and to clients, have begun to swallow everything: nothing is refused, nothing is reset.
 * In a cluster of its own, since each of its connections goes through a proxy in this process.
 */
export async function measureSwallowedGap(): Promise<number> {
  await using cluster = await Cluster.start();
  await using client = await connect({ bootstrap: cluster.bootstrap });
  await makeTopic(client, 'failover');
  const { gapMs } = await measureGap(client, 'failover', (leader) => {
    for (const other of [...cluster.ids.filter((id) => id !== leader), CLIENTS]) {
      cluster.network.set(leader, other, 'swallow');
      cluster.network.set(other, leader, 'swallow');
    }
  });
  return gapMs;
}
