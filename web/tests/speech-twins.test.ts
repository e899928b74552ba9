/** The same motion as the Python package makes of a sound (tests/test_web_speech.py writes it and runs this). */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { beforeAll, describe, expect, it } from "vitest";
import { IdleLife } from "../src/idle";
import type { Random } from "../src/random";
import { MotionStream } from "../src/speech/generator";
import { EncoderStream, SpeechNetwork } from "../src/speech/network";

const folder = process.env.VASA3D_SPEECH_TWINS ?? "";
/** Of posteriors, channels and poses (radians, metres). */
const TOLERANCE = 1e-4;

interface Expected {
  fps: number;
  samples: number[];
  visemes: number[];
  closure: number[];
  dyn: number[];
  pose: number[];
  /** Random numbers of each part of the life, in the order in which they were drawn. */
  drawn: Record<string, number[]>;
}

/** Numbers that were drawn elsewhere. */
class Replay implements Random {
  private at = 0;
  constructor(private readonly numbers: number[]) {}
  private next(): number {
    if (this.at >= this.numbers.length) throw new Error("more numbers are drawn than in Python");
    return this.numbers[this.at++];
  }
  random = () => this.next();
  uniform = () => this.next();
  normal = () => this.next();
  gamma = () => this.next();
}

function bytes(name: string): ArrayBuffer {
  return Uint8Array.from(readFileSync(name)).buffer;
}

function largestError(found: ArrayLike<number>, wanted: number[]): number {
  expect(found.length).toBe(wanted.length);
  return wanted.reduce((worst, value, i) => Math.max(worst, Math.abs(value - found[i])), 0);
}

describe.skipIf(folder === "")("speech as in the Python package", () => {
  let expected: Expected;
  let network: SpeechNetwork;
  let samples: Float32Array;

  beforeAll(async () => {
    expected = JSON.parse(readFileSync(join(folder, "speech.json"), "utf8")) as Expected;
    samples = Float32Array.from(expected.samples);
    const runtime = gunzipSync(readFileSync(process.env.VASA3D_RUNTIME!));
    network = await SpeechNetwork.open(
      Uint8Array.from(runtime).buffer,
      bytes(join(folder, "speech.onnx")),
    );
  });

  function* pieces(size: number): Generator<Float32Array> {
    for (let at = 0; at < samples.length; at += size) yield samples.slice(at, at + size);
  }

  it("hears the same", async () => {
    const stream = new EncoderStream(network);
    const visemes: number[] = [];
    const closure: number[] = [];
    const parts = [];
    for (const piece of pieces(3333)) parts.push(await stream.push(piece));
    parts.push(await stream.flush());
    for (const part of parts) {
      visemes.push(...part.visemes);
      closure.push(...part.closure);
    }
    expect(largestError(visemes, expected.visemes)).toBeLessThan(TOLERANCE);
    expect(largestError(closure, expected.closure)).toBeLessThan(TOLERANCE);
  });

  for (const size of [640, 16000]) {
    it(`moves the same, from pieces of ${size} samples`, async () => {
      const life = new IdleLife(1, (part) => new Replay(expected.drawn[part]));
      const stream = new MotionStream(network, life, expected.fps);
      const dyn: number[] = [];
      const pose: number[] = [];
      const parts = [];
      const start = performance.now();
      for (const piece of pieces(size)) parts.push(await stream.push(piece));
      parts.push(await stream.flush());
      const share = (performance.now() - start) / 1000 / (samples.length / 16000);
      console.info(`pieces of ${size}: ${share.toFixed(3)} of real time`);
      for (const part of parts) {
        dyn.push(...part.dyn);
        pose.push(...part.pose);
      }
      expect(largestError(dyn, expected.dyn)).toBeLessThan(TOLERANCE);
      expect(largestError(pose, expected.pose)).toBeLessThan(TOLERANCE);
    });
  }
});
