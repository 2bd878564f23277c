/**
 * Real records: flights within the USA in early 2001, from the `vega-datasets` package, in the order of their departure.
 * Keyed by the airport of departure, so that the flights of an airport stay in order.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Failure } from '../failures.ts';

export interface Flight {
  /** The airport's code. */
  readonly key: string;
  /** The data set's own row, as JSON. */
  readonly value: string;
}

export async function loadFlights(): Promise<readonly Flight[]> {
  let path: string;
  try {
    // The package exports its code only; the data lies beside it.
    path = join(dirname(createRequire(import.meta.url).resolve('vega-datasets')), '../data/flights-20k.json');
  } catch (error) {
    throw new Failure('The demo feeds records of the package vega-datasets, which is not installed here. Run npm ci in a clone.', {
      cause: error,
    });
  }
  const rows = JSON.parse(await readFile(path, 'utf8')) as { readonly date: string; readonly origin: string }[];
  rows.sort((a, b) => (a.date < b.date ? -1 : a.date > b.date ? 1 : 0));
  return rows.map((row) => ({ key: row.origin, value: JSON.stringify(row) }));
}
