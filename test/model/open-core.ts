/**
 * Opens the private fields of src/raft/core to this process: a load hook that reads `#name` as `$name`, and changes nothing else. So the search can tell two
 * states of the production core apart by all that is in them. A fingerprint written by hand would forget the next field, and two different states would
 * silently count as one. Import this before anything that imports the core.
 */
import { registerHooks } from 'node:module';

registerHooks({
  load(url, context, nextLoad) {
    const module = nextLoad(url, context);
    if (!url.includes('/src/raft/core/') || module.source === undefined || module.source === null) return module;
    const text = typeof module.source === 'string' ? module.source : new TextDecoder().decode(module.source as Uint8Array);
    return { ...module, source: text.replace(/#(?=[A-Za-z])/g, '$') };
  },
});
