/**
 * From visemes heard to channels of the mouth: the arithmetic of `motion/coarticulation.py`, which
 * explains it, at plain amplitude and articulation.
 */

import type { Channel } from "../generated";
import { ROLLED_AT_TEETH, ROLLED_SHUT } from "../lips";
import { channel, NUM_CHANNELS } from "../motion";
import type { Activity } from "./activity";
import { SURE } from "./prosody";
import { FRAMES_AHEAD, FRAMES_BEHIND, GROUPS, VISEMES } from "./tables";

const V = VISEMES.length;
const SPAN = FRAMES_BEHIND + FRAMES_AHEAD;
const SHARPNESS = 1.5;
const DELAY = 2;
const PAUSE_FRAMES = 18;
const MOST_DOUBT = 2;
const LOUD_RANGE_DB = 14;
const VIGOUR = 0.15;
const JAW_CLOSE_RATIO = 0.84;
const LABIODENTAL_THRESHOLD = 0.13;
const DOUBT = 0.01;
const HOLD_LIPS = 2;
const HOLD_TEETH = 3;
const HOLD_AFTER = 3;
const NEAR = 6;
const EASE = [0.5, 1.1, 1.4, 1.1, 0.5].map((weight) => weight / 4.6);
const JAW = channel("jawOpen");
const JAW_KERNEL = GROUPS[0].kernel;

/** Channels (n, 52), and contact of the lips with each other or the teeth (n). */
export interface Mouth {
  channels: Float32Array;
  contact: Float32Array;
}

/** What the mouth makes of doubtful hearing; `certainty` (n) as of prosody. */
export function decided(activity: Activity, certainty: Float32Array): Activity {
  const doubt = certainty.map((sure) => Math.min(Math.max((SURE / sure) ** 2, 1), MOST_DOUBT));
  return {
    visemes: powered(activity.visemes, (frame) => doubt[frame] ** 2),
    closure: activity.closure.map((value, t) => Math.min(doubt[t] * value, 1)),
    level: activity.level,
  };
}

/**
 * Mouth of a stretch of speech, whose first `FRAMES_BEHIND` and last `FRAMES_AHEAD` frames are context.
 *
 * @param threshold Value of `lipsShut` from which the lips count as shut.
 */
export function mouth(activity: Activity, threshold: number): Mouth {
  const frames = activity.level.length;
  const count = Math.max(0, frames - SPAN);
  const channels = new Float32Array(count * NUM_CHANNELS);
  if (count === 0) return { channels, contact: new Float32Array(0) };
  blend(activity, count, channels);
  const lips = column(activity, VISEMES.indexOf("PBM"));
  const bite = column(activity, VISEMES.indexOf("FV"));
  const closure = lipsShut(activity.closure, lips);
  const rather = closure.map((value, t) => {
    const [first, second] = [lips[t] ** 2, bite[t] ** 2];
    return (value * (first + DOUBT)) / (first + second + DOUBT);
  });
  const teeth = pulse(bite, LABIODENTAL_THRESHOLD, HOLD_TEETH);
  const shut = pulse(rather, threshold, HOLD_LIPS);
  const contact = new Float32Array(count);
  for (let t = 0; t < count; t++) {
    const row = channels.subarray(t * NUM_CHANNELS, (t + 1) * NUM_CHANNELS);
    biteLip(row, teeth[t] * (1 - shut[t]));
    shutLips(row, shut[t]);
    for (let i = 0; i < NUM_CHANNELS; i++) row[i] = Math.min(Math.max(row[i], 0), 1);
    contact[t] = Math.max(teeth[t], shut[t]);
  }
  return { channels, contact };
}

/** The channels before contacts. */
function blend(activity: Activity, count: number, out: Float32Array): void {
  const sharp = powered(activity.visemes, () => SHARPNESS);
  const pause = pauses(column(activity, 0), count);
  const weights = new Float64Array(V);
  for (let t = 0; t < count; t++) {
    for (const { channels, targets, dominances, kernel } of GROUPS) {
      weights.fill(0);
      for (let k = 0; k <= SPAN; k++) {
        const row = (t + k) * V;
        for (let v = 0; v < V; v++) weights[v] += kernel[k] * sharp[row + v];
      }
      let sum = 0;
      for (let v = 0; v < V; v++) {
        weights[v] *= dominances[v] * (v === 0 ? pause[t] : 1);
        sum += weights[v];
      }
      for (const [i, values] of targets.entries()) {
        let value = 0;
        for (let v = 0; v < V; v++) value += weights[v] * values[v];
        out[t * NUM_CHANNELS + channels[i]] = value / sum;
      }
    }
    out[t * NUM_CHANNELS + JAW] *= vigour(activity.level, t);
  }
}

