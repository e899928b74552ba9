/** What the page adds to any motion: an emotion, and where the eyes and the head turn. */

import type { HeadData } from "./avatar";
import { Emotion } from "./emotion";
import { channel, type Latents } from "./motion";

const HEAD_SHARE = 0.35;
const EASE_SECONDS = 0.25;
const MAX_GAZE_DEGREES = 25;

export class Steering {
  private wanted = new Emotion();
  private readonly emotion = new Emotion();
  private wantedGaze: [number, number] = [0, 0];
  private readonly gaze: [number, number] = [0, 0];

  constructor(private readonly head: HeadData) {}

  /** Strength in [0, 1] by name; throws on a name that there is not. */
  setEmotion(strengths: Record<string, number>): void {
    this.wanted = new Emotion(strengths);
  }

  /** Turn the eyes, and the head a little: degrees to the person's left and up. */
  lookAt(yawDegrees: number, pitchDegrees: number): void {
    const limit = (x: number) => Math.min(Math.max(x, -MAX_GAZE_DEGREES), MAX_GAZE_DEGREES);
    this.wantedGaze = [limit(yawDegrees), limit(pitchDegrees)];
  }

  /** Apply to a frame, `seconds` after the last. */
  apply(latents: Latents, seconds: number): void {
    const share = 1 - Math.exp(-seconds / EASE_SECONDS);
    this.emotion.approach(this.wanted, share);
    this.emotion.show(latents.dyn);
    for (const i of [0, 1] as const) this.gaze[i] += share * (this.wantedGaze[i] - this.gaze[i]);
    const [yaw, pitch] = this.gaze.map((degrees) => (degrees * Math.PI) / 180) as [number, number];
    latents.pose[0]! -= HEAD_SHARE * pitch;
    latents.pose[1]! += HEAD_SHARE * yaw;
    const [fullYaw, fullPitch] = this.head.gazeRadians;
    const eyes = 1 - HEAD_SHARE;
    this.look(latents, "Out", "In", (eyes * yaw) / fullYaw);
    this.look(latents, "Up", "Down", (eyes * pitch) / fullPitch);
  }

  /** Move a pair of opposite channels of both eyes by `amount`, seen from the left eye. */
  private look(latents: Latents, plus: "Out" | "Up", minus: "In" | "Down", amount: number): void {
    for (const side of ["Left", "Right"] as const) {
      const sign = plus === "Out" && side === "Right" ? -1 : 1;
      const a = channel(`eyeLook${plus}${side}`);
      const b = channel(`eyeLook${minus}${side}`);
      const value = latents.dyn[a]! - latents.dyn[b]! + sign * amount;
      latents.dyn[a] = Math.min(Math.max(value, 0), 1);
      latents.dyn[b] = Math.min(Math.max(-value, 0), 1);
    }
  }
}
