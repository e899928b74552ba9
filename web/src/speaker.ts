/** Whoever turns sound into motion for the player: a server, or the page itself. */

import type { MotionTrack } from "./motion";

/** One utterance: sound goes in, `track` grows. */
export interface Turn {
  readonly track: MotionTrack;
  /** All motion is there. */
  readonly complete: boolean;
  readonly cancelled: boolean;
  /** Complete or cancelled. */
  readonly over: boolean;
  /** Give more mono sound, in [-1, 1]; resolves when there is room for the next. */
  push(samples: Float32Array): Promise<void>;
  /** The sound is complete. */
  end(): void;
}

export interface Speaker {
  /** Whether utterances can begin. */
  readonly open: boolean;
  /** Begin an utterance of so many samples a second; one under way is interrupted. */
  begin(rate: number): Turn;
  interrupt(): void;
  close(): void;
}

export interface SpeakerEvents {
  onFailure: (message: string) => void;
}

/** Sound is taken at most this far ahead of its motion. */
export const AHEAD_SECONDS = 4;
export const SPEECH_FPS = 30;
const POLL_MILLISECONDS = 20;

/** Wait until a turn has room for more sound than `seconds` of it. */
export async function roomIn(turn: Turn, seconds: number): Promise<void> {
  while (!turn.over && seconds - turn.track.duration > AHEAD_SECONDS) {
    await new Promise((done) => setTimeout(done, POLL_MILLISECONDS));
  }
}
