/**
 * Depth of every Gaussian from its canonical mean and what moves it, and the order to draw them in:
 * a counting sort of depths in 65,536 steps, some micrometres each.
 */

import { ATTRIBUTES, type GaussianData } from "./avatar";

const LEVELS = 1 << 16;
const MODES_MEAN = 3;

export class DepthOrder {
  private readonly depths: Float32Array;
  private readonly keys: Uint16Array;
  private readonly counts = new Uint32Array(LEVELS + 1);
  private readonly rows: Float32Array;
  private readonly jointRows: Float32Array;

  constructor(
    private readonly gaussians: GaussianData,
    faces: number,
    joints: number,
  ) {
    this.depths = new Float32Array(gaussians.count);
    this.keys = new Uint16Array(gaussians.count);
    this.rows = new Float32Array(4 * faces);
    this.jointRows = new Float32Array(4 * joints);
  }

  /**
   * Write Gaussians from the farthest to the nearest to `order`.
   *
   * @param view (3, 4) world to camera.
   * @param maps (F, 3, 4) of the faces, canonical to world.
   * @param jointMaps (J, 3, 4) of the joints.
   * @param factors (R, 16) of the residual.
   * @param near Least depth that is drawn, metres.
   * @returns how many are to be drawn.
   */
  sort(
    view: Float32Array,
    maps: Float32Array,
    jointMaps: Float32Array,
    factors: Float32Array,
    near: number,
    order: Uint32Array,
  ): number {
    depthRows(view, maps, this.rows);
    depthRows(view, jointMaps, this.jointRows);
    this.measure(factors);
    return this.arrange(near, order);
  }

  /** Depth of Gaussian n of the last `sort`, metres. */
  depth(n: number): number {
    return this.depths[n]!;
  }

  private measure(factors: Float32Array): void {
    const { count, means, triangles, layerWeights, modes, rank } = this.gaussians;
    const { depths, rows, jointRows } = this;
    const bound = triangles.length;
    const joints = jointRows.length / 4;
    const moving = movingModes(factors, rank);
    for (let n = 0; n < count; n++) {
      let x = means[3 * n]!;
      let y = means[3 * n + 1]!;
      let z = means[3 * n + 2]!;
      for (const r of moving) {
        const at = (r * count + n) * ATTRIBUTES;
        x += factors[16 * r]! * modes[at]!;
        y += factors[16 * r + 1]! * modes[at + 1]!;
        z += factors[16 * r + 2]! * modes[at + 2]!;
      }
      if (n < bound) {
        const t = 4 * triangles[n]!;
        depths[n] = rows[t]! * x + rows[t + 1]! * y + rows[t + 2]! * z + rows[t + 3]!;
      } else {
        let depth = 0;
        for (let j = 0, w = (n - bound) * joints; j < 4 * joints; j += 4, w++) {
          const weight = layerWeights[w]!;
          if (weight === 0) continue;
          depth +=
            weight *
            (jointRows[j]! * x + jointRows[j + 1]! * y + jointRows[j + 2]! * z + jointRows[j + 3]!);
        }
        depths[n] = depth;
      }
    }
  }

  private arrange(near: number, order: Uint32Array): number {
    const { depths, keys, counts } = this;
    let low = Infinity;
    let high = -Infinity;
    for (const depth of depths) {
      if (!(depth >= near)) continue;
      if (depth < low) low = depth;
      if (depth > high) high = depth;
    }
    const scale = high > low ? (LEVELS - 1) / (high - low) : 0;
    counts.fill(0);
    let drawn = 0;
    for (let n = 0; n < depths.length; n++) {
      if (!(depths[n]! >= near)) continue;
      // Key 0 is the farthest.
      const key = ((high - depths[n]!) * scale) | 0;
      keys[n] = key;
      counts[key + 1]!++;
      drawn++;
    }
    for (let key = 1; key < LEVELS; key++) counts[key]! += counts[key - 1]!;
    for (let n = 0; n < depths.length; n++) {
      if (depths[n]! >= near) order[counts[keys[n]!]!++] = n;
    }
    return drawn;
  }
}

/** Third row of view times each map: what gives the depth. */
function depthRows(view: Float32Array, maps: Float32Array, out: Float32Array): void {
  const a = view[8]!;
  const b = view[9]!;
  const c = view[10]!;
  for (let m = 0, o = 0; m < maps.length; m += 12, o += 4) {
    for (let k = 0; k < 4; k++) {
      out[o + k] = a * maps[m + k]! + b * maps[m + 4 + k]! + c * maps[m + 8 + k]!;
    }
    out[o + 3]! += view[11]!;
  }
}

/** Modes that move means at all. */
function movingModes(factors: Float32Array, rank: number): number[] {
  const moving = [];
  for (let r = 0; r < rank; r++) {
    if (factors.subarray(16 * r, 16 * r + MODES_MEAN).some((value) => value !== 0)) moving.push(r);
  }
  return moving;
}
