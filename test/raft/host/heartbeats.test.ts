import { beforeEach, expect, test } from 'vitest';
import { concat } from '../../../src/base/bytes.ts';
import type { BrokerId, ReplicaId } from '../../../src/base/ids.ts';
import type { HeartbeatRequest } from '../../../src/raft/core/types.ts';
import { decodeHeartbeat, type NodeHeartbeat } from '../../../src/raft/heartbeat-codec.ts';
import { Heartbeats } from '../../../src/raft/heartbeats.ts';
import type { Lane } from '../../../src/raft/types.ts';
import { groupKey } from './cluster.ts';

const peer = 2 as BrokerId;
const stranger = 9 as BrokerId;
let down: BrokerId[];
let sent: { to: BrokerId; lane: Lane; heartbeat: NodeHeartbeat }[];
let heartbeats: Heartbeats;

const none = { count: 0, hash: 0 };
const heard = (seq: number, incarnation = 1, diskFresh = true): NodeHeartbeat => {
  return { incarnation, seq, diskFresh, loopFresh: true, hasRoom: true, wake: false, quiesced: none, messages: [] };
};
const request = (commit: number): HeartbeatRequest => ({
  type: 'heartbeat',
  from: 1 as ReplicaId,
  to: 2 as ReplicaId,
  term: 1,
  commit,
  readContext: 0,
  quiesce: false,
  check: undefined,
  verdict: false,
  over: 0,
});

beforeEach(() => {
  down = [];
  sent = [];
  heartbeats = new Heartbeats({
    transport: {
      start: () => {},
      setPeers: () => {},
      send: (to, lane, frame) => sent.push({ to, lane, heartbeat: decodeHeartbeat(concat(frame)) }) > 0,
      close: async () => {},
    },
    incarnation: 7,
    timeoutMs: 600,
    peerDown: (broker) => down.push(broker),
    peerUp: () => {},
    quiescedWith: (broker) => ({ count: broker, hash: 5 }),
  });
  heartbeats.setPeers([{ brokerId: peer, address: '', directoryId: undefined }]);
});

test('a heartbeat goes out each time, with the newest of each group, once', () => {
  heartbeats.queue(peer, groupKey(0), request(1));
  heartbeats.queue(peer, groupKey(0), request(2));
  heartbeats.queue(peer, groupKey(1), request(5));
  heartbeats.queue(stranger, groupKey(1), request(5));
  heartbeats.beat({ diskFresh: true, loopFresh: false, hasRoom: true });
  heartbeats.beat({ diskFresh: false, loopFresh: true, hasRoom: true });
  expect(sent.map(({ to, lane }) => [to, lane])).toEqual([
    [peer, 'heartbeat'],
    [peer, 'heartbeat'],
  ]);
  const [first, second] = sent.map(({ heartbeat }) => heartbeat);
  expect(first).toMatchObject({ incarnation: 7, seq: 1, diskFresh: true, loopFresh: false, hasRoom: true });
  expect(first!.messages.map(({ message }) => (message as HeartbeatRequest).commit)).toEqual([2, 5]);
  expect(second).toEqual({
    incarnation: 7,
    seq: 2,
    diskFresh: false,
    loopFresh: true,
    hasRoom: true,
    wake: false,
    quiesced: { count: 2, hash: 5 },
    messages: [],
  });
});

test('a peer is asked to wake its groups once', () => {
  heartbeats.askToWake(peer);
  heartbeats.askToWake(stranger);
  heartbeats.beat({ diskFresh: true, loopFresh: false, hasRoom: true });
  heartbeats.beat({ diskFresh: true, loopFresh: false, hasRoom: true });
  expect(sent.map(({ heartbeat }) => heartbeat.wake)).toEqual([true, false]);
});

test('a peer is alive while it is heard, and down once after the timeout', () => {
  expect(heartbeats.isAlive(peer)).toBe(false);
  expect(heartbeats.received(peer, heard(1))).toBe(true);
  heartbeats.advance(600);
  expect(heartbeats.isAlive(peer)).toBe(true);
  heartbeats.advance(1);
  heartbeats.advance(1000);
  expect(heartbeats.isAlive(peer)).toBe(false);
  expect(down).toEqual([peer]);
  heartbeats.received(peer, heard(2));
  expect(heartbeats.isAlive(peer)).toBe(true);
});

test('a new incarnation is peer-down, and alive', () => {
  heartbeats.received(peer, heard(5));
  expect(down).toEqual([]);
  expect(heartbeats.received(peer, heard(1, 2))).toBe(true);
  expect(down).toEqual([peer]);
  expect(heartbeats.isAlive(peer)).toBe(true);
});

test('old heartbeats and those of strangers count for nothing', () => {
  heartbeats.received(peer, heard(5));
  expect(heartbeats.received(peer, heard(5))).toBe(false);
  expect(heartbeats.received(peer, heard(4))).toBe(false);
  expect(heartbeats.received(stranger, heard(1))).toBe(false);
  expect(heartbeats.isAlive(stranger)).toBe(false);
});

test('a peer is down when both lanes are gone', () => {
  heartbeats.connected(peer, 'raft');
  heartbeats.connected(peer, 'heartbeat');
  heartbeats.received(peer, heard(1));
  heartbeats.disconnected(peer, 'raft');
  expect(down).toEqual([]);
  heartbeats.disconnected(peer, 'heartbeat');
  expect(down).toEqual([peer]);
  expect(heartbeats.isAlive(peer)).toBe(false);
});

test('the disk of a peer is fresh when it last said so, and it is alive', () => {
  heartbeats.received(peer, heard(1, 1, false));
  expect(heartbeats.isDiskFresh(peer)).toBe(false);
  heartbeats.received(peer, heard(2));
  expect(heartbeats.isDiskFresh(peer)).toBe(true);
  heartbeats.advance(601);
  expect(heartbeats.isDiskFresh(peer)).toBe(false);
});
