/** The sources of a broker's configuration as the command line names them. */
import { readFile } from 'node:fs/promises';
import { FlotillaError, messageOf } from '../base/errors.ts';
import type { ConfigSources } from '../broker/config.ts';
import type { Streams } from './io.ts';

export interface ConfigOptions {
  readonly config?: string;
  readonly set?: readonly string[];
}

/** Errors: INVALID_CONFIG when the file is missing or is not YAML. */
export async function readSources(options: ConfigOptions, env: Streams['env']): Promise<ConfigSources> {
  const file = options.config === undefined ? undefined : await readYaml(options.config);
  return { file, environment: env, set: options.set ?? [] };
}

async function readYaml(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new FlotillaError('INVALID_CONFIG', `The configuration file can't be read: ${messageOf(error)}`, { cause: error });
  }
  const { parse } = await import('yaml');
  try {
    return parse(text);
  } catch (error) {
    throw new FlotillaError('INVALID_CONFIG', `${path} is not valid YAML: ${messageOf(error)}`, { cause: error });
  }
}
