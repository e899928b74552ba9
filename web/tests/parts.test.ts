/** Parts of the player that need neither a browser nor the Python package. */

import { describe, expect, it } from "vitest";
import type { GaussianData, HeadData } from "../src/avatar";
import { FRONT, limited, viewFrom } from "../src/camera";
import { CHANNELS, type Channel } from "../src/generated";
import { IdleLife } from "../src/idle";
import { channel, MotionTrack, NUM_CHANNELS, restLatents } from "../src/motion";
import { DepthOrder } from "../src/order";
import { Steering } from "../src/steering";
import { FileError, TensorFile } from "../src/tensors";
import { FACE_SECONDS, HEAD_SECONDS, Transition } from "../src/transition";

function container(header: object, data: Uint8Array): ArrayBuffer {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(data, 8 + text.length);
  return bytes.buffer;
}

describe("files", () => {
  const values = Float32Array.of(1, 2, 3, 4);
  const header = {
    __metadata__: { vasa3d: '{"format":"x"}' },
    a: { dtype: "F32", shape: [2, 2], data_offsets: [0, 16] },
    far: { dtype: "F32", shape: [4], data_offsets: [16, 32] },
  };
  const file = new TensorFile(container(header, new Uint8Array(values.buffer)));

  it("give tensors of the shape asked for", () => {
    expect([...file.get("a", "F32", [-1, 2])]).toEqual([1, 2, 3, 4]);
    expect(file.header.format).toBe("x");
    expect(file.count("a")).toBe(2);
  });

  it("refuse what does not fit", () => {
    expect(() => file.get("a", "I32", [2, 2])).toThrow(FileError);
    expect(() => file.get("a", "F32", [4])).toThrow(FileError);
    expect(() => file.get("b", "F32", [4])).toThrow("b is missing");
    expect(() => file.get("far", "F32", [4])).toThrow("cut off");
  });

  it("refuse what is no container", () => {
    for (const bytes of [
      new ArrayBuffer(3),
      new ArrayBuffer(64),
      new Uint8Array(64).fill(255).buffer,
    ]) {
      expect(() => new TensorFile(bytes)).toThrow(FileError);
    }
  });
});

describe("motion", () => {
  it("is linear between frames and held at the ends", () => {
    const track = new MotionTrack(10);
    for (const value of [0.2, 0.6]) {
      track.append(new Float32Array(NUM_CHANNELS).fill(value), new Float32Array(6).fill(value));
    }
    const out = restLatents();
    for (const [time, wanted] of [
      [-1, 0.2],
      [0.05, 0.4],
      [9, 0.6],
    ]) {
      track.sample(time!, out);
      expect(out.dyn[7]).toBeCloseTo(wanted!);
      expect(out.pose[3]).toBeCloseTo(wanted!);
    }
    expect(track.duration).toBeCloseTo(0.2);
  });
});

describe("a change of motion", () => {
  const STEP = 1 / 60;
  const sources = { idle: [0.1, 0.06], speech: [0.9, -0.06] } as const;
  /** Lips and yaw that are shown when sources take turns, frame by frame. */
  const shown = (frames: readonly (keyof typeof sources)[]) => {
    const transition = new Transition();
    return frames.map((name) => {
      const face = restLatents();
      face.dyn[17] = sources[name][0];
      face.pose[1] = sources[name][1];
      transition.apply(face, name, STEP);
      return [face.dyn[17]!, face.pose[1]!] as const;
    });
  };
  const run = (name: keyof typeof sources, seconds: number) =>
    Array<typeof name>(Math.round(seconds / STEP)).fill(name);

  it("closes the lips soon and lets the head take its time", () => {
    const faces = shown([...run("speech", 1), ...run("idle", 1)]).slice(60);
    const at = (seconds: number) => faces[Math.ceil(seconds / STEP)]!;
    expect(at(FACE_SECONDS)[0]).toBeCloseTo(0.1);
    expect(at(FACE_SECONDS)[1]).toBeLessThan(-0.04);
    expect(at(HEAD_SECONDS)[1]).toBeCloseTo(0.06);
  });

  it("never jumps, whenever it comes", () => {
    const frames = [...run("idle", 1), ...run("speech", 0.1), ...run("idle", 0.05)];
    const faces = shown([...frames, ...run("speech", 0.3), ...run("idle", 1)]);
    const steps = faces.slice(1).map((face, i) => Math.abs(face[1] - faces[i]![1]));
    // The fastest moment of a minimum-jerk step is 1.875 times its mean.
    expect(Math.max(...steps.slice(60))).toBeLessThan((0.12 * 2 * STEP) / HEAD_SECONDS);
    expect(faces.at(-1)![1]).toBeCloseTo(0.06);
  });

  it("keeps channels between nothing and all", () => {
    const transition = new Transition();
    const show = (value: number, source: unknown) => {
      const face = { ...restLatents(), dyn: new Float32Array(NUM_CHANNELS).fill(value) };
      transition.apply(face, source, STEP);
      return face.dyn[0];
    };
    expect(show(1, null)).toBe(1);
    expect(show(0.8, "speech")).toBeCloseTo(1);
    expect(show(1, "speech")).toBe(1);
  });
});

