/**
 * What the motion generator hears, 25 times a second: the arithmetic of `motion/voice.py`, which explains
 * it. The pitch is found as `kernels/hearing.py` does.
 */

import type { Activity } from "./activity";
import { joined } from "./activity";
import type { Prosody } from "./prosody";
import { VISEMES } from "./tables";

const SAMPLE_RATE = 16_000;
const HOP = 160;
const WINDOW = 640;
const LONGEST = Math.floor(SAMPLE_RATE / 60);
const SHORTEST = SAMPLE_RATE / 400;
const VOICED = 0.5;
/** A period's double is as good a period: shorter ones are preferred a little. */
const DOUBT = 0.0004;
const MEAN_FRAMES = 200;
const UNIT = Math.log(2) / 4;
const LEVEL_FALL_DB = 6 / 100;
const LEVEL_FLOOR_DB = -70;
const V = VISEMES.length;
/** Encoder frames of a motion frame. */
const STEPS = 4;
/** Numbers of a row: visemes, closure, level, voicing, pitch, speaking, belief. */
const ROW = V + 6;
/** Numbers that are means over halves of a motion frame. */
const MEANS = V + 2;
export const VOICE_SIZE = 2 * MEANS + 5;

/** Voicing in [0, 1] and log frequency of some frames, 0 where there is no voice. */
interface Pitch {
  voicing: number[];
  frequency: number[];
}

/** Pitch of growing sound, 100 frames a second; frame n looks at the 40 ms around n * 10 ms. */
class PitchStream {
  private readonly window = Float64Array.from(
    { length: WINDOW },
    (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW),
  );
  /** Autocorrelation of the window over that at lag 0. */
  private readonly own: Float64Array;
  private pending = new Float32Array(WINDOW / 2);
  private readonly frame = new Float32Array(WINDOW);

  constructor() {
    const { window } = this;
    const own = Float64Array.from({ length: LONGEST + 2 }, (_, lag) => {
      let sum = 0;
      for (let i = 0; i + lag < WINDOW; i++) sum += window[i] * window[i + lag];
      return sum;
    });
    this.own = own.map((value) => value / own[0]);
  }

  push(samples: Float32Array): Pitch {
    this.pending = joined([this.pending, samples]);
    const count = Math.max(0, Math.floor((this.pending.length - WINDOW) / HOP) + 1);
    const found: Pitch = { voicing: [], frequency: [] };
    for (let n = 0; n < count; n++) {
      const [period, voicing] = this.period(this.pending.subarray(n * HOP, n * HOP + WINDOW));
      found.voicing.push(voicing > VOICED ? voicing : 0);
      found.frequency.push(voicing > VOICED ? Math.log(SAMPLE_RATE / period) : 0);
    }
    this.pending = this.pending.slice(count * HOP);
    return found;
  }

  /** Lag of the highest peak of the autocorrelation over the window's own, and its height. */
  private period(samples: Float32Array): [number, number] {
    const { frame, own } = this;
    let mean = 0;
    for (let i = 0; i < WINDOW; i++) mean += samples[i] / WINDOW;
    let power = 1e-7;
    for (let i = 0; i < WINDOW; i++) {
      frame[i] = (samples[i] - mean) * this.window[i];
      power += frame[i] * frame[i];
    }
    const at = (lag: number) => {
      let sum = 0;
      for (let i = 0; i + lag < WINDOW; i++) sum += frame[i] * frame[i + lag];
      return sum / (power * own[lag]);
    };
    let [before, here] = [at(SHORTEST - 1), at(SHORTEST)];
    const first = here;
    let [best, height, score] = [0, 0, -1];
    for (let lag = SHORTEST; lag < LONGEST; lag++) {
      const after = at(lag + 1);
      const isPeak = here >= before && here >= after;
      if (isPeak && (best === 0 || here - DOUBT * lag > score)) {
        [best, height, score] = [lag, here, here - DOUBT * lag];
      }
      [before, here] = [here, after];
    }
    if (best === 0) [best, height] = [SHORTEST, first];
    return [best, Math.min(Math.max(height, 0), 1)];
  }
}

/** Features of growing sound; those of a frame do not depend on how it was cut. */
export class VoiceStream {
  private readonly pitch = new PitchStream();
  private readonly heard: Pitch = { voicing: [], frequency: [] };
  private mean = 0;
  private voiced = 0;
  private peak = LEVEL_FLOOR_DB;
  /** Rows of encoder frames that no motion frame has taken yet; the first one looks at silence too. */
  private rows: Float32Array[] = Array.from({ length: STEPS - 1 }, () => {
    const row = new Float32Array(ROW);
    row[0] = 1;
    return row;
  });

  /** Take the samples that the encoder takes. */
  listen(samples: Float32Array): void {
    const { voicing, frequency } = this.pitch.push(samples);
    this.heard.voicing.push(...voicing);
    this.heard.frequency.push(...frequency);
  }

  /** The sound is over: the last frames look at silence. */
  end(): void {
    this.listen(new Float32Array(SAMPLE_RATE / 2));
  }

  /** Features of the motion frames that encoder frames of sound that was listened to complete. */
  push(activity: Activity, prosody: Prosody): Float32Array[] {
    const features: Float32Array[] = [];
    for (let t = 0; t < activity.level.length; t++) {
      const row = new Float32Array(ROW);
      row.set(activity.visemes.subarray(t * V, (t + 1) * V));
      row[V] = activity.closure[t];
      row[V + 1] = this.level(activity.level[t]);
      row[V + 2] = this.heard.voicing.shift() ?? 0;
      row[V + 3] = this.relative(this.heard.frequency.shift() ?? 0);
      row[V + 4] = prosody.speaking[t];
      row[V + 5] = prosody.belief[t];
      this.rows.push(row);
      if (this.rows.length < STEPS) continue;
      features.push(summary(this.rows));
      this.rows = [];
    }
    return features;
  }

  private level(value: number): number {
    this.peak = Math.max(value, this.peak - LEVEL_FALL_DB, LEVEL_FLOOR_DB);
    return Math.max((value - this.peak) / 20 + 1, -1.5);
  }

  /** Pitch in quarter octaves about its running mean. */
  private relative(frequency: number): number {
    if (frequency <= 0) return 0;
    this.voiced = Math.min(this.voiced + 1, MEAN_FRAMES);
    this.mean += (frequency - this.mean) / this.voiced;
    return Math.min(Math.max((frequency - this.mean) / UNIT, -3), 3);
  }
}

/** One motion frame of its encoder frames. */
function summary(rows: Float32Array[]): Float32Array {
  const out = new Float32Array(VOICE_SIZE);
  const half = STEPS / 2;
  for (let i = 0; i < MEANS; i++) {
    for (const [t, row] of rows.entries()) out[(t < half ? 0 : MEANS) + i] += row[i] / half;
  }
  const [first, last] = [rows[0], rows[STEPS - 1]];
  let [voicing, pitch] = [0, 0];
  for (const row of rows) {
    voicing += row[V + 2];
    pitch += row[V + 2] * row[V + 3];
  }
  const rest = out.subarray(2 * MEANS);
  rest[0] = voicing / STEPS;
  rest[1] = pitch / (voicing + 1e-6);
  rest[2] = first[V + 2] > 0 && last[V + 2] > 0 ? last[V + 3] - first[V + 3] : 0;
  rest[3] = last[V + 4];
  rest[4] = last[V + 5];
  return out;
}