/** Posteriors (n, V) to the power of their frame, over their sum. */
function powered(visemes: Float32Array, power: (frame: number) => number): Float32Array {
  const sharp = new Float32Array(visemes.length);
  for (let row = 0; row < sharp.length; row += V) {
    const exponent = power(row / V);
    let sum = 0;
    for (let v = row; v < row + V; v++) sum += visemes[v] ** exponent;
    for (let v = row; v < row + V; v++) sharp[v] = visemes[v] ** exponent / sum;
  }
  return sharp;
}

function column(activity: Activity, viseme: number): Float64Array {
  return Float64Array.from(activity.level, (_, t) => activity.visemes[t * V + viseme]);
}

/** From 0 to 1: a silence of 80 ms is part of a stop consonant, one of 150 ms closes the mouth. */
function pauses(quiet: Float64Array, count: number): Float64Array {
  return Float64Array.from({ length: count }, (_, t) => {
    let share = 0;
    for (let k = SPAN + 1 - PAUSE_FRAMES; k <= SPAN; k++) share += quiet[t + k] / PAUSE_FRAMES;
    const step = Math.min(Math.max((share - 0.45) / 0.35, 0), 1);
    return Math.max(step * step * (3 - 2 * step), 1e-3);
  });
}

/** 0.85 for soft .. 1.15 for loud speech against the last quarter second. */
function vigour(level: Float32Array, t: number): number {
  let mean = 0;
  let now = 0;
  for (let k = 0; k <= SPAN; k++) {
    mean += Math.max(level[t + k], -75) / (SPAN + 1);
    now += level[t + k] * JAW_KERNEL[k];
  }
  return 1 + VIGOUR * Math.tanh((now - mean) / LOUD_RANGE_DB);
}

/** Both heads' belief that the lips are shut, free of single frames. */
function lipsShut(closure: Float32Array, lips: Float64Array): Float64Array {
  const both = Float64Array.from(closure, (value, t) => Math.sqrt(value * lips[t]));
  return both.map((value, t) => 0.5 * value + 0.25 * ((both[t - 1] ?? 0) + (both[t + 1] ?? 0)));
}

/** Strength of a contact in [0, 1], begun `early` frames early, held, with soft edges. */
function pulse(posterior: Float64Array, threshold: number, early: number): Float64Array {
  const strength = posterior.map((value) =>
    Math.min(Math.max((value - 0.7 * threshold) / (0.3 * threshold), 0), 1),
  );
  const most = (t: number, behind: number, ahead: number) => {
    let found = 0;
    const stop = Math.min(t + ahead, strength.length - 1);
    for (let i = Math.max(0, t - behind); i <= stop; i++) found = Math.max(found, strength[i]);
    return found;
  };
  const held = strength.map((value, t) => {
    // Between two contacts that are near, a vowel must not be lost.
    const between = Math.min(most(t, NEAR, 0), most(t, 0, early)) * (1 - value);
    return Math.max(most(t, HOLD_AFTER, early) * (1 - between), most(t, 1, 1));
  });
  const first = FRAMES_BEHIND - DELAY - (EASE.length >> 1);
  return Float64Array.from({ length: posterior.length - SPAN }, (_, t) =>
    EASE.reduce((sum, weight, k) => sum + weight * held[first + t + k], 0),
  );
}

const sides = (name: "mouthLowerDown" | "mouthUpperUp"): Channel[] => [
  `${name}Left`,
  `${name}Right`,
];

function towards(row: Float32Array, names: Channel[], value: number, weight: number): void {
  for (const name of names) {
    const i = channel(name);
    row[i] += (value - row[i]) * weight;
  }
}

/** Lower lip to the edge of the upper teeth, which show under the raised upper lip. */
function biteLip(row: Float32Array, weight: number): void {
  towards(row, ["jawOpen"], 0.075, weight);
  towards(row, ["mouthRollLower"], ROLLED_AT_TEETH, weight);
  towards(row, ["mouthShrugLower"], 0.12, weight);
  towards(row, sides("mouthUpperUp"), 0.24, weight);
  towards(row, ["mouthClose", ...sides("mouthLowerDown"), "mouthFunnel"], 0, weight);
  towards(row, ["mouthPucker"], 0.25 * row[channel("mouthPucker")], weight);
}

/** Lips together: the jaw keeps a part of its opening and mouthClose cancels it. */
function shutLips(row: Float32Array, weight: number): void {
  const jaw = 0.4 * row[JAW];
  towards(row, ["jawOpen"], jaw, weight);
  towards(row, ["mouthClose"], JAW_CLOSE_RATIO * jaw + 0.01, weight);
  const open = [...sides("mouthLowerDown"), ...sides("mouthUpperUp")];
  towards(row, [...open, "mouthFunnel", "mouthShrugLower"], 0, weight);
  towards(row, ["mouthPucker"], 0.6 * row[channel("mouthPucker")], weight);
  towards(row, ["mouthRollLower"], ROLLED_SHUT.lower, weight);
  towards(row, ["mouthRollUpper"], ROLLED_SHUT.upper, weight);
  row[channel("mouthPressLeft")] += 0.18 * weight;
  row[channel("mouthPressRight")] += 0.18 * weight;
}
