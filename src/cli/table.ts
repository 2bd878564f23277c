/** Tables for people: no rules, so that they also cut well. */
import Table from 'cli-table3';

export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[], colour: boolean): string {
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
  for (const row of rows) text.push(row.map(String));
  return text
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}
