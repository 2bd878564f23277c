import { FlotillaError } from '../base/errors.ts';

/** For what a newer release wrote: it is refused as it is, since to call it damaged would be to write over it. */
export function newerFormat(what: string, version: number, known: number): FlotillaError {
  return new FlotillaError(
    'DATA_DIRECTORY',
    `${what} was written by a newer release (format ${version}, this one reads up to ${known}); start that release`,
  );
}
