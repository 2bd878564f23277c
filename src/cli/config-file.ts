/** The sources of a broker's configuration as the command line names them. */
import { readFile } from 'node:fs/promises';
import { FlotillaError, messageOf } from '../base/errors.ts';
import type { ConfigSources } from '../broker/config.ts';
import type { Streams } from './io.ts';

export interface ConfigOptions {
  readonly config?: string;
  readonly set?: readonly string[];
}

/** Errors: INVALID_CONFIG when the file can't be read, is not YAML, or holds no keys. */
export async function readSources(options: ConfigOptions, env: Streams['env']): Promise<ConfigSources> {
  const file = options.config === undefined ? undefined : await readYaml(options.config);
  return { file, environment: env, set: options.set ?? [] };
}

async function readYaml(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw invalid(unreadable(path, error), error);
  }
  const { parse } = await import('yaml');
  let content: unknown;
  try {
    content = parse(text);
  } catch (error) {
    // The parser's first line says what and where; the others draw it.
    const [what = ''] = messageOf(error).split('\n');
    throw invalid(`${path} is not valid YAML: ${what.replace(/:$/, '')}.`, error);
  }
  if (content !== null && (typeof content !== 'object' || Array.isArray(content))) {
    throw invalid(`${path} must hold keys and values, such as "node.id: 1", a line each.`);
  }
  return content;
}

function unreadable(path: string, error: unknown): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return `There is no configuration file ${path}. Give --config the file to read.`;
    case 'EISDIR':
      return `${path} is a directory. Give --config the configuration file itself.`;
    case 'EACCES':
      return `The configuration file ${path} may not be read by this user. Change its owner or mode.`;
    default:
      return `The configuration file ${path} can't be read: ${messageOf(error)}.`;
  }
}

function invalid(message: string, cause?: unknown): FlotillaError {
  return new FlotillaError('INVALID_CONFIG', message, { cause });
}
