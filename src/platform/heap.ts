/**
 * How V8 collects in a broker, whose heap is small (20 MB) while what passes through it are buffers outside of the heap. V8 counts those bytes
 * against the heap's next limit, which is near for a small heap: it marked all of the heap for every 8 MB received, on four threads, for 40%
 * of a broker's CPU time.
 */
import { setFlagsFromString } from 'node:v8';

/** Lets about 35 MB of buffers come before the whole heap is marked. */
const LATE_MARKING = '--heap-growing-percent=200';
/** MiB of the young generation: a small one is collected often, which frees most buffers within some MB, and takes 1 ms. The default is 16, for 30 MB more resident. */
const SMALL_YOUNG_GENERATION = '--max-semi-space-size=2';

/** Opening 10,000 replicas takes 15 to 17 CPU seconds with this one, 24 with a small one: what a start makes stays, and a small one is collected 1,500 times, on several threads, to move it on. */
const LARGE_YOUNG_GENERATION = '--max-semi-space-size=32';
/** Replicas that take more memory than the large young generation. */
const MANY_REPLICAS = 1_000;

/** For the command line of a process that is a broker and nothing else. `replicas`: those that its directory holds. The young generation can't be changed later. */
export function brokerHeapFlags(replicas: number): readonly string[] {
  return [LATE_MARKING, replicas < MANY_REPLICAS ? SMALL_YOUNG_GENERATION : LARGE_YOUNG_GENERATION];
}

/**
 * For the environment of a broker's process, where its C library is glibc: buffers from 256 KiB on are given back to the system when they are freed.
 * By default glibc keeps what it has seen freed, up to 32 MiB a buffer and with an arena for each thread: 40 MB more resident under load.
 */
export const brokerMallocSettings: Readonly<Record<string, string>> = { MALLOC_MMAP_THRESHOLD_: '262144', MALLOC_ARENA_MAX: '1' };

/** What can be set in a running process, for brokers started without {@link brokerHeapFlags}. */
export function tuneHeap(): void {
  setFlagsFromString(LATE_MARKING);
}
