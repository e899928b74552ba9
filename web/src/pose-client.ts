/** The page's side of the worker: at most one request under way, memory handed back and forth. */

import type { Latents } from "./motion";
import type { FrameAnswer, FrameRequest, OpenRequest } from "./worker";
import PoseWorker from "./worker?worker&inline";

export class PoseClient {
  private readonly worker = new PoseWorker();
  private waiting: { done: (answer: FrameAnswer) => void; fail: (e: Error) => void } | null = null;
  private spare: FrameRequest["reuse"] = null;

  constructor(bytes: ArrayBuffer) {
    this.worker.onmessage = ({ data }: MessageEvent<FrameAnswer>) => {
      const { waiting } = this;
      this.waiting = null;
      waiting?.done(data);
    };
    this.worker.onerror = (event) => {
      const { waiting } = this;
      this.waiting = null;
      waiting?.fail(new Error(event.message));
    };
    const open: OpenRequest = { kind: "open", bytes };
    this.worker.postMessage(open);
  }

  get busy(): boolean {
    return this.waiting !== null;
  }

  /** Ask for a frame; only when not `busy`. */
  request(latents: Latents | null, view: Float32Array): Promise<FrameAnswer> {
    const reuse = this.spare;
    this.spare = null;
    const request: FrameRequest = { kind: "frame", latents, view, reuse };
    this.worker.postMessage(request, reuse ? [reuse.maps.buffer, reuse.order.buffer] : []);
    return new Promise((done, fail) => (this.waiting = { done, fail }));
  }

  /** Give an answer's memory back once it is drawn from no more. */
  recycle(answer: FrameAnswer): void {
    const { maps, order } = answer.frame;
    this.spare = { maps, order };
  }

  close(): void {
    this.worker.terminate();
    this.waiting = null;
  }
}
