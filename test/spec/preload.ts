/** Loaded before a broker (`node --import`), it gives it the host of traced-host.ts: the broker's own sources know of no trace. */
import { registerHooks } from 'node:module';

registerHooks({
  resolve(specifier, context, next) {
    const isHost = specifier === '../raft/raft-host.ts' && context.parentURL?.endsWith('/src/broker/assembly.ts') === true;
    return next(isHost ? new URL('traced-host.ts', import.meta.url).href : specifier, context);
  },
});
