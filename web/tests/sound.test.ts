/** The clock that the face follows, on a made-up audio output. */

import { beforeEach, describe, expect, it, vi } from "vitest";

let now = 0;
let mute = false;
let running: { start: number; stopped: boolean }[] = [];

class FakeContext {
  outputLatency = 0.02;
  destination = {};
  get currentTime(): number {
    return now;
  }
  resume = () => (mute ? new Promise<void>(() => undefined) : Promise.resolve());
  createGain = () => ({ connect: () => undefined, disconnect: () => undefined });
  createBufferSource() {
    const source = { start: 0, stopped: false };
    running.push(source);
    return {
      connect: () => undefined,
      start: (time: number) => (source.start = time),
      stop: () => (source.stopped = true),
    };
  }
}
vi.stubGlobal("AudioContext", FakeContext);
const { SoundOutput, toInt16 } = await import("../src/sound");

const piece = (duration: number) => ({ duration }) as AudioBuffer;

describe("sound that is played", () => {
  beforeEach(() => {
    now = 100;
    running = [];
  });

  it("counts what has been heard, not what was sent to the output", async () => {
    const output = new SoundOutput();
    output.push(piece(2));
    expect(output.seconds).toBe(0);
    await output.start();
    now = 101.07;
    expect(output.seconds).toBeCloseTo(1.07 - 0.05 - 0.02);
    now = 105;
    expect(output.seconds).toBeCloseTo(2);
    expect(output.finished).toBe(false);
    output.end();
    expect(output.finished).toBe(true);
  });

  it("does not wait for ever for an output that does not open", async () => {
    vi.useFakeTimers();
    mute = true;
    const failed = expect(new SoundOutput().start()).rejects.toThrow("loudspeaker");
    await vi.runAllTimersAsync();
    await failed;
    mute = false;
    vi.useRealTimers();
  });

  it("joins pieces without gaps", async () => {
    const output = new SoundOutput();
    output.push(piece(0.5));
    await output.start();
    now = 100.3;
    output.push(piece(0.5));
    expect(running[1]!.start).toBeCloseTo(running[0]!.start + 0.5);
  });

  it("waits for late pieces, and so does the face", async () => {
    const output = new SoundOutput();
    output.push(piece(0.5));
    await output.start();
    now = 101;
    expect(output.seconds).toBeCloseTo(0.5);
    output.push(piece(1));
    now = 101.32;
    expect(output.seconds).toBeCloseTo(0.5 + 0.3);
    expect(running[1]!.start).toBeCloseTo(101);
  });

  it("does not drift over ten minutes of late pieces", async () => {
    const output = new SoundOutput();
    output.push(piece(1));
    await output.start();
    for (let i = 1; i < 600; i++) {
      now += i % 7 === 0 ? 1.2 : 0.97;
      output.push(piece(1));
    }
    const last = running.at(-1)!;
    now = last.start + 0.5 + 0.02;
    expect(Math.abs(output.seconds - 599.5)).toBeLessThan(0.001);
  });

  it("stops at once", async () => {
    const output = new SoundOutput();
    output.push(piece(5));
    await output.start();
    now = 101;
    output.stop();
    expect(running[0]!.stopped).toBe(true);
    expect(output.finished).toBe(true);
  });

  it("becomes bytes without wrapping around", () => {
    expect([...toInt16(Float32Array.of(0, 1, -1, 2, -3))]).toEqual([
      0, 32767, -32767, 32767, -32767,
    ]);
  });
});
