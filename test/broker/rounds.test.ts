import { beforeEach, expect, it } from 'vitest';
import { Rounds } from '../../src/broker/rounds.ts';
import { ManualEnvironment, settled } from './manual-environment.ts';

const INTERVAL_MS = 1_000;

let environment: ManualEnvironment;
let begun: number[];
let end: () => void;
let rounds: Rounds;

beforeEach(() => {
  environment = new ManualEnvironment();
  begun = [];
  rounds = new Rounds(environment, INTERVAL_MS, () => {
    begun.push(environment.now);
    return new Promise((resolve) => {
      end = resolve;
    });
  });
});

async function ended(): Promise<void> {
  end();
  await settled();
}

it('the first round comes after an interval, each further one an interval after the end of the last', async () => {
  rounds.start();
  environment.advance(INTERVAL_MS - 1);
  expect(begun).toEqual([]);
  environment.advance(1);
  expect(begun).toEqual([1_000]);
  environment.advance(5 * INTERVAL_MS);
  expect(begun).toEqual([1_000]);
  await ended();
  environment.advance(INTERVAL_MS);
  expect(begun).toEqual([1_000, 7_000]);
});

it('the first round comes sooner where that is asked for', async () => {
  rounds.start(100);
  environment.advance(100);
  await ended();
  environment.advance(INTERVAL_MS);
  expect(begun).toEqual([100, 1_100]);
});

it('with an interval of 0 a round comes only when it is asked for', async () => {
  rounds = new Rounds(environment, 0, async () => void begun.push(environment.now));
  rounds.start();
  environment.advance(INTERVAL_MS);
  expect(begun).toEqual([]);
  rounds.begin();
  await settled();
  environment.advance(INTERVAL_MS);
  expect([begun, environment.timers]).toEqual([[1_000], 0]);
});

it('one that is asked for comes at once, in place of the one that was due, and never beside another', async () => {
  rounds.start();
  environment.advance(400);
  rounds.begin();
  rounds.begin();
  expect([begun, environment.timers]).toEqual([[400], 0]);
  await ended();
  environment.advance(INTERVAL_MS);
  expect(begun).toEqual([400, 1_400]);
});

it('stopping fires the signal, waits for the round under way, and none comes afterwards', async () => {
  rounds.begin();
  let stopped = false;
  const stopping = rounds.stop().then(() => {
    stopped = true;
  });
  expect(rounds.signal.aborted).toBe(true);
  await settled();
  expect(stopped).toBe(false);
  await ended();
  await stopping;
  rounds.begin();
  expect([begun, environment.timers]).toEqual([[0], 0]);
});

it('stopping while none is under way leaves no timer', async () => {
  rounds.start();
  await rounds.stop();
  expect(environment.timers).toBe(0);
});
