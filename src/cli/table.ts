/** Tables for people: no rules, so that they also cut well. */
import { stripVTControlCharacters } from 'node:util';
import Table from 'cli-table3';

/** The time of cli-table3 grows with the square of the rows: 10,000 at once took 14 s. */
const BLOCK_ROWS = 50;

export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[], colour: boolean): string {
  const cells = rows.map((row) => row.map(String));
  if (cells.length <= BLOCK_ROWS) return block(head, cells, colour);
  // Every block gets the columns of the whole.
  const widths = head.map((title, column) => cells.reduce((most, row) => Math.max(most, widthOf(row[column])), title.length));
  const padded = [head, ...cells].map((row) => row.map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - widthOf(cell))));
  const [title = [], ...body] = padded;
  const blocks: string[] = [];
  for (let at = 0; at < body.length; at += BLOCK_ROWS) blocks.push(block(at === 0 ? title : [], body.slice(at, at + BLOCK_ROWS), colour));
  return blocks.join('\n');
}

function widthOf(cell = ''): number {
  return stripVTControlCharacters(cell).length;
}

function block(head: readonly string[], rows: readonly (readonly string[])[], colour: boolean): string {
  const bare = Object.fromEntries(
    [
      'top',
      'top-mid',
      'top-left',
      'top-right',
      'bottom',
      'bottom-mid',
      'bottom-left',
      'bottom-right',
      'left',
      'left-mid',
      'mid',
      'mid-mid',
      'right',
      'right-mid',
    ].map((part) => [part, '']),
  );
  const text = new Table({
    head: [...head],
    chars: { ...bare, middle: '  ' },
    style: { head: colour ? ['bold'] : [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of rows) text.push([...row]);
  return text
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}
