/** What a face does while nothing is said: blinks, small turns of the eyes, a slow sway of the head. */

import { channel, type Latents } from "./motion";

const BLINK = [channel("eyeBlinkLeft"), channel("eyeBlinkRight")] as const;
const LOOK = {
  left: [channel("eyeLookOutLeft"), channel("eyeLookInRight")],
  right: [channel("eyeLookInLeft"), channel("eyeLookOutRight")],
} as const;
const CLOSING_SECONDS = 0.07;
const OPENING_SECONDS = 0.16;
const SWAY_RADIANS = 0.014;
const SACCADE = 0.12;

export class Idle {
  private nextBlink = 1.5;
  private nextLook = 1;
  private gaze = 0;

  /** @param still Leave the head still, for people who asked for less motion. */
  constructor(private readonly still = false) {}

  sample(seconds: number, out: Latents): void {
    out.dyn.fill(0);
    out.pose.fill(0);
    const lids = this.lids(seconds);
    for (const i of BLINK) out.dyn[i] = lids;
    if (seconds >= this.nextLook) {
      this.gaze = SACCADE * (2 * Math.random() - 1);
      this.nextLook = seconds + 0.8 + 2.5 * Math.random();
    }
    const [on, off] = this.gaze > 0 ? [LOOK.left, LOOK.right] : [LOOK.right, LOOK.left];
    for (const i of on) out.dyn[i] = Math.abs(this.gaze);
    for (const i of off) out.dyn[i] = 0;
    if (this.still) return;
    out.pose[0] = SWAY_RADIANS * (Math.sin(0.61 * seconds) + 0.5 * Math.sin(1.37 * seconds + 1));
    out.pose[1] = SWAY_RADIANS * (Math.sin(0.43 * seconds + 2) + 0.6 * Math.sin(0.97 * seconds));
    out.pose[2] = 0.5 * SWAY_RADIANS * Math.sin(0.53 * seconds + 4);
  }

  private lids(seconds: number): number {
    const since = seconds - this.nextBlink;
    if (since < 0) return 0;
    if (since > CLOSING_SECONDS + OPENING_SECONDS) {
      this.nextBlink = seconds + 2 + 4 * Math.random();
      return 0;
    }
    return since < CLOSING_SECONDS
      ? since / CLOSING_SECONDS
      : 1 - (since - CLOSING_SECONDS) / OPENING_SECONDS;
  }
}
