/**
 * Depth of every Gaussian from its canonical mean and what moves it, and the order to draw them in:
 * a counting sort of depths in 65,536 steps, some micrometres each.
 */

import { ATTRIBUTES, type GaussianData } from "./avatar";
import { sparseWeights, type SparseWeights } from "./weights";

const LEVELS = 1 << 16;

export class DepthOrder {
  private readonly depths: Float32Array;
  private readonly keys: Int32Array;
  private readonly counts = new Uint32Array(LEVELS + 1);
  private readonly rows: Float32Array;
  private readonly jointRows: Float32Array;
  private readonly places: Float32Array;
  private readonly moves: Int8Array;
  private readonly layer: SparseWeights;

  constructor(
    private readonly gaussians: GaussianData,
    faces: number,
    joints: number,
  ) {
    this.depths = new Float32Array(gaussians.count);
    this.keys = new Int32Array(gaussians.count);
    this.rows = new Float32Array(4 * faces);
    this.jointRows = new Float32Array(4 * joints);
    this.places = gaussians.rank > 0 ? gaussians.means.slice() : gaussians.means;
    this.moves = movesOfMeans(gaussians);
    this.layer = sparseWeights(gaussians.layerWeights, joints);
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
    this.displace(factors);
    this.measure();
    return this.arrange(near, order);
  }

  /** Depth of Gaussian n of the last `sort`, metres. */
  depth(n: number): number {
    return this.depths[n]!;
  }

  /** Means with the residual. */
  private displace(factors: Float32Array): void {
    const { rank, means } = this.gaussians;
    const { places, moves } = this;
    if (rank > 0) places.set(means);
    for (let r = 0; r < rank; r++) {
      const x = factors[16 * r]!;
      const y = factors[16 * r + 1]!;
      const z = factors[16 * r + 2]!;
      if (x === 0 && y === 0 && z === 0) continue;
      for (let i = 0, m = r * places.length; i < places.length; i += 3, m += 3) {
        places[i]! += x * moves[m]!;
        places[i + 1]! += y * moves[m + 1]!;
        places[i + 2]! += z * moves[m + 2]!;
      }
    }
  }

  private measure(): void {
    const { count, triangles } = this.gaussians;
    const { depths, rows, jointRows, places } = this;
    const { joints, weights, per } = this.layer;
    const bound = triangles.length;
    for (let n = 0, i = 0; n < bound; n++, i += 3) {
      const t = 4 * triangles[n]!;
      depths[n] =
        rows[t]! * places[i]! +
        rows[t + 1]! * places[i + 1]! +
        rows[t + 2]! * places[i + 2]! +
        rows[t + 3]!;
    }
    for (let n = bound, i = 3 * bound, w = 0; n < count; n++, i += 3, w += per) {
      const x = places[i]!;
      const y = places[i + 1]!;
      const z = places[i + 2]!;
      let depth = 0;
      for (let k = w; k < w + per; k++) {
        const weight = weights[k]!;
        if (weight === 0) break;
        const j = 4 * joints[k]!;
        depth +=
          weight *
          (jointRows[j]! * x + jointRows[j + 1]! * y + jointRows[j + 2]! * z + jointRows[j + 3]!);
      }
      depths[n] = depth;
    }
  }

  private arrange(near: number, order: Uint32Array): number {
    const { depths, keys, counts } = this;
    const count = depths.length;
    let low = Infinity;
    let high = -Infinity;
    for (let n = 0; n < count; n++) {
      const depth = depths[n]!;
      if (depth < near) continue;
      if (depth < low) low = depth;
      if (depth > high) high = depth;
    }
    const scale = high > low ? (LEVELS - 1) / (high - low) : 0;
    counts.fill(0);
    let drawn = 0;
    for (let n = 0; n < count; n++) {
      const depth = depths[n]!;
      if (!(depth >= near)) {
        keys[n] = -1;
        continue;
      }
      // Key 0 is the farthest.
      const key = ((high - depth) * scale) | 0;
      keys[n] = key;
      counts[key + 1]!++;
      drawn++;
    }
    for (let key = 1; key < LEVELS; key++) counts[key]! += counts[key - 1]!;
    for (let n = 0; n < count; n++) {
      const key = keys[n]!;
      if (key >= 0) order[counts[key]!++] = n;
    }
    return drawn;
  }
}

/** (R, N, 3) how each mode of the residual moves means. */
function movesOfMeans({ count, rank, modes }: GaussianData): Int8Array {
  const moves = new Int8Array(3 * rank * count);
  for (let i = 0; i < rank * count; i++) {
    moves.set(modes.subarray(ATTRIBUTES * i, ATTRIBUTES * i + 3), 3 * i);
  }
  return moves;
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
