/** Which brokers the leading controller has heard of lately. Soft state: a new leader starts everyone's session anew. */
import type { BrokerId } from '../base/ids.ts';

interface Session {
  readonly heardMs: number;
  /** Since when it has been heard without a break. */
  readonly sinceMs: number;
}

export class BrokerSessions {
  readonly #timeoutMs: number;
  readonly #sessions = new Map<BrokerId, Session>();

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  heard(brokerId: BrokerId, nowMs: number): void {
    const before = this.#sessions.get(brokerId);
    const unbroken = before !== undefined && nowMs - before.heardMs < this.#timeoutMs;
    this.#sessions.set(brokerId, { heardMs: nowMs, sinceMs: unbroken ? before.sinceMs : nowMs });
  }

  isLive(brokerId: BrokerId, nowMs: number): boolean {
    const session = this.#sessions.get(brokerId);
    return session !== undefined && nowMs - session.heardMs < this.#timeoutMs;
  }

  /** For how long it has been live without a break; 0 when it isn't. */
  liveForMs(brokerId: BrokerId, nowMs: number): number {
    const session = this.#sessions.get(brokerId);
    return session !== undefined && this.isLive(brokerId, nowMs) ? nowMs - session.sinceMs : 0;
  }

  end(brokerId: BrokerId): void {
    this.#sessions.delete(brokerId);
  }

  clear(): void {
    this.#sessions.clear();
  }
}
