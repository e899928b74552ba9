/**
 * From one source of motion to another without a jump: what the face showed at the change, less what the new
 * source has there, is added and fades away. Lips let go soon; a head has weight and takes longer.
 */

import { copyLatents, ease, restLatents, type Latents } from "./motion";

/** So an interrupted mouth closes softly but soon. */
export const FACE_SECONDS = 0.18;
export const HEAD_SECONDS = 0.7;

export class Transition {
  private readonly shown = restLatents();
  private readonly offset = restLatents();
  private source: unknown = null;
  private age = HEAD_SECONDS;

  /**
   * Lead over to a face.
   *
   * @param face What its source has; what is to be shown is written here.
   * @param source Whose face it is, to be told from the others.
   * @param seconds Since the last one.
   */
  apply(face: Latents, source: unknown, seconds: number): void {
    const { shown, offset } = this;
    this.age += seconds;
    if (source !== this.source) {
      this.source = source;
      this.age = 0;
      for (const part of ["dyn", "pose"] as const) {
        for (const i of face[part].keys()) offset[part][i] = shown[part][i]! - face[part][i]!;
      }
    }
    const lips = 1 - ease(this.age / FACE_SECONDS);
    const head = 1 - ease(this.age / HEAD_SECONDS);
    for (const i of face.dyn.keys()) {
      face.dyn[i] = Math.min(Math.max(face.dyn[i]! + lips * offset.dyn[i]!, 0), 1);
    }
    for (const i of face.pose.keys()) face.pose[i]! += head * offset.pose[i]!;
    copyLatents(face, shown);
  }
}
