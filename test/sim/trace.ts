/** A run as a person reads it: who told whom what, one line each, Raft's messages decoded. */
import { formatGroupKey, type GroupKey, METADATA_GROUP } from '../../src/base/ids.ts';
import { decodeFrame, type GroupMessage } from '../../src/raft/codec.ts';
import type { Message } from '../../src/raft/core/types.ts';
import { decodeHeartbeat } from '../../src/raft/heartbeat-codec.ts';
import type { SimCluster } from './cluster.ts';

const MAX_LINE = 400;
/** Characters of a topic's id that tell it from the others of a run. */
const ID_CHARS = 6;

/** Sends a line to `say` for each message that arrives. */
export function traceOf(cluster: SimCluster, say: (line: string) => void): void {
  cluster.network.onMessage = (from, to, method, message) => {
    for (const line of linesOf(method, message)) say(`${from} -> ${to}  ${line}`);
  };
}

function linesOf(method: string, message: object): string[] {
  const payload = 'payload' in message && message.payload instanceof Uint8Array ? message.payload : undefined;
  if (method === 'Exchange' && payload?.[0] === RAFT_MAGIC) return decodeFrame(payload).map(raft);
  if (method === 'Heartbeats' && payload?.[0] === HEARTBEAT_MAGIC) return [heartbeat(payload)];
  return [`${method} ${compact(message)}`.slice(0, MAX_LINE)];
}
const RAFT_MAGIC = 0xf7;
const HEARTBEAT_MAGIC = 0xf8;

function raft({ group, message }: GroupMessage): string {
  return `${nameOf(group)} ${summary(message)}`;
}

function summary(message: Message): string {
  const who = `${message.from}->${message.to} term ${message.term}`;
  switch (message.type) {
    case 'append': {
      const { prevIndex, prevTerm, commit, entries } = message;
      const range = entries.length === 0 ? 'no entries' : `entries ${prevIndex + 1}..${prevIndex + entries.length}`;
      return `append ${who}: ${range} after ${prevIndex}/${prevTerm}, commit ${commit}`;
    }
    case 'appendResponse':
      return message.rejected
        ? `append rejected ${who}: ${message.rejectedIndex}, try ${message.hintIndex}/${message.hintTerm}`
        : `append done ${who}: up to ${message.matchIndex}`;
    default:
      return `${message.type} ${who}: ${compact(Object.fromEntries(Object.entries(message).filter(([key]) => !ENVELOPE.has(key))))}`;
  }
}
const ENVELOPE = new Set(['type', 'from', 'to', 'term']);

function heartbeat(payload: Uint8Array): string {
  const { messages, ...node } = decodeHeartbeat(payload);
  return `heartbeat ${compact(node)} ${messages.map((each) => `${nameOf(each.group)} ${each.message.type} ${each.message.term}`).join('; ')}`.slice(
    0,
    MAX_LINE,
  );
}

function nameOf(group: GroupKey): string {
  if (group === METADATA_GROUP) return 'metadata';
  const name = formatGroupKey(group);
  const dash = name.lastIndexOf('-');
  return `${name.slice(0, ID_CHARS)}${name.slice(dash)}`;
}

function compact(value: object): string {
  return JSON.stringify(value, (key, part: unknown) => {
    if (key.startsWith('$')) return undefined;
    if (part instanceof Uint8Array) return `${part.length} bytes`;
    return typeof part === 'bigint' ? Number(part) : part;
  });
}