describe("the order of drawing", () => {
  it("is from the farthest to the nearest, without what is too near", () => {
    const depths = [0.5, 3, 1, 0.01, 2];
    const count = depths.length;
    const gaussians: GaussianData = {
      count,
      means: Float32Array.from(depths.flatMap((z) => [0, 0, z])),
      quats: new Float32Array(4 * count),
      scales: new Float32Array(3 * count),
      opacities: new Uint8Array(count),
      colors: new Uint8Array(3 * count),
      triangles: Uint16Array.of(0, 0),
      layerWeights: new Float32Array(count - 2).fill(1),
      rank: 0,
      modes: new Int8Array(0),
      reach: new Float32Array(0),
      mixing: new Float32Array(0),
    };
    const still = Float32Array.of(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0);
    const order = new Uint32Array(count);
    const sorter = new DepthOrder(gaussians, 1, 1);
    const drawn = sorter.sort(still, still, still, new Float32Array(0), 0.05, order);
    expect([...order.subarray(0, drawn)]).toEqual([1, 4, 2, 0]);
  });
});

describe("the camera", () => {
  const camera = {
    viewmat: [
      [1, 0, 0, 0],
      [0, -1, 0, 0],
      [0, 0, -1, 1],
      [0, 0, 0, 1],
    ],
    K: [
      [500, 0, 50],
      [0, 500, 50],
      [0, 0, 1],
    ],
    size: [100, 100] as [number, number],
  };

  it("keeps the target in its place when it turns", () => {
    const point = { yawDegrees: 70, pitchDegrees: 20, distance: 1 };
    const { view } = viewFrom(camera, [0, 0, 0], point, 200, 100);
    expect([view[3], view[7], view[11]].map((x) => +x!.toFixed(6))).toEqual([0, 0, 1]);
  });

  it("fits the photo's square into the shorter side", () => {
    const { focal, centre } = viewFrom(camera, [0, 0, 0], FRONT, 400, 200);
    expect(focal).toEqual([1000, 1000]);
    expect(centre).toEqual([200, 100]);
  });

  it("stays where something can be seen", () => {
    expect(limited({ yawDegrees: 270, pitchDegrees: 200, distance: 99 })).toEqual({
      yawDegrees: -90,
      pitchDegrees: 80,
      distance: 4,
    });
  });
});

describe("the face without words", () => {
  it("blinks, and closes its lids no longer than blinks take", () => {
    const idle = IdleLife.seeded(1);
    const out = restLatents();
    let closed = 0;
    let blinks = 0;
    let before = 0;
    for (let t = 0; t < 60; t += 0.02) {
      idle.sample(t, 0, out);
      const lids = out.dyn[channel("eyeBlinkLeft")]!;
      expect(lids).toBe(out.dyn[channel("eyeBlinkRight")]);
      if (lids > 0.1) closed += 0.02;
      if (lids > 0.1 && before <= 0.1) blinks++;
      before = lids;
    }
    expect(blinks).toBeGreaterThan(8);
    expect(blinks).toBeLessThan(31);
    expect(closed / blinks).toBeLessThan(0.25);
  });

  it("keeps the head still when asked to", () => {
    const out = restLatents();
    IdleLife.seeded(1, 0).sample(1.3, 0, out);
    expect(Math.max(...out.pose.subarray(0, 3).map(Math.abs))).toBe(0);
  });
});

