/**
 * The speech encoder (`motion/speech.py`) run by ONNX Runtime: sound in, what the mouth forms out, 100
 * times a second. The graph, with its inputs and outputs, is that of `motion/speech_onnx.py`.
 */

import { env, InferenceSession, Tensor } from "onnxruntime-web/wasm";
import { joined, type Activity } from "./activity";
import { FRAME_RATE, MelStream, NUM_MELS, type Features } from "./features";
import { VISEMES } from "./tables";

/** Frames that the network takes at once. */
const BLOCK_FRAMES = FRAME_RATE;

type Values = Record<string, Float32Array>;

/** The network, opened once for any number of sounds. */
export class SpeechNetwork {
  /** Value of `lipsShut` from which the lips count as shut. */
  threshold = 0;
  /** Frames of 10 ms that the network looks ahead. */
  framesAhead = 0;

  private constructor(
    private readonly session: InferenceSession,
    readonly stateSize: number,
  ) {}

  /**
   * @param wasm ONNX Runtime itself.
   * @param model The bytes of `speech.onnx`.
   */
  static async open(wasm: ArrayBuffer, model: ArrayBuffer): Promise<SpeechNetwork> {
    env.wasm.wasmBinary = wasm;
    env.wasm.numThreads = 1;
    const session = await InferenceSession.create(new Uint8Array(model), {
      executionProviders: ["wasm"],
    });
    const state = session.inputMetadata.find((input) => input.name === "state");
    if (!state?.isTensor) throw new Error("speech.onnx holds another network");
    const network = new SpeechNetwork(session, Number(state.shape[0]));
    const nothing = new Float32Array(network.stateSize);
    const told = await network.run(new Float32Array(NUM_MELS), new Float32Array(1), nothing);
    network.threshold = told.threshold[0];
    network.framesAhead = told.frames_ahead[0];
    return network;
  }

  /** One run of the graph. */
  async run(features: Float32Array, inside: Float32Array, state: Float32Array): Promise<Values> {
    const inputs = {
      features: new Tensor("float32", features, [inside.length, NUM_MELS]),
      inside: new Tensor("float32", inside, [inside.length, 1]),
      state: new Tensor("float32", state, [state.length]),
    };
    const out: Values = {};
    for (const [name, tensor] of Object.entries(await this.session.run(inputs))) {
      out[name] = tensor.data as Float32Array;
    }
    return out;
  }
}

/** The encoder on growing sound; the same numbers however it is cut. */
export class EncoderStream {
  private readonly mels = new MelStream();
  private state: Float32Array;
  private levels = new Float32Array(0);
  /** Frames that the network has yet to give before the first one of the sound. */
  private before: number;

  constructor(private readonly network: SpeechNetwork) {
    this.state = new Float32Array(network.stateSize);
    this.before = network.framesAhead;
  }

  /** What is settled once these samples at 16 kHz are heard too. */
  push(samples: Float32Array): Promise<Activity> {
    const features = this.mels.push(samples);
    return this.hear(features, new Float32Array(features.levels.length).fill(1));
  }

  /** The rest. */
  async flush(): Promise<Activity> {
    const { values, levels } = this.mels.flush();
    const ahead = this.network.framesAhead;
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
      const block = features.values.slice(from * NUM_MELS, to * NUM_MELS);
      const out = await this.network.run(block, inside.slice(from, to), this.state);
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
