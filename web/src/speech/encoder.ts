/**
 * The speech encoder (`motion/speech.py`): sound in, what the mouth forms out, 100 times a second. The
 * network's inputs and outputs are those of `motion/speech_onnx.py`.
 */

import { joined, type Activity } from "./activity";
import { FRAME_RATE, MelStream, NUM_MELS, type Features } from "./features";
import { Network } from "./runtime";
import { VISEMES } from "./tables";

/** Frames that the network takes at once. */
const BLOCK_FRAMES = FRAME_RATE;

/** The network, and what it tells about itself. */
export interface SpeechNetwork {
  network: Network;
  /** Value of `lipsShut` from which the lips count as shut. */
  threshold: number;
  /** Frames of 10 ms that it looks ahead. */
  framesAhead: number;
}

/** @param model The bytes of `speech.onnx`. */
export async function openSpeechNetwork(model: ArrayBuffer): Promise<SpeechNetwork> {
  const network = await Network.open(model);
  const told = await network.run({
    features: [new Float32Array(NUM_MELS), NUM_MELS],
    inside: [new Float32Array(1), 1],
    state: new Float32Array(network.stateSize),
  });
  return { network, threshold: told.threshold[0], framesAhead: told.frames_ahead[0] };
}

/** The encoder on growing sound; the same numbers however it is cut. */
export class EncoderStream {
  private readonly mels = new MelStream();
  private state: Float32Array;
  private levels = new Float32Array(0);
  /** Frames that the network has yet to give before the first one of the sound. */
  private before: number;

  constructor(private readonly speech: SpeechNetwork) {
    this.state = new Float32Array(speech.network.stateSize);
    this.before = speech.framesAhead;
  }

  /** What is settled once these samples at 16 kHz are heard too. */
  push(samples: Float32Array): Promise<Activity> {
    const features = this.mels.push(samples);
    return this.hear(features, new Float32Array(features.levels.length).fill(1));
  }

  /** The rest. */
  flush(): Promise<Activity> {
    const { values, levels } = this.mels.flush();
    const ahead = this.speech.framesAhead;
    const longer = joined([values, new Float32Array(ahead * NUM_MELS)]);
    const inside = new Float32Array(levels.length + ahead).fill(1, 0, levels.length);
    return this.hear({ values: longer, levels }, inside);
  }

  private async hear(features: Features, inside: Float32Array): Promise<Activity> {
    this.levels = joined([this.levels, features.levels]);
    const visemes: Float32Array[] = [];
    const closure: Float32Array[] = [];
    for (let from = 0; from < inside.length; from += BLOCK_FRAMES) {
      const to = Math.min(from + BLOCK_FRAMES, inside.length);
      const out = await this.speech.network.run({
        features: [features.values.slice(from * NUM_MELS, to * NUM_MELS), NUM_MELS],
        inside: [inside.slice(from, to), 1],
        state: this.state,
      });
      this.state = out.next_state;
      const skipped = Math.min(this.before, to - from);
      this.before -= skipped;
      visemes.push(out.visemes.subarray(skipped * VISEMES.length));
      closure.push(out.closure.subarray(skipped));
    }
    const heard = joined(closure);
    const level = this.levels.slice(0, heard.length);
    this.levels = this.levels.slice(heard.length);
    return { visemes: joined(visemes), closure: heard, level };
  }
}
