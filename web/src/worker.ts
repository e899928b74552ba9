/** Poses and sorts beside the page's own thread; arrays go back and forth without being copied. */

import { readAvatar } from "./avatar";
import type { Latents } from "./motion";
import { Poser, type PosedFrame } from "./poser";

export interface OpenRequest {
  kind: "open";
  bytes: ArrayBuffer;
}

export interface FrameRequest {
  kind: "frame";
  /** Null: the last pose, seen from elsewhere. */
  latents: Latents | null;
  view: Float32Array;
  /** Memory of an earlier answer that is no longer needed. */
  reuse: { maps: Float32Array; order: Uint32Array } | null;
}

export interface FrameAnswer {
  frame: PosedFrame;
  /** The maps are those of the last answer. */
  samePose: boolean;
  milliseconds: number;
}

let poser: Poser | null = null;
let count = 0;

onmessage = ({ data }: MessageEvent<OpenRequest | FrameRequest>) => {
  if (data.kind === "open") {
    const avatar = readAvatar(data.bytes);
    count = avatar.gaussians.count;
    poser = new Poser(avatar);
    return;
  }
  if (!poser) return;
  const start = performance.now();
  if (data.latents) poser.pose(data.latents);
  const frame = poser.frame(data.view, data.reuse?.order ?? new Uint32Array(count));
  const maps = data.reuse?.maps ?? new Float32Array(frame.maps.length);
  maps.set(frame.maps);
  const answer: FrameAnswer = {
    frame: { ...frame, maps, jointMaps: frame.jointMaps.slice(), factors: frame.factors.slice() },
    samePose: data.latents === null,
    milliseconds: performance.now() - start,
  };
  postMessage(answer, { transfer: [maps.buffer, frame.order.buffer] });
};
