/** The same motion as the Python package makes of a sound (tests/test_web_speech.py writes it and runs this). */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { beforeAll, describe, expect, it } from "vitest";
import type { HeadData } from "../src/avatar";
import { CHANNELS } from "../src/generated";
import { IdleLife } from "../src/idle";
import { NUM_CHANNELS, restLatents } from "../src/motion";
import type { Random } from "../src/random";
import { EncoderStream, openSpeechNetwork, type SpeechNetwork } from "../src/speech/encoder";
import { MotionStream } from "../src/speech/generator";
import { GeneratedLife, RuledLife } from "../src/speech/life";
import { Network, startRuntime } from "../src/speech/runtime";
import { Steering } from "../src/steering";

const folder = process.env.VASA3D_SPEECH_TWINS ?? "";
/** Of posteriors, channels and poses (radians, metres). */
const TOLERANCE = 1e-4;

interface ExpectedMotion {
  fps: number;
  dyn: number[];
  pose: number[];
  /** Random numbers of each part of the life, in the order in which they were drawn. */
  drawn: Record<string, number[]>;
}

interface Expected {
  samples: number[];
  visemes: number[];
  closure: number[];
  motion: Record<"rules" | "diffusion", ExpectedMotion>;
  /** Channels of the motion by rules under each emotion in full strength. */
  felt: Record<string, number[]>;
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
  let speech: SpeechNetwork;
  let transformer: Network;
  let samples: Float32Array;

  beforeAll(async () => {
    expected = JSON.parse(readFileSync(join(folder, "speech.json"), "utf8")) as Expected;
    samples = Float32Array.from(expected.samples);
    startRuntime(Uint8Array.from(gunzipSync(readFileSync(process.env.VASA3D_RUNTIME!))).buffer);
    speech = await openSpeechNetwork(bytes(join(folder, "speech.onnx")));
    transformer = await Network.open(bytes(join(folder, "motion.onnx")));
  });

  function* pieces(size: number): Generator<Float32Array> {
    for (let at = 0; at < samples.length; at += size) yield samples.slice(at, at + size);
  }

  it("hears the same", async () => {
    const stream = new EncoderStream(speech);
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

  for (const [kind, size] of [
    ["rules", 640],
    ["rules", 16000],
    ["diffusion", 640],
    ["diffusion", 16000],
  ] as const) {
    it(`moves the same by ${kind}, from pieces of ${size} samples`, async () => {
      const wanted = expected.motion[kind];
      const part = (number: number) => new Replay(wanted.drawn[number]);
      const life =
        kind === "rules"
          ? new RuledLife(new IdleLife(1, part))
          : new GeneratedLife(transformer, 1, part);
      const stream = new MotionStream(speech, life, wanted.fps);
      const dyn: number[] = [];
      const pose: number[] = [];
      const parts = [];
      for (const piece of pieces(size)) parts.push(await stream.push(piece));
      parts.push(await stream.flush());
      for (const part of parts) {
        dyn.push(...part.dyn);
        pose.push(...part.pose);
      }
      expect(largestError(dyn, wanted.dyn)).toBeLessThan(TOLERANCE);
      expect(largestError(pose, wanted.pose)).toBeLessThan(TOLERANCE);
    });
  }

  it("feels nearly the same, with contacts read from the lips", () => {
    const plain = expected.motion.rules.dyn;
    // Eyes that look up and down at once are the page's to settle.
    const compared = [...CHANNELS.keys()].filter((i) => !CHANNELS[i].startsWith("eyeLook"));
    const face = restLatents();
    for (const [emotion, wanted] of Object.entries(expected.felt)) {
      const steering = new Steering({ gazeRadians: [0.5, 0.4] } as unknown as HeadData);
      steering.setEmotion({ [emotion]: 1 });
      steering.apply(face, 100);
      const errors: number[] = [];
      for (let at = 0; at < plain.length; at += NUM_CHANNELS) {
        face.dyn.set(plain.slice(at, at + NUM_CHANNELS));
        steering.apply(face, 0);
        errors.push(Math.max(...compared.map((i) => Math.abs(face.dyn[i] - wanted[at + i]))));
      }
      expect(Math.max(...errors)).toBeLessThan(0.1);
      expect(errors.filter((error) => error > 0.02).length).toBeLessThan(0.05 * errors.length);
    }
  });
});
