/** `flotilla config`: the effective configuration of a broker, each key with its source. */
import { effectiveConfig, loadConfig } from '../../broker/config.ts';
import { type ConfigOptions, readSources } from '../config-file.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';

export async function config(session: Session, options: ConfigOptions): Promise<void> {
  const sources = await readSources(options, session.streams.env);
  const settings = effectiveConfig(sources);
  // What a start would refuse is refused here too; only a broker's id may be missing.
  if (settings.some(({ key, value }) => key === 'node.id' && value !== undefined)) loadConfig(sources);
  else loadConfig({ ...sources, set: [...(sources.set ?? []), 'node.id=1'] });
  if (session.json) {
    return void (await session.out.json(
      settings.map(({ key, value, source, dynamic }) => ({ key, value: value ?? null, source, dynamic })),
    ));
  }
  const rows = settings.map(({ key, value, source }) => [key, value ?? '-', source]);
  await session.out.line(table(['KEY', 'VALUE', 'SOURCE'], rows, session.colour));
}
