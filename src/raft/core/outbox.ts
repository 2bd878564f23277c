import type { EntriesWanted, Message, ReadState, Ready, SnapshotWanted } from './types.ts';

/** What gathers for the next Ready, besides the log. */
export class Outbox {
  messages: Message[] = [];
  afterPersist: Message[] = [];
  reads: EntriesWanted[] = [];
  snapshots: SnapshotWanted[] = [];
  readStates: ReadState[] = [];

  get isEmpty(): boolean {
    const { messages, afterPersist, reads, snapshots, readStates } = this;
    return messages.length + afterPersist.length + reads.length + snapshots.length + readStates.length === 0;
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

  /** Hands over all that gathered. Where nothing is to be persisted nothing is under way either, so nothing has to be held back. */
  take(persists: boolean): Pick<Ready, 'messages' | 'afterPersist' | 'reads' | 'snapshots' | 'readStates'> {
    const { messages, afterPersist, reads, snapshots, readStates } = this;
    this.messages = [];
    this.afterPersist = [];
    this.reads = [];
    this.snapshots = [];
    this.readStates = [];
    const held = persists || afterPersist.length === 0;
    return {
      messages: held ? messages : messages.concat(afterPersist),
      afterPersist: held ? afterPersist : [],
      reads,
      snapshots,
      readStates,
    };
  }
}
