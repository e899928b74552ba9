/** ONNX Runtime: networks of `.onnx` files, with numbers in and out. */

import { env, InferenceSession, Tensor } from "onnxruntime-web/wasm";

export type Values = Record<string, Float32Array>;

/** Give the runtime its code; once, before any network is opened. */
export function startRuntime(code: ArrayBuffer): void {
  env.wasm.wasmBinary = code;
  env.wasm.numThreads = 1;
}

/** A network of which the last input is `state`, what a run passes on to the next. */
export class Network {
  private constructor(
    private readonly session: InferenceSession,
    /** Numbers of the state; all zero at first. */
    readonly stateSize: number,
  ) {}

  /** @param model The bytes of an `.onnx` file. */
  static async open(model: ArrayBuffer): Promise<Network> {
    const session = await InferenceSession.create(new Uint8Array(model), {
      executionProviders: ["wasm"],
    });
    const state = session.inputMetadata.find((input) => input.name === "state");
    if (!state?.isTensor) throw new Error("a file holds another network than expected");
    return new Network(session, Number(state.shape[0]));
  }

  /** One run: inputs by name, matrices with the length of their rows. */
  async run(inputs: Record<string, Float32Array | [Float32Array, number]>): Promise<Values> {
    const given: Record<string, Tensor> = {};
    for (const [name, input] of Object.entries(inputs)) {
      const [values, width] = Array.isArray(input) ? input : [input, 0];
      const shape = width ? [values.length / width, width] : [values.length];
      given[name] = new Tensor("float32", values, shape);
    }
    const out: Values = {};
    for (const [name, tensor] of Object.entries(await this.session.run(given))) {
      out[name] = tensor.data as Float32Array;
    }
    return out;
  }
}
