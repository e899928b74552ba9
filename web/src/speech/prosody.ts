/** Who speaks, whether it is speech, and which syllables are stressed: `motion/prosody.py`, which explains it. */

import type { Activity } from "./activity";
import { FRAME_RATE } from "./features";
import { VISEMES } from "./tables";

const V = VISEMES.length;
const SMOOTH = 2;
const PEAK = 8;
const AHEAD = SMOOTH + PEAK;
const SPEAKING_SECONDS = 0.35;
const MEAN_SECONDS = 1;
const REFRACTORY_SECONDS = 0.45;
const PROMINENCE_DB = 4;
const FULL_DB = 12;
const SILENCE_DB = -75;
const BELIEF_SECONDS = 0.9;
const BELIEF_FROM = 0.28;
const BELIEF_SPAN = 0.08;
const DOUBT = 0.14;
const DOUBT_SECONDS = 0.2;
const DOUBT_MEMORY_SECONDS = 4;
const UNSURE = 0.36;
const UNDECIDED = 0.34;
export const SURE = 0.45;
const STICKING = 0.04;
const PRIOR_UNDECIDED = 0.15;
const PRIOR_MEMORY_FRAMES = 120;
const PRIOR_SURE = 0.42;
const PRIOR_WEIGHT = 0.05;
const PRIOR_FRAMES = 20;

export interface Stress {
  seconds: number;
  /** From 0 (just stressed) to 1. */
  strength: number;
}

export interface Prosody {
  /** (n) in [0, 1]. */
  speaking: Float32Array;
  /** (n) in [0, 1]: is it speech and no music? */
  belief: Float32Array;
  /** (n) how sure the encoder has been of one sound in the last seconds. */
  certainty: Float32Array;
  /** Stresses that have become known. */
  stresses: Stress[];
}

export class ProsodyStream {
  private levels = new Float64Array(2 * AHEAD + 1).fill(SILENCE_DB);
  private spoken = new Float64Array(AHEAD + 1);
  private voice = 0;
  private sure = PRIOR_SURE * PRIOR_FRAMES;
  private heard = PRIOR_FRAMES;
  private longSure = PRIOR_SURE * PRIOR_MEMORY_FRAMES;
  private longHeard = PRIOR_MEMORY_FRAMES;
  private undecided = PRIOR_UNDECIDED * PRIOR_MEMORY_FRAMES;
  private frames = PRIOR_MEMORY_FRAMES;
  private doubting = false;
  private doubt = 0;
  private mean = SILENCE_DB;
  private frame = -AHEAD;
  private last = -1e9;

  push(activity: Activity): Prosody {
    const count = activity.level.length;
    const speaking = new Float32Array(count);
    const belief = new Float32Array(count);
    const certainty = new Float32Array(count);
    const stresses: Stress[] = [];
    for (let t = 0; t < count; t++) {
      const [quiet, ...rest] = activity.visemes.subarray(t * V, (t + 1) * V);
      this.voice += (1 - quiet - this.voice) / (SPEAKING_SECONDS * FRAME_RATE);
      speaking[t] = this.voice;
      belief[t] = this.believe(quiet, Math.max(...rest));
      certainty[t] = this.longSure / this.longHeard;
      shift(this.levels, Math.max(activity.level[t], SILENCE_DB));
      shift(this.spoken, 1 - quiet);
      const stress = this.judge();
      if (stress) stresses.push(stress);
      this.frame++;
    }
    return { speaking, belief, certainty, stresses };
  }

  private believe(quiet: number, top: number): number {
    const prior = PRIOR_WEIGHT * quiet;
    const sure = top + PRIOR_SURE * prior;
    const heard = 1 - quiet + prior;
    const keep = 1 - 1 / (BELIEF_SECONDS * FRAME_RATE);
    this.sure = keep * this.sure + sure;
    this.heard = keep * this.heard + heard;
    const certainty = this.sure / this.heard;
    this.followDoubt(certainty, sure, heard, 4 * quiet * (1 - quiet));
    const x = Math.min(
      Math.max((certainty - BELIEF_FROM - DOUBT * this.doubt) / BELIEF_SPAN, 0),
      1,
    );
    return x * x * (3 - 2 * x);
  }

  private followDoubt(certainty: number, sure: number, heard: number, undecided: number): void {
    const keep = 1 - 1 / (DOUBT_MEMORY_SECONDS * FRAME_RATE);
    this.longSure = keep * this.longSure + sure;
    this.longHeard = keep * this.longHeard + heard;
    this.undecided = keep * this.undecided + undecided;
    this.frames = keep * this.frames + 1;
    const margin = this.doubting ? STICKING : 0;
    this.doubting =
      certainty < SURE &&
      this.longSure / this.longHeard < UNSURE + margin &&
      this.undecided / this.frames > UNDECIDED - margin;
    this.doubt += ((this.doubting ? 1 : 0) - this.doubt) / (DOUBT_SECONDS * FRAME_RATE);
  }

  /** Is the frame in the middle of the buffer a stress? */
  private judge(): Stress | null {
    const width = 2 * SMOOTH + 1;
    const smooth = Float64Array.from({ length: this.levels.length - width + 1 }, (_, t) =>
      this.levels.subarray(t, t + width).reduce((sum, level) => sum + level / width, 0),
    );
    const here = smooth[PEAK];
    this.mean += (here - this.mean) / (MEAN_SECONDS * FRAME_RATE);
    const over = here - this.mean;
    const seconds = this.frame / FRAME_RATE;
    const stressed =
      over > PROMINENCE_DB &&
      this.spoken[0] > 0.5 &&
      here >= Math.max(...smooth) &&
      seconds - this.last > REFRACTORY_SECONDS;
    if (!stressed) return null;
    this.last = seconds;
    const strength = (over - PROMINENCE_DB) / (FULL_DB - PROMINENCE_DB);
    return { seconds, strength: Math.min(Math.max(strength, 0), 1) };
  }
}

function shift(values: Float64Array, next: number): void {
  values.copyWithin(0, 1);
  values[values.length - 1] = next;
}
