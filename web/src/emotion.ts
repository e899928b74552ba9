/** What emotions do to a speaking face: the arithmetic of `motion/controls.py`, which explains it. */

import { CHANNELS, EMOTIONS } from "./generated";
import { contacts } from "./lips";
import { channel, NUM_CHANNELS } from "./motion";

const CORNERS = CHANNELS.map((name) => /^mouth(Smile|Dimple|Frown|Stretch|Press|Shrug)/.test(name));
const ROUNDING = [channel("mouthPucker"), channel("mouthFunnel")];
const FULLY_ROUND = 0.7;
const JAW = channel("jawOpen");
const PARTED = 0.06;
const AT_TEETH = 0.5;
const OPENS_LIPS = ["jawOpen", "mouthUpperUp"];
const SNEER_CLOSE_RATIO = 0.16;

/** Offsets of the channels that always hold, those that give way to contacts of the lips, and those that help them. */
export class Emotion {
  private readonly steady = new Float32Array(NUM_CHANNELS);
  private readonly opening = new Float32Array(NUM_CHANNELS);
  private readonly closing = new Float32Array(NUM_CHANNELS);

  /** Strength in [0, 1] by name; throws on a name that there is not. */
  constructor(strengths: Record<string, number> = {}) {
    for (const [name, strength] of Object.entries(strengths)) {
      const emotion = EMOTIONS[name];
      if (!emotion) throw new RangeError(`there is no emotion "${name}"`);
      for (const [part, value] of Object.entries(emotion)) {
        const into = OPENS_LIPS.includes(part) ? this.opening : this.steady;
        for (const [i, known] of CHANNELS.entries()) {
          if (known === part || known === `${part}Left` || known === `${part}Right`) {
            into[i]! += value * Math.min(Math.max(strength, 0), 1);
          }
        }
      }
    }
    const sneer = this.steady[channel("noseSneerLeft")]!;
    this.closing[channel("mouthClose")] = SNEER_CLOSE_RATIO * sneer;
  }

  /** Become more like another by a share of the way. */
  approach(other: Emotion, share: number): void {
    for (const part of ["steady", "opening", "closing"] as const) {
      const [here, there] = [this[part], other[part]];
      for (const i of here.keys()) here[i]! += share * (there[i]! - here[i]!);
    }
  }

  /** Add it to a face, in place; lips keep what a sound asks of them. */
  show(dyn: Float32Array): void {
    const { teeth, shut } = contacts(dyn);
    const rounding = ROUNDING.reduce((sum, i) => sum + dyn[i]!, 0) / FULLY_ROUND;
    const free = 1 - Math.max(Math.min(rounding, 1), AT_TEETH * teeth);
    const parted = Math.min(dyn[JAW]! / PARTED, 1) * (1 - shut);
    for (let i = 0; i < NUM_CHANNELS; i++) {
      const value =
        dyn[i]! +
        (CORNERS[i] ? free : 1) * this.steady[i]! +
        parted * (1 - teeth) * this.opening[i]! +
        (1 - parted) * this.closing[i]!;
      dyn[i] = Math.min(Math.max(value, 0), 1);
    }
  }
}
