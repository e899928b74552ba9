/**
 * Time of posing and sorting on one core: npm run bench -- avatar.safetensors. The median is of processor
 * time, so that other programs do not count.
 */

import { readFileSync } from "node:fs";
import { readAvatar } from "../src/avatar";
import { FRONT, viewFrom } from "../src/camera";
import { NUM_CHANNELS } from "../src/motion";
import { Poser } from "../src/poser";

const FRAMES = 300;
const WARM_UP = 100;

const path = process.argv.at(-1)!;
const data = readFileSync(path);
const avatar = readAvatar(
  data.buffer.slice(data.byteOffset, data.byteOffset + data.length) as ArrayBuffer,
);
const poser = new Poser(avatar);
const { view } = viewFrom(avatar.camera, avatar.target, FRONT, 512, 512);
const order = new Uint32Array(avatar.gaussians.count);
const dyn = Float32Array.from({ length: NUM_CHANNELS }, (_, i) => (i % 3 === 0 ? 0.3 : 0));
const parts: [number[], number[]] = [[], []];
for (let i = 0; i < WARM_UP + FRAMES; i++) {
  const turn = 0.1 * Math.sin(i);
  const before = process.cpuUsage();
  poser.pose({ dyn, pose: Float32Array.of(turn, turn, 0, 0, 0, 0) });
  const middle = process.cpuUsage();
  poser.frame(view, order);
  const after = process.cpuUsage();
  if (i < WARM_UP) continue;
  parts[0].push((middle.user - before.user) / 1000);
  parts[1].push((after.user - middle.user) / 1000);
}
const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]!;
const [pose, sort] = parts.map(median) as [number, number];
const { count, rank } = avatar.gaussians;
process.stdout.write(
  `${count} Gaussians, residual of rank ${rank}: pose ${pose.toFixed(2)} ms, ` +
    `sort ${sort.toFixed(2)} ms\n`,
);
