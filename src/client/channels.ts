import { FlotillaError } from '../base/errors.ts';
import type { Connect, RpcChannel } from '../rpc/types.ts';

/** The client's connections, one an address, shared by its producers, consumers and admin calls. */
export class Channels {
  readonly #connect: Connect;
  readonly #byAddress = new Map<string, RpcChannel>();
  #closed = false;

  constructor(connect: Connect) {
    this.#connect = connect;
  }

  get(address: string): RpcChannel {
    if (this.#closed) throw new FlotillaError('CLOSED', 'the client is closed: connect() again');
    const known = this.#byAddress.get(address);
    if (known) return known;
    const channel = this.#connect(address);
    this.#byAddress.set(address, channel);
    return channel;
  }

  /** Closes the connections to addresses that no broker has any more. */
  retain(addresses: ReadonlySet<string>): void {
    for (const [address, channel] of this.#byAddress) {
      if (addresses.has(address)) continue;
      this.#byAddress.delete(address);
      channel.close();
    }
  }

  close(): void {
    this.#closed = true;
    for (const channel of this.#byAddress.values()) channel.close();
    this.#byAddress.clear();
  }
}
