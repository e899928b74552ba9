/**
 * The person's head in one frame: shapes, guards of the eyes, skinning; then the affine map of every
 * triangle. The same sums as `head/personal.py`, `head/skinning.py`, `head/guards.py` and
 * `geometry/meshes.py` of the Python package; metres and radians.
 */

import type { Guard, HeadData } from "./avatar";
import { sparseWeights, type SparseWeights } from "./weights";

const SOFTNESS_METRES = 0.0002;

/** Rotation matrix (9, row by row) of the axis-angle at `from`. */
function rotation(turn: Float32Array, from: number, out: Float64Array): Float64Array {
  const x = turn[from]!;
  const y = turn[from + 1]!;
  const z = turn[from + 2]!;
  const square = x * x + y * y + z * z;
  let sinc = 1;
  let versine = 0.5;
  if (square >= 1e-16) {
    const angle = Math.sqrt(square);
    sinc = Math.sin(angle) / angle;
    versine = (1 - Math.cos(angle)) / square;
  }
  out[0] = 1 - versine * (y * y + z * z);
  out[4] = 1 - versine * (x * x + z * z);
  out[8] = 1 - versine * (x * x + y * y);
  out[1] = versine * x * y - sinc * z;
  out[3] = versine * x * y + sinc * z;
  out[2] = versine * x * z + sinc * y;
  out[6] = versine * x * z - sinc * y;
  out[5] = versine * y * z - sinc * x;
  out[7] = versine * y * z + sinc * x;
  return out;
}

export class PersonalHead {
  readonly canonical: Float32Array<ArrayBuffer>;
  /** Maps (J, 3, 4) from rest to posed space, of the last frame. */
  readonly jointMaps: Float32Array<ArrayBuffer>;
  private readonly posed: Float32Array<ArrayBuffer>;
  private readonly inverses: Float32Array;
  private readonly turn = new Float64Array(9);
  private readonly local = new Float64Array(12);
  private readonly skinned: SparseWeights;

  constructor(private readonly data: HeadData) {
    this.jointMaps = new Float32Array(12 * data.parents.length);
    this.posed = new Float32Array(data.rest.length);
    this.skinned = sparseWeights(data.skinWeights, data.parents.length);
    const still = new Float32Array(3 * data.parents.length);
    this.vertices(data.canonicalExpression, still, new Float32Array(3));
    this.canonical = this.posed.slice();
    this.inverses = triangleInverses(this.canonical, data.faces);
  }

  /**
   * Vertices (V, 3) of one frame; the next call writes to the same memory.
   *
   * @param expression (52) channels.
   * @param joints (J, 3) axis-angles.
   * @param translation (3) of the root.
   */
  vertices(
    expression: Float32Array,
    joints: Float32Array,
    translation: Float32Array,
  ): Float32Array {
    const out = this.posed;
    out.set(this.data.rest);
    this.addShapes(out, expression);
    for (const guard of this.data.guards) this.push(out, guard, joints);
    this.poseJoints(joints, translation);
    this.skin(out);
    return out;
  }

