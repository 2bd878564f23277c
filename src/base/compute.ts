/**
 * Work that would hold up the event loop: a worker thread in production, inline in simulation (design decision 10). Bytes that are given, and bytes that come
 * back, change their owner: they move between threads without a copy.
 */
export interface Compute {
  /** Begins to clean a log. One at a time. */
  beginCleaning(options: CleaningOptions): Cleaning;
  /** Ends within its own deadline; what is under way rejects. */
  close(): Promise<void>;
}

export interface CleaningOptions {
  /** Of the map of keys, which is all that a cleaning keeps. */
  readonly mapBytes: number;
  /** Tombstones below this offset go. */
  readonly tombstoneFloor: number;
}

/** A cleaning of one log. Calls come one after the other. One that rejects ends it: what it had noted may be gone. */
export interface Cleaning {
  /** Notes the newest offset of each key in a run of whole batches, back to back. Errors: CORRUPT_MESSAGE. */
  note(batches: Uint8Array): Promise<Noted>;
  /** What is left of a run of whole batches, back to back. Errors: CORRUPT_MESSAGE. */
  clean(batches: Uint8Array): Promise<Uint8Array>;
  /** Gives the map's memory back. */
  end(): void;
}

export interface Noted {
  /** The map is full: a key of the run was not noted. */
  readonly full: boolean;
  /** Batches whose records can't be looked into (a codec that is not here, more than they may take decompressed). They stay as they are. */
  readonly unreadable: number;
}
