/** The same numbers as the Python package, which writes them and runs this (tests/test_web_twins.py). */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { readAvatar, type AvatarData } from "../src/avatar";
import { viewFrom } from "../src/camera";
import { readMotion, restLatents, type Latents } from "../src/motion";
import { DepthOrder } from "../src/order";
import { NEAR, Poser, type PosedFrame } from "../src/poser";

const folder = process.env.VASA3D_TWINS ?? "";
/** Metres and radians. */
const TOLERANCE = 1e-4;
/** Gradients on triangles of half a millimetre, whose corners are stored in steps of some nanometres. */
const GRADIENT_TOLERANCE = 1e-3;

type Numbers = Record<string, number[]>;

function bytes(name: string): ArrayBuffer {
  const data = readFileSync(join(folder, name));
  return data.buffer.slice(data.byteOffset, data.byteOffset + data.length) as ArrayBuffer;
}

function largestError(found: ArrayLike<number>, wanted: number[]): number {
  expect(found.length).toBe(wanted.length);
  return wanted.reduce((worst, value, i) => Math.max(worst, Math.abs(value - found[i]!)), 0);
}

describe.skipIf(folder === "")("numbers of the Python package", () => {
  let avatar: AvatarData;
  let frames: Numbers[];

  beforeAll(() => {
    avatar = readAvatar(bytes("avatar.safetensors"));
    frames = JSON.parse(readFileSync(join(folder, "frames.json"), "utf8")) as Numbers[];
  });

  it("pose every frame", () => {
    const poser = new Poser(avatar);
    for (const frame of frames) {
      const latents: Latents = {
        dyn: Float32Array.from(frame.dyn!),
        pose: Float32Array.from(frame.pose!),
      };
      const point = { yawDegrees: frame.yaw![0]!, pitchDegrees: -10, distance: 1.2 };
      const { view } = viewFrom(avatar.camera, avatar.target, point, 384, 384);
      expect(largestError(view, frame.view!)).toBeLessThan(TOLERANCE);
      poser.pose(latents);
      const found = poser.frame(view, new Uint32Array(avatar.gaussians.count));
      expect(largestError(found.maps, frame.maps!)).toBeLessThan(GRADIENT_TOLERANCE);
      expect(largestError(found.jointMaps, frame.jointMaps!)).toBeLessThan(TOLERANCE);
      expect(largestError(found.factors, frame.factors!)).toBeLessThan(TOLERANCE);
      expect(Math.abs(found.aperture - frame.aperture![0]!)).toBeLessThan(TOLERANCE);
      checkOrder(avatar, view, found, frame.depths!);
    }
  });

  it("read motion", () => {
    const track = readMotion(bytes("motion.safetensors"));
    expect(track.length).toBe(frames.length);
    const out = restLatents();
    track.sample(1 / track.fps, out);
    expect(largestError(out.dyn, frames[1]!.dyn!)).toBeLessThan(TOLERANCE);
    expect(largestError(out.pose, frames[1]!.pose!)).toBeLessThan(TOLERANCE);
  });
});

function checkOrder(avatar: AvatarData, view: Float32Array, found: PosedFrame, depths: number[]) {
  const sorter = new DepthOrder(avatar.gaussians, found.maps.length / 12, 5);
  const order = new Uint32Array(avatar.gaussians.count);
  const drawn = sorter.sort(view, found.maps, found.jointMaps, found.factors, NEAR, order);
  expect(drawn).toBe(order.length);
  const mine = depths.map((_d, n) => sorter.depth(n));
  expect(largestError(mine, depths)).toBeLessThan(TOLERANCE);
  for (let i = 1; i < order.length; i++) {
    expect(depths[order[i]!]!).toBeLessThan(depths[order[i - 1]!]! + 5e-5);
  }
}