  /** Write the map (F, 3, 4) of every face, canonical to posed, to `out`. */
  triangleMaps(vertices: Float32Array, out: Float32Array): void {
    const { faces } = this.data;
    const rest = this.canonical;
    const inverse = this.inverses;
    for (let f = 0, i = 0, m = 0; f < faces.length; f += 3, i += 9, m += 12) {
      const a = 3 * faces[f]!;
      const b = 3 * faces[f + 1]!;
      const c = 3 * faces[f + 2]!;
      const px = vertices[a]!;
      const py = vertices[a + 1]!;
      const pz = vertices[a + 2]!;
      const ux = vertices[b]! - px;
      const uy = vertices[b + 1]! - py;
      const uz = vertices[b + 2]! - pz;
      const vx = vertices[c]! - px;
      const vy = vertices[c + 1]! - py;
      const vz = vertices[c + 2]! - pz;
      let nx = uy * vz - uz * vy;
      let ny = uz * vx - ux * vz;
      let nz = ux * vy - uy * vx;
      const area = Math.sqrt(nx * nx + ny * ny + nz * nz);
      const scale = area > 0 ? 1 / area : 0;
      nx *= scale;
      ny *= scale;
      nz *= scale;
      const rx = rest[a]!;
      const ry = rest[a + 1]!;
      const rz = rest[a + 2]!;
      if (inverse[i + 6] === 0 && inverse[i + 7] === 0 && inverse[i + 8] === 0) {
        out.fill(0, m, m + 12);
        out[m] = out[m + 5] = out[m + 10] = 1;
        out[m + 3] = px - rx;
        out[m + 7] = py - ry;
        out[m + 11] = pz - rz;
        continue;
      }
      const i0 = inverse[i]!;
      const i1 = inverse[i + 1]!;
      const i2 = inverse[i + 2]!;
      const i3 = inverse[i + 3]!;
      const i4 = inverse[i + 4]!;
      const i5 = inverse[i + 5]!;
      const i6 = inverse[i + 6]!;
      const i7 = inverse[i + 7]!;
      const i8 = inverse[i + 8]!;
      const m00 = ux * i0 + vx * i3 + nx * i6;
      const m01 = ux * i1 + vx * i4 + nx * i7;
      const m02 = ux * i2 + vx * i5 + nx * i8;
      const m10 = uy * i0 + vy * i3 + ny * i6;
      const m11 = uy * i1 + vy * i4 + ny * i7;
      const m12 = uy * i2 + vy * i5 + ny * i8;
      const m20 = uz * i0 + vz * i3 + nz * i6;
      const m21 = uz * i1 + vz * i4 + nz * i7;
      const m22 = uz * i2 + vz * i5 + nz * i8;
      out[m] = m00;
      out[m + 1] = m01;
      out[m + 2] = m02;
      out[m + 3] = px - m00 * rx - m01 * ry - m02 * rz;
      out[m + 4] = m10;
      out[m + 5] = m11;
      out[m + 6] = m12;
      out[m + 7] = py - m10 * rx - m11 * ry - m12 * rz;
      out[m + 8] = m20;
      out[m + 9] = m21;
      out[m + 10] = m22;
      out[m + 11] = pz - m20 * rx - m21 * ry - m22 * rz;
    }
  }

  private addShapes(out: Float32Array, expression: Float32Array): void {
    const { shapeChannels, shapeStarts, shapeVertices, shapeDeltas } = this.data;
    for (let shape = 0; shape < shapeStarts.length - 1; shape++) {
      const second = shapeChannels[2 * shape + 1]!;
      let amount = expression[shapeChannels[2 * shape]!]!;
      if (second >= 0) amount *= expression[second]!;
      if (amount === 0) continue;
      const stop = shapeStarts[shape + 1]!;
      for (let n = shapeStarts[shape]!; n < stop; n++) {
        const v = 3 * shapeVertices[n]!;
        out[v]! += amount * shapeDeltas[3 * n]!;
        out[v + 1]! += amount * shapeDeltas[3 * n + 1]!;
        out[v + 2]! += amount * shapeDeltas[3 * n + 2]!;
      }
    }
  }

  /** Push lids off an eyeball. */
  private push(out: Float32Array, guard: Guard, joints: Float32Array): void {
    const r = rotation(joints, 3 * guard.joint, this.turn);
    const [a0, a1, a2] = guard.axis as unknown as [number, number, number];
    const ax = r[0]! * a0 + r[1]! * a1 + r[2]! * a2;
    const ay = r[3]! * a0 + r[4]! * a1 + r[5]! * a2;
    const az = r[6]! * a0 + r[7]! * a1 + r[8]! * a2;
    const centre = 3 * guard.joint;
    const cx = this.data.jointsRest[centre]!;
    const cy = this.data.jointsRest[centre + 1]!;
    const cz = this.data.jointsRest[centre + 2]!;
    for (let i = 0; i < guard.vertices.length; i++) {
      const v = 3 * guard.vertices[i]!;
      const x = out[v]! - cx;
      const y = out[v + 1]! - cy;
      const z = out[v + 2]! - cz;
      const length = Math.sqrt(x * x + y * y + z * z);
      const cosine = (x * ax + y * ay + z * az) / length;
      let limit = 0;
      for (let k = 0; k < guard.heights.length; k++) {
        limit += guard.heights[k]! * Math.exp((cosine - 1) * guard.falloffs[k]!);
      }
      const gap = guard.growth * limit + guard.margins[i]! - length;
      const added = (0.5 * (gap + Math.sqrt(gap * gap + SOFTNESS_METRES ** 2))) / length;
      out[v]! += added * x;
      out[v + 1]! += added * y;
      out[v + 2]! += added * z;
    }
  }