describe("steering", () => {
  const head = { gazeRadians: [0.47, 0.4] } as unknown as HeadData;

  it("turns eyes and head to one side", () => {
    const steering = new Steering(head);
    steering.lookAt(15, 10);
    const out = restLatents();
    for (let i = 0; i < 100; i++) {
      out.dyn.fill(0);
      out.pose.fill(0);
      steering.apply(out, 0.05);
    }
    expect(out.dyn[channel("eyeLookOutLeft")]).toBeGreaterThan(0.2);
    expect(out.dyn[channel("eyeLookInRight")]).toBeCloseTo(out.dyn[channel("eyeLookOutLeft")]!);
    expect(out.dyn[channel("eyeLookInLeft")]).toBe(0);
    expect(out.dyn[channel("eyeLookUpRight")]).toBeGreaterThan(0.1);
    expect(out.pose[1]).toBeGreaterThan(0.05);
    expect(out.pose[0]).toBeLessThan(0);
  });

  /** A face of some channels, with an emotion that has settled. */
  function felt(emotion: string, parts: Partial<Record<Channel, number>> = {}) {
    const steering = new Steering(head);
    steering.setEmotion({ [emotion]: 1 });
    steering.apply(restLatents(), 100);
    const out = restLatents();
    for (const [name, value] of Object.entries(parts)) out.dyn[channel(name as Channel)] = value;
    steering.apply(out, 0.05);
    return (name: Channel) => out.dyn[channel(name)]!;
  }

  it("shows an emotion on both sides, and comes to it softly", () => {
    const get = felt("disgusted");
    expect(get("noseSneerLeft")).toBeCloseTo(0.45);
    expect(get("noseSneerRight")).toBe(get("noseSneerLeft"));
    const steering = new Steering(head);
    steering.setEmotion({ disgusted: 1 });
    const out = restLatents();
    steering.apply(out, 0.05);
    expect(out.dyn[channel("noseSneerLeft")]).toBeLessThan(0.1);
    expect(() => steering.setEmotion({ bored: 1 })).toThrow("bored");
  });

  it("spreads no rounded lips", () => {
    expect(felt("happy")("mouthSmileLeft")).toBeCloseTo(0.5);
    expect(felt("happy", { mouthPucker: 0.35 })("mouthSmileLeft")).toBeCloseTo(0.25);
    const get = felt("happy", { mouthPucker: 0.6, mouthFunnel: 0.2 });
    expect(get("mouthSmileLeft")).toBe(0);
    expect(get("cheekSquintLeft")).toBeCloseTo(0.35);
  });

  it("opens no lips that are shut, at the teeth or in a pause", () => {
    const open = { jawOpen: 0.2 };
    expect(felt("disgusted", open)("mouthUpperUpLeft")).toBeCloseTo(0.2);
    expect(felt("disgusted", open)("mouthClose")).toBe(0);
    const shut = { mouthRollUpper: 0.08, mouthRollLower: 0.1 };
    for (const closed of [{}, { ...open, ...shut }]) {
      expect(felt("disgusted", closed)("mouthUpperUpLeft")).toBeCloseTo(0);
      expect(felt("disgusted", closed)("mouthClose")).toBeGreaterThan(0.05);
    }
    const teeth = { ...open, mouthRollLower: 0.3 };
    expect(felt("disgusted", teeth)("mouthUpperUpLeft")).toBeCloseTo(0);
    expect(felt("disgusted", teeth)("mouthFrownLeft")).toBeCloseTo(0.1);
  });

  it("knows all channels", () => {
    expect(new Set(CHANNELS).size).toBe(52);
  });
});
