/** As much of NATS' text protocol (https://docs.nats.io/reference/reference-protocols/nats-protocol) as the measuring needs. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

const INBOX = '_INBOX.bench';

export class NatsClient implements Disposable {
  readonly #socket: Socket;
  readonly #replies = new Map<string, (payload: string) => void>();
  #received: Buffer = Buffer.alloc(0);
  #nextReply = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk) => this.#read(chunk));
    socket.on('error', () => socket.destroy());
    socket.write(`CONNECT {"verbose":false,"pedantic":false,"lang":"node","version":"0"}\r\nSUB ${INBOX}.* 1\r\n`);
  }

  static async connect(port: number): Promise<NatsClient> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    await once(socket, 'connect');
    return new NatsClient(socket);
  }

  /** The answer, JSON; rejects after the timeout. */
  request(subject: string, payload: string, timeoutMs = 2000): Promise<unknown> {
    const answer = Promise.withResolvers<unknown>();
    const name = this.publish(subject, payload, (text) => answer.resolve(JSON.parse(text)));
    const timer = setTimeout(() => {
      this.#replies.delete(name);
      answer.reject(new Error(`NATS did not answer ${subject}`));
    }, timeoutMs);
    return answer.promise.finally(() => clearTimeout(timer));
  }

  /** `acknowledged` is called with the answer, if one comes. */
  publish(subject: string, payload: string, acknowledged: (payload: string) => void): string {
    const name = `${INBOX}.${this.#nextReply++}`;
    this.#replies.set(name, acknowledged);
    this.#socket.write(`PUB ${subject} ${name} ${Buffer.byteLength(payload)}\r\n${payload}\r\n`);
    return name;
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    this.#received = Buffer.concat([this.#received, chunk]);
    for (;;) {
      const end = this.#received.indexOf('\r\n');
      if (end < 0) return;
      const words = this.#received.toString('latin1', 0, end).split(' ');
      let next = end + 2;
      if (words[0] === 'PING') this.#socket.write('PONG\r\n');
      if (words[0] === 'MSG') {
        const length = Number(words.at(-1));
        if (this.#received.length < next + length + 2) return;
        this.#answer(words[1] ?? '', this.#received.toString('utf8', next, next + length));
        next += length + 2;
      }
      this.#received = this.#received.subarray(next);
    }
  }

  #answer(name: string, payload: string): void {
    const acknowledged = this.#replies.get(name);
    this.#replies.delete(name);
    acknowledged?.(payload);
  }
}
