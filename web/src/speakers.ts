/** Opens whoever turns sound into motion when somebody is to speak, and again when the connection is lost. */

import { LiveLink } from "./live";
import type { Speaker } from "./speaker";
import { LocalSpeaker, type LifeKind } from "./speech/local";

export interface SpeakersOptions {
  token?: string;
  /** How the page itself moves head, gaze and brows. */
  life: LifeKind;
  /** Scale of the head's motion where the page itself makes it. */
  headMotion: number;
  onFailure: (message: string) => void;
}

export class Speakers {
  private speaker: Speaker | null = null;
  private opening: Promise<Speaker> | null = null;
  private closed = false;

  /** @param server Address of the socket of `vasa3d serve`, or null for the page itself. */
  constructor(
    private server: string | null,
    private readonly options: SpeakersOptions,
  ) {}

  /** Who speaks, ready to begin. */
  get(): Promise<Speaker> {
    if (this.speaker?.open) return Promise.resolve(this.speaker);
    // Asked twice while it opens, it opens once.
    if (this.opening) return this.opening;
    const opening = this.open(this.server).finally(() => {
      if (this.opening === opening) this.opening = null;
    });
    this.opening = opening;
    return opening;
  }

  /** Let another speak from now on; whether it is another. */
  use(server: string | null): boolean {
    if (server === this.server) return false;
    this.server = server;
    this.speaker?.close();
    this.speaker = this.opening = null;
    return true;
  }

  interrupt(): void {
    this.speaker?.interrupt();
  }

  close(): void {
    this.closed = true;
    this.speaker?.close();
  }

  private async open(server: string | null): Promise<Speaker> {
    const { life, headMotion, onFailure } = this.options;
    const speaker = server
      ? await this.connect(server)
      : await LocalSpeaker.open(life, headMotion, { onFailure });
    if (this.closed || server !== this.server) {
      speaker.close();
      throw new Error("the player was closed or given another server meanwhile");
    }
    this.speaker = speaker;
    return speaker;
  }

  private connect(server: string): Promise<Speaker> {
    const { token, onFailure } = this.options;
    const url = new URL(server, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const onClose = (code: number, reason: string, cut: boolean) => {
      // Between turns it does not matter: the next one connects again.
      if (cut) onFailure(reason || `the connection has ended (${code})`);
    };
    return LiveLink.open(url.href, { onFailure, onClose }, token);
  }
}
