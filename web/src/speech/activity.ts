/** What the speech encoder hears, 100 frames a second. */

import { VISEMES } from "./tables";

const QUIET_DB = -90;

export interface Activity {
  /** (n, V) posteriors of visemes, the first of which is silence. */
  visemes: Float32Array;
  /** (n) posterior that the lips are shut. */
  closure: Float32Array;
  /** (n) loudness in dBFS. */
  level: Float32Array;
}

/** Frames of silence. */
export function silence(count: number): Activity {
  const visemes = new Float32Array(count * VISEMES.length);
  for (let t = 0; t < count; t++) visemes[t * VISEMES.length] = 1;
  const level = new Float32Array(count).fill(QUIET_DB);
  return { visemes, closure: new Float32Array(count), level };
}

/** Two stretches, one after the other. */
export function concatenate(first: Activity, second: Activity): Activity {
  return {
    visemes: joined([first.visemes, second.visemes]),
    closure: joined([first.closure, second.closure]),
    level: joined([first.level, second.level]),
  };
}

/** The last frames. */
export function tail(activity: Activity, count: number): Activity {
  const start = Math.max(0, activity.level.length - count);
  return {
    visemes: activity.visemes.slice(start * VISEMES.length),
    closure: activity.closure.slice(start),
    level: activity.level.slice(start),
  };
}

export function joined(parts: Float32Array[]): Float32Array<ArrayBuffer> {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
