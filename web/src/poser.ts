/** One frame on the processor: motion to maps, factors and drawing order; the rest is the shaders'. */

import type { AvatarData } from "./avatar";
import { PersonalHead } from "./head";
import { baseDeformation, residualFactors, type Latents } from "./motion";
import { DepthOrder } from "./order";

/** Gaussians nearer to the camera's plane are not drawn, metres. */
export const NEAR = 0.05;

/** What the renderer draws from. */
export interface PosedFrame {
  /** (F, 3, 4) canonical to world. */
  maps: Float32Array;
  /** (J, 3, 4). */
  jointMaps: Float32Array;
  /** (R, 16). */
  factors: Float32Array;
  /** Gaussians, farthest first; `drawn` of them count. */
  order: Uint32Array;
  drawn: number;
  /** Distance between the middles of the lips, metres. */
  aperture: number;
}

export class Poser {
  private readonly head: PersonalHead;
  private readonly sorter: DepthOrder;
  private readonly maps: Float32Array;
  private factors: Float32Array = new Float32Array(0);
  private aperture = 0;

  constructor(private readonly avatar: AvatarData) {
    const { head, gaussians } = avatar;
    this.head = new PersonalHead(head);
    this.maps = new Float32Array(4 * head.faces.length);
    this.sorter = new DepthOrder(gaussians, head.faces.length / 3, head.parents.length);
  }

  /** The pose for `frame` from now on. */
  pose(latents: Latents): void {
    const { expression, joints, translation } = baseDeformation(latents, this.avatar.head);
    const vertices = this.head.vertices(expression, joints, translation);
    this.head.triangleMaps(vertices, this.maps);
    this.factors = residualFactors(latents, this.avatar.gaussians);
    const [upper, lower] = this.avatar.head.lipMiddles as unknown as [number, number];
    this.aperture = Math.hypot(
      ...[0, 1, 2].map((i) => vertices[3 * upper + i]! - vertices[3 * lower + i]!),
    );
  }

  /**
   * The frame as a camera sees it.
   *
   * @param view (3, 4) world to camera.
   * @param order Memory for the result.
   */
  frame(view: Float32Array, order: Uint32Array): PosedFrame {
    const { jointMaps } = this.head;
    const { maps, factors } = this;
    const drawn = this.sorter.sort(view, maps, jointMaps, factors, NEAR, order);
    return { maps, jointMaps, factors, order, drawn, aperture: this.aperture };
  }
}
