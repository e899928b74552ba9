/**
 * Motion by diffusion, four frames of 40 ms at a time: the network of `motion/motion_onnx.py`, which does
 * what `MotionSampler` of `motion/diffusion.py` does, without wishes.
 */

import { NUM_CHANNELS } from "../motion";
import type { Random } from "../random";
import { joined } from "./activity";
import type { Network } from "./runtime";
import { BLOCK, HEARD, STATE_SIZE, WISHES } from "./tables";
import { VOICE_SIZE } from "./voice";

/** Channels, then head pose. */
export const FACE_SIZE = NUM_CHANNELS + 6;

export class MotionSampler {
  private state: Float32Array;
  /** Voice of the block drawn last, once there is one, and of what comes after it. */
  private voice: Float32Array[] = [];
  private started = false;

  constructor(
    private readonly network: Network,
    private readonly random: Random,
  ) {
    this.state = new Float32Array(network.stateSize);
  }

  /** Take what is heard at more frames; returns the faces (`FACE_SIZE`) that it settles. */
  async push(voice: Float32Array[]): Promise<Float32Array[]> {
    this.voice.push(...voice);
    const faces: Float32Array[] = [];
    while (this.voice.length >= (this.started ? BLOCK : 0) + HEARD) {
      faces.push(...(await this.draw()));
    }
    return faces;
  }

  private async draw(): Promise<Float32Array[]> {
    const nothing = Array.from({ length: BLOCK }, () => new Float32Array(VOICE_SIZE));
    const before = this.started ? this.voice.splice(0, BLOCK) : nothing;
    this.started = true;
    const noise = Float32Array.from({ length: BLOCK * STATE_SIZE }, () => this.random.normal(0, 1));
    const out = await this.network.run({
      noise: [noise, STATE_SIZE],
      voice: [joined([...before, ...this.voice.slice(0, HEARD)]), VOICE_SIZE],
      wishes: new Float32Array(WISHES),
      state: this.state,
    });
    this.state = out.next_state;
    return Array.from({ length: BLOCK }, (_, f) =>
      joined([
        out.channels.subarray(f * NUM_CHANNELS, (f + 1) * NUM_CHANNELS),
        out.pose.subarray(f * 6, (f + 1) * 6),
      ]),
    );
  }
}
