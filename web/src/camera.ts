/**
 * Cameras: OpenCV pinholes, x right, y down, z forward; pixel centres at half integers. Turning is
 * that of `geometry/cameras.py`.
 */

import type { CameraData } from "./avatar";

/** A camera for a picture of some size. */
export interface View {
  /** (3, 4) world to camera, row by row. */
  view: Float32Array;
  focal: [number, number];
  centre: [number, number];
  width: number;
  height: number;
}

/** Where the viewer stands, relative to the portrait's camera. */
export interface Viewpoint {
  yawDegrees: number;
  pitchDegrees: number;
  /** Factor on the distance. */
  distance: number;
}

export const FRONT: Readonly<Viewpoint> = { yawDegrees: 0, pitchDegrees: 0, distance: 1 };
const MAX_PITCH = 80;
const DISTANCES = [0.3, 4] as const;

/** A viewpoint within what can be seen. */
export function limited(point: Viewpoint): Viewpoint {
  return {
    yawDegrees: ((((point.yawDegrees + 180) % 360) + 360) % 360) - 180,
    pitchDegrees: clamp(point.pitchDegrees, -MAX_PITCH, MAX_PITCH),
    distance: clamp(point.distance, ...DISTANCES),
  };
}

/** The portrait's camera turned around `target`; the photo's square fills the shorter side. */
export function viewFrom(
  camera: CameraData,
  target: readonly [number, number, number],
  point: Viewpoint,
  width: number,
  height: number,
): View {
  const m = camera.viewmat;
  const base = [0, 1, 2].map((i) => m[i]!.slice(0, 3));
  const yaw = axisRotation([0, 1, 0], (point.yawDegrees * Math.PI) / 180);
  const pitch = axisRotation(base[0]!, (-point.pitchDegrees * Math.PI) / 180);
  const turned = multiply(base, transpose(multiply(yaw, pitch)));
  const local = [0, 1, 2].map((i) => (dot(base[i]!, target) + m[i]![3]!) * point.distance);
  const view = new Float32Array(12);
  for (let i = 0; i < 3; i++) {
    for (let k = 0; k < 3; k++) view[4 * i + k] = turned[i]![k]!;
    view[4 * i + 3] = local[i]! - dot(turned[i]!, target);
  }
  const scale = Math.min(width, height) / camera.size[0];
  const K = camera.K;
  return {
    view,
    focal: [K[0]![0]! * scale, K[1]![1]! * scale],
    centre: [
      width / 2 + (K[0]![2]! - camera.size[0] / 2) * scale,
      height / 2 + (K[1]![2]! - camera.size[1] / 2) * scale,
    ],
    width,
    height,
  };
}

function axisRotation(axis: readonly number[], angle: number): number[][] {
  const [x, y, z] = axis as [number, number, number];
  const c = Math.cos(angle);
  const s = Math.sin(angle);
  const v = 1 - c;
  return [
    [c + x * x * v, x * y * v - z * s, x * z * v + y * s],
    [y * x * v + z * s, c + y * y * v, y * z * v - x * s],
    [z * x * v - y * s, z * y * v + x * s, c + z * z * v],
  ];
}

function multiply(a: number[][], b: number[][]): number[][] {
  return a.map((row) => [0, 1, 2].map((k) => row.reduce((sum, x, i) => sum + x * b[i]![k]!, 0)));
}

function transpose(a: number[][]): number[][] {
  return [0, 1, 2].map((k) => a.map((row) => row[k]!));
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, x, i) => sum + x * b[i]!, 0);
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}
