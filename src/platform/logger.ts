import { type Logger as PinoLogger, pino } from 'pino';
import type { LogFields, Logger } from '../base/environment.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';
export type LogFormat = 'json' | 'text';

/**
 * A logger to stderr: `json` is pino's, one object a line, for machines; `text` is one readable line an event, for people.
 * Default: text on a terminal, json otherwise.
 */
export function openLogger(options: { level?: LogLevel; format?: LogFormat; write?: (line: string) => void } = {}): Logger {
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const format = options.format ?? (process.stderr.isTTY ? 'text' : 'json');
  const destination = { write: format === 'json' ? write : (line: string) => write(textLine(line)) };
  const root = pino(
    {
      level: options.level ?? 'info',
      base: null,
      messageKey: 'event',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err },
    },
    destination,
  );
  return adapt(root);
}

function adapt(logger: PinoLogger): Logger {
  return {
    debug: (event, fields) => logger.debug(fields ?? {}, event),
    info: (event, fields) => logger.info(fields ?? {}, event),
    warn: (event, fields) => logger.warn(fields ?? {}, event),
    error: (event, fields) => logger.error(fields ?? {}, event),
    child: (fields) => adapt(logger.child(fields)),
  };
}

/** `12:00:00.000 warn  event  name=value …`, made from pino's JSON so that both formats carry the same fields. */
function textLine(line: string): string {
  const { time, level, event, error, ...fields } = JSON.parse(line) as LogFields;
  let text = `${String(time).slice(11, 23)} ${String(level).padEnd(5)} ${String(event)}`;
  for (const [name, value] of Object.entries(fields)) text += `  ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`;
  if (typeof error === 'object' && error !== null) text += `\n  ${'stack' in error ? String(error.stack) : JSON.stringify(error)}`;
  else if (error !== undefined) text += `  error=${String(error)}`;
  return `${text}\n`;
}
