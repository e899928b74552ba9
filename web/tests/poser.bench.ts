/** Time of posing and sorting: VASA3D_BUNDLE=avatar.safetensors npx vitest bench --run */

import { readFileSync } from "node:fs";
import { bench } from "vitest";
import { readAvatar } from "../src/avatar";
import { FRONT, viewFrom } from "../src/camera";
import { NUM_CHANNELS } from "../src/motion";
import { Poser } from "../src/poser";

const data = readFileSync(process.env.VASA3D_BUNDLE!);
const avatar = readAvatar(
  data.buffer.slice(data.byteOffset, data.byteOffset + data.length) as ArrayBuffer,
);
const poser = new Poser(avatar);
const { view } = viewFrom(avatar.camera, avatar.target, FRONT, 512, 512);
const order = new Uint32Array(avatar.gaussians.count);
const dyn = Float32Array.from({ length: NUM_CHANNELS }, (_, i) => 0.3 * (i % 2));
let turn = 0;

bench(`pose and sort ${avatar.gaussians.count} Gaussians, rank ${avatar.gaussians.rank}`, () => {
  turn = 0.2 - turn;
  poser.pose({ dyn, pose: Float32Array.of(turn, turn, 0, 0, 0, 0) });
  poser.frame(view, order);
});
