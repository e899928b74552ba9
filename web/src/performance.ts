/** What the head is acting out: a motion, and the clock that says where in it we are. */

import type { MotionTrack } from "./motion";
import type { SoundOutput } from "./sound";
import type { Turn } from "./speaker";

export interface Performance {
  readonly track: MotionTrack;
  /** Seconds into the motion now. */
  seconds(): number;
  finished(): boolean;
  stop(): void;
}

/** A motion without sound, by the page's own clock. */
export class SilentPerformance implements Performance {
  private readonly start = performance.now();

  constructor(readonly track: MotionTrack) {}

  seconds(): number {
    return (performance.now() - this.start) / 1000;
  }

  finished(): boolean {
    return this.seconds() >= this.track.duration;
  }

  stop(): void {
    // Nothing sounds.
  }
}

/** A motion that goes with sound: the sound is the clock. */
export class SoundPerformance implements Performance {
  constructor(
    readonly track: MotionTrack,
    private readonly sound: SoundOutput,
    private readonly turn: Turn | null = null,
  ) {}

  seconds(): number {
    return this.sound.seconds;
  }

  finished(): boolean {
    return this.sound.finished || (this.turn?.cancelled ?? false);
  }

  stop(): void {
    this.sound.stop();
  }
}

/** Motion of sound that is heard elsewhere, such as a microphone's: as soon as it comes, evenly. */
export class EchoPerformance implements Performance {
  private at = 0;
  private last = performance.now();

  constructor(private readonly turn: Turn) {}

  get track(): MotionTrack {
    return this.turn.track;
  }

  seconds(): number {
    const now = performance.now();
    const elapsed = (now - this.last) / 1000;
    this.last = now;
    const behind = this.track.duration - this.at;
    // A little faster while motion waits, so that a hiccup of the network is made up for.
    const speed = behind > ECHO_BUFFER_SECONDS ? CATCH_UP : 1;
    this.at = Math.min(this.at + elapsed * speed, this.track.duration);
    return this.at;
  }

  finished(): boolean {
    return this.turn.cancelled || (this.turn.complete && this.at >= this.track.duration);
  }

  stop(): void {
    // Whoever opened the stream closes it.
  }
}

const ECHO_BUFFER_SECONDS = 0.12;
const CATCH_UP = 1.15;
