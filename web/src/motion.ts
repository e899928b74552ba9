/**
 * Motion: channels and head pose over time, and what they make of a person's head (the base
 * deformation of `avatar/deformation.py`). One frame is a `Latents`: 52 channels in the order of
 * `CHANNELS`, and the head's axis-angle and translation.
 */

import { VAS_INPUTS, type GaussianData, type HeadData } from "./avatar";
import { CHANNELS, type Channel } from "./generated";
import { FileError, TensorFile } from "./tensors";

export const NUM_CHANNELS = CHANNELS.length;
const NECK = 1;
const HEAD = 2;
const EYES = [3, 4] as const;
const LEAST_FACTOR = 1e-11;
const MAX_FRAMES = 240 * 3600;

export interface Latents {
  dyn: Float32Array;
  pose: Float32Array;
}

/** Place of a channel in `Latents.dyn`. */
export function channel(name: Channel): number {
  return CHANNELS.indexOf(name);
}

const ROUNDING = [channel("mouthPucker"), channel("mouthFunnel")];
const FULLY_ROUND = 0.5;
const CORNERS = new Set(
  (["mouthSmile", "mouthDimple", "mouthFrown"] as const).flatMap((name) => [
    channel(`${name}Left`),
    channel(`${name}Right`),
  ]),
);

export function restLatents(): Latents {
  return { dyn: new Float32Array(NUM_CHANNELS), pose: new Float32Array(6) };
}

export function copyLatents(from: Latents, to: Latents): void {
  to.dyn.set(from.dyn);
  to.pose.set(from.pose);
}

/** Minimum-jerk step from 0 to 1. */
export function ease(x: number): number {
  const t = Math.min(Math.max(x, 0), 1);
  return t * t * t * (t * (6 * t - 15) + 10);
}

/** Frames at a constant rate, which may still grow. */
export class MotionTrack {
  private dyn = new Float32Array(0);
  private pose = new Float32Array(0);
  private frames = 0;

  constructor(readonly fps: number) {}

  get length(): number {
    return this.frames;
  }

  /** Seconds from the first frame to the end of the last. */
  get duration(): number {
    return this.frames / this.fps;
  }

  /** Add (n, 52) channels and (n, 6) poses. */
  append(dyn: Float32Array, pose: Float32Array): void {
    const more = pose.length / 6;
    if (this.frames + more > MAX_FRAMES) throw new FileError("the motion is too long");
    this.dyn = grown(this.dyn, this.frames * NUM_CHANNELS, dyn.length);
    this.pose = grown(this.pose, this.frames * 6, pose.length);
    this.dyn.set(dyn, this.frames * NUM_CHANNELS);
    this.pose.set(pose, this.frames * 6);
    this.frames += more;
  }

  /** The face at a time, linear between frames and held at both ends. */
  sample(seconds: number, out: Latents): void {
    if (this.frames === 0) return;
    const at = Math.min(Math.max(seconds * this.fps, 0), this.frames - 1);
    const low = Math.floor(at);
    const high = Math.min(low + 1, this.frames - 1);
    const share = at - low;
    mix(this.dyn, low, high, share, NUM_CHANNELS, out.dyn);
    mix(this.pose, low, high, share, 6, out.pose);
  }
}

function grown(old: Float32Array, used: number, more: number): Float32Array<ArrayBuffer> {
  if (used + more <= old.length) return old as Float32Array<ArrayBuffer>;
  const larger = new Float32Array(Math.max(used + more, 2 * old.length));
  larger.set(old.subarray(0, used));
  return larger;
}

function mix(
  values: Float32Array,
  low: number,
  high: number,
  share: number,
  width: number,
  out: Float32Array,
): void {
  for (let i = 0; i < width; i++) {
    const a = values[low * width + i]!;
    out[i] = a + share * (values[high * width + i]! - a);
  }
}

/** Read a motion file as `vasa3d export` writes it. */
export function readMotion(bytes: ArrayBuffer): MotionTrack {
  const file = new TensorFile(bytes);
  const fps = file.header.fps;
  if (file.header.format !== "vasa3d-motion" || typeof fps !== "number" || !(fps >= 1)) {
    throw new FileError("this is no motion for the web");
  }
  const frames = file.count("pose");
  const track = new MotionTrack(fps);
  const dyn = file.get("dyn", "U16", [frames, NUM_CHANNELS]);
  track.append(
    Float32Array.from(dyn, (value) => value / 65535),
    file.get("pose", "F32", [frames, 6]),
  );
  return track;
}

/** Head parameters of one frame. */
export interface HeadParameters {
  expression: Float32Array;
  joints: Float32Array;
  translation: Float32Array;
}

/** Base deformation: what a frame of motion asks of this person's head. */
export function baseDeformation(latents: Latents, head: HeadData): HeadParameters {
  const { dyn, pose } = latents;
  const expression = new Float32Array(NUM_CHANNELS);
  // Nobody smiles with rounded lips: the mood lets the corners of the mouth go.
  const rounding = ROUNDING.reduce((sum, i) => sum + dyn[i]!, 0) / FULLY_ROUND;
  const free = 1 - Math.min(Math.max(rounding, 0), 1);
  for (let i = 0; i < NUM_CHANNELS; i++) {
    const mood = CORNERS.has(i) ? free * head.mood[i]! : head.mood[i]!;
    expression[i] = Math.min(Math.max(mood + (1 - mood) * dyn[i]!, 0), 1);
  }
  const joints = new Float32Array(head.jointsRest.length);
  for (let i = 0; i < 3; i++) {
    joints[3 * NECK + i] = head.neckShare * pose[i]!;
    joints[3 * HEAD + i] = (1 - head.neckShare) * pose[i]!;
  }
  const [yaw, pitch] = head.gazeRadians;
  for (const [eye, side] of (["Left", "Right"] as const).entries()) {
    const get = (name: "Down" | "Up" | "Out" | "In") => dyn[channel(`eyeLook${name}${side}`)]!;
    const at = 3 * EYES[eye]!;
    const outwards = eye === 0 ? 1 : -1;
    joints[at] = head.restEyes[3 * eye]! + pitch * (get("Down") - get("Up"));
    joints[at + 1] = head.restEyes[3 * eye + 1]! + yaw * outwards * (get("Out") - get("In"));
    joints[at + 2] = head.restEyes[3 * eye + 2]!;
  }
  return { expression, joints, translation: pose.slice(3, 6) };
}

/** (R, 16) what one step of each mode of the VAS residual changes; two of sixteen are padding. */
export function residualFactors(latents: Latents, gaussians: GaussianData): Float32Array {
  const { rank, reach, mixing } = gaussians;
  const factors = new Float32Array(16 * rank);
  const inputs = new Float32Array(VAS_INPUTS);
  inputs.set(latents.dyn);
  for (let i = 0; i < 6; i++) inputs[NUM_CHANNELS + i] = latents.pose[i]! * (i < 3 ? 1 : 10);
  inputs[VAS_INPUTS - 1] = 1;
  for (let r = 0; r < rank; r++) {
    let weight = 0;
    for (let i = 0; i < VAS_INPUTS; i++) weight += mixing[r * VAS_INPUTS + i]! * inputs[i]!;
    for (let a = 0; a < 14; a++) {
      const factor = (weight * reach[r * 14 + a]!) / 127;
      factors[16 * r + a] = Math.abs(factor) < LEAST_FACTOR ? 0 : factor;
    }
  }
  return factors;
}
