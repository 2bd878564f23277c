import type { EntriesWanted, Message, ReadState, Ready } from './types.ts';

/** What gathers for the next Ready, besides the log. */
export class Outbox {
  messages: Message[] = [];
  afterPersist: Message[] = [];
  reads: EntriesWanted[] = [];
  readStates: ReadState[] = [];

  get isEmpty(): boolean {
    return this.messages.length === 0 && this.afterPersist.length === 0 && this.reads.length === 0 && this.readStates.length === 0;
  }

  /** Empties it. `persisting`: what waits has something to wait for. */
  take(persisting: boolean): Pick<Ready, 'messages' | 'afterPersist' | 'reads' | 'readStates'> {
    const { messages, afterPersist, reads, readStates } = this;
    this.messages = [];
    this.afterPersist = [];
    this.reads = [];
    this.readStates = [];
    if (persisting || afterPersist.length === 0) return { messages, afterPersist, reads, readStates };
    return { messages: messages.concat(afterPersist), afterPersist: [], reads, readStates };
  }

  /** A response that waits for persistence. Of consecutive acknowledgements only the last is kept: it says it all. */
  afterPersisted(message: Message): void {
    const last = this.afterPersist.at(-1);
    if (
      message.type === 'appendResponse' &&
      last?.type === 'appendResponse' &&
      !message.rejected &&
      !last.rejected &&
      last.to === message.to &&
      last.term === message.term &&
      last.matchIndex <= message.matchIndex
    ) {
      this.afterPersist[this.afterPersist.length - 1] = message;
    } else {
      this.afterPersist.push(message);
    }
  }
}
