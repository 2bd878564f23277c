/**
 * `node bench/held-memory.ts MB`: holds all memory but so many MB until it is ended, so that the page cache must use its pages again, as where it has
 * grown to its end. Memory that a virtual machine has not used lately may be dear: 2.3 to 3.0 CPU seconds a GB written to files, where it was measured, and
 * 0.2 to 0.3 in memory that was in use just before (docs/adr/0010-write-once.md).
 */
import { readFileSync, writeFileSync } from 'node:fs';

const CHUNK_BYTES = 64 << 20;
const PAGE_BYTES = 4096;

const leaveBytes = Number(process.argv[2]) * 1e6;
if (!(leaveBytes > 0)) throw new Error('say how many MB are to stay available: node bench/held-memory.ts 3500');
// If it was too much, this process goes first.
writeFileSync('/proc/self/oom_score_adj', '1000');
const held: Uint8Array[] = [];
while (availableBytes() > leaveBytes + CHUNK_BYTES) {
  const chunk = new Uint8Array(CHUNK_BYTES);
  for (let at = 0; at < chunk.length; at += PAGE_BYTES) chunk[at] = 1;
  held.push(chunk);
}
console.log(`holds ${(held.length * CHUNK_BYTES) / 1e6} MB`);
setInterval(() => held.length, 1e9);

function availableBytes(): number {
  return Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024;
}
