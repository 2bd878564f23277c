import { describe, expect, it } from 'vitest';
import { compareGroupNames, formatGroupName, parseGroupName } from '../../src/base/group-name.ts';

describe('the name of a raftGroup', () => {
  it.each(['metadata', 'orders/0', 'metadata/0', 'a.b_c-d/2147483647', `${'x'.repeat(249)}/7`])('%j is read and written', (text) => {
    expect(formatGroupName(parseGroupName(text))).toBe(text);
  });

  it.each(['', 'orders', 'orders/', '/0', 'orders/-1', 'orders/1.5', 'orders/x', 'a/b/0', 'orders/0.1', ' orders/0', 'Metadata', 'ä/0'])(
    '%j is none',
    (text) => {
      expect(() => parseGroupName(text)).toThrow(
        expect.objectContaining({ code: 'INVALID_REQUEST', message: expect.stringContaining('TOPIC/PARTITION') }),
      );
    },
  );

  it('has partitions below 2^31 and topics of up to 249 characters', () => {
    expect(() => parseGroupName('orders/2147483648')).toThrow('names no Raft group');
    expect(() => parseGroupName(`${'x'.repeat(250)}/0`)).toThrow('names no Raft group');
  });

  it('is ordered: the metadata log, then by topic, then by number', () => {
    const ordered = ['metadata', 'a/0', 'a/2', 'a/10', 'a.b/0', 'metadata/0', 'z/1'];
    const shuffled = ['a/10', 'z/1', 'metadata/0', 'a.b/0', 'a/2', 'metadata', 'a/0'].map(parseGroupName);
    expect(shuffled.sort(compareGroupNames).map(formatGroupName)).toEqual(ordered);
  });
});
