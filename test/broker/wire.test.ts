import { describe, expect, it } from 'vitest';
import { FlotillaError } from '../../src/base/errors.ts';
import { toFlotillaError } from '../../src/broker/wire.ts';

describe('what a client is told of an error', () => {
  it('a handle of the broker that was closed is nothing that the client closed: it tries again', () => {
    const known = toFlotillaError(new FlotillaError('CLOSED', 'The channel to broker-1:9000 was closed.'));
    expect(known).toMatchObject({ code: 'BROKER_NOT_AVAILABLE', retriable: true });
    expect(known.message).toContain('broker-1:9000');
  });

  it('any other operating error goes as it is, and an error of the disk as one of storage', () => {
    const refused = new FlotillaError('OFFSET_OUT_OF_RANGE', 'no such offset');
    expect(toFlotillaError(refused)).toBe(refused);
    expect(toFlotillaError(Object.assign(new Error('i/o error'), { code: 'EIO' }))).toMatchObject({
      code: 'STORAGE_ERROR',
      retriable: true,
    });
  });
});