  private poseJoints(joints: Float32Array, translation: Float32Array): void {
    const { parents, jointsRest } = this.data;
    const maps = this.jointMaps;
    const local = this.local;
    for (let j = 0; j < parents.length; j++) {
      const r = rotation(joints, 3 * j, this.turn);
      for (let i = 0; i < 3; i++) {
        let shift = jointsRest[3 * j + i]!;
        for (let k = 0; k < 3; k++) {
          local[4 * i + k] = r[3 * i + k]!;
          shift -= r[3 * i + k]! * jointsRest[3 * j + k]!;
        }
        local[4 * i + 3] = shift;
      }
      const parent = 12 * parents[j]!;
      for (let i = 0; i < 3; i++) {
        for (let k = 0; k < 4; k++) {
          let value = 0;
          if (parent < 0) {
            value = local[4 * i + k]! + (k === 3 ? translation[i]! : 0);
          } else {
            for (let m = 0; m < 3; m++) value += maps[parent + 4 * i + m]! * local[4 * m + k]!;
            if (k === 3) value += maps[parent + 4 * i + 3]!;
          }
          maps[12 * j + 4 * i + k] = value;
        }
      }
    }
  }

  private skin(out: Float32Array): void {
    const { joints, weights, per } = this.skinned;
    const maps = this.jointMaps;
    for (let v = 0, s = 0; v < out.length; v += 3, s += per) {
      const x = out[v]!;
      const y = out[v + 1]!;
      const z = out[v + 2]!;
      let a = 0;
      let b = 0;
      let c = 0;
      for (let k = s; k < s + per; k++) {
        const w = weights[k]!;
        if (w === 0) break;
        const m = joints[k]! * 12;
        a += w * (maps[m]! * x + maps[m + 1]! * y + maps[m + 2]! * z + maps[m + 3]!);
        b += w * (maps[m + 4]! * x + maps[m + 5]! * y + maps[m + 6]! * z + maps[m + 7]!);
        c += w * (maps[m + 8]! * x + maps[m + 9]! * y + maps[m + 10]! * z + maps[m + 11]!);
      }
      out[v] = a;
      out[v + 1] = b;
      out[v + 2] = c;
    }
  }
}

/** Inverses (F, 3, 3) of the frames [e1 e2 n] of triangles; zero for faces without area. */
function triangleInverses(vertices: Float32Array, faces: Uint16Array): Float32Array {
  const out = new Float32Array(3 * faces.length);
  for (let f = 0, o = 0; f < faces.length; f += 3, o += 9) {
    const a = 3 * faces[f]!;
    const b = 3 * faces[f + 1]!;
    const c = 3 * faces[f + 2]!;
    const u = [0, 1, 2].map((i) => vertices[b + i]! - vertices[a + i]!) as Vector;
    const v = [0, 1, 2].map((i) => vertices[c + i]! - vertices[a + i]!) as Vector;
    const normal = cross(u, v);
    const area = Math.hypot(...normal);
    const longest = dot(u, u) + dot(v, v);
    if (!(area > 1e-9 * longest)) continue;
    const n = normal.map((x) => x / area) as Vector;
    const rows = [cross(v, n), cross(n, u)];
    for (let i = 0; i < 3; i++) {
      out[o + i] = rows[0]![i]! / area;
      out[o + 3 + i] = rows[1]![i]! / area;
      out[o + 6 + i] = n[i]!;
    }
  }
  return out;
}

type Vector = [number, number, number];

function cross(a: Vector, b: Vector): Vector {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

function dot(a: Vector, b: Vector): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}
