/** A process that runs seeds for a campaign, one at a time, as its parent orders them. */
import { runSeed, type SeedOrder } from './seed-report.ts';

// Thousands of errors are part of each world, and their stacks cost a tenth of its time; a replay has them.
Error.stackTraceLimit = 0;
// Ctrl-C reaches the whole group of processes: the parent lets the seeds under way come to their end.
process.on('SIGINT', () => {});
process.on('disconnect', () => process.exit());
process.on('message', async (order: SeedOrder) => {
  process.send?.(await runSeed(order));
});
