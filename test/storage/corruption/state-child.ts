/** The process of {@link StateProcess}: one start for each message. */
import { FakeGroup } from '../../rsm/fakes.ts';
import type { StartReply, StartRequest } from './state-process.ts';
import { startOn } from './state-start.ts';

async function start({ directory, incarnation, log: given }: StartRequest): Promise<StartReply> {
  try {
    const group = new FakeGroup();
    const { log } = group;
    group.term = given.term;
    log.entries.push(...given.entries);
    log.committed = given.entries.length;
    log.firstReplicableIndex = given.firstReplicableIndex;
    log.snapshot = given.snapshot;
    const { runtime, loaded, close } = await startOn(directory, incarnation, group);
    const words = runtime.state;
    await close();
    return { words, loaded, log: { ...given, term: group.term, entries: log.entries } };
  } catch (error) {
    return { failure: error instanceof Error ? error.message : String(error) };
  }
}

process.on('message', async (request: StartRequest) => process.send?.(await start(request)));
