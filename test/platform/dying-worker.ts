/** A worker that dies of the first batch that it is to clean. */
import { parentPort } from 'node:worker_threads';

parentPort?.on('message', ({ type }: { readonly type: string }) => {
  if (type === 'clean') throw new Error('dies here');
  parentPort?.postMessage(type === 'note' ? { noted: { full: true, unreadable: 0 } } : {});
});
