/** Speech in the page: parts that need nothing of the Python package. */

import { describe, expect, it } from "vitest";
import { IdleLife, Phrases } from "../src/idle";
import { channel, restLatents } from "../src/motion";
import { SeededRandom } from "../src/random";
import { concatenate, silence, tail } from "../src/speech/activity";
import { mouth } from "../src/speech/coarticulation";
import { MelStream } from "../src/speech/features";
import { Resampler } from "../src/speech/resample";
import { FRAMES_AHEAD, FRAMES_BEHIND, VISEMES } from "../src/speech/tables";

/** Push samples in pieces of random length; returns all that came out. */
function inPieces(
  samples: Float32Array,
  push: (piece: Float32Array) => Float32Array,
  flush: () => Float32Array,
): number[] {
  const random = new SeededRandom(3, 0);
  const out: number[] = [];
  for (let at = 0; at < samples.length;) {
    const size = Math.ceil(random.uniform(0, 2000));
    out.push(...push(samples.subarray(at, at + size)));
    at += size;
  }
  out.push(...flush());
  return out;
}

const tone = (hz: number, rate: number, seconds: number) =>
  Float32Array.from({ length: rate * seconds }, (_, n) => Math.sin((2 * Math.PI * hz * n) / rate));

describe("sound at another rate", () => {
  for (const rate of [8000, 22050, 44100, 48000]) {
    it(`keeps what both rates hold, from ${rate}`, () => {
      const resampler = new Resampler(rate, 16000);
      const found = [...resampler.push(tone(1000, rate, 0.5)), ...resampler.flush()];
      expect(found.length).toBe(8000);
      const wanted = tone(1000, 16000, 0.5);
      const worst = found
        .slice(100, -100)
        .reduce((most, value, n) => Math.max(most, Math.abs(value - wanted[n + 100])), 0);
      expect(worst).toBeLessThan(2e-3);
    });
  }

  it("leaves out what the lower rate cannot hold", () => {
    const resampler = new Resampler(48000, 16000);
    const found = resampler.push(tone(11000, 48000, 0.5)).subarray(200);
    expect(Math.max(...found.map(Math.abs))).toBeLessThan(2e-3);
  });

  it("does not depend on how the sound is cut", () => {
    const sound = tone(300, 44100, 0.7);
    const [whole, cut] = [new Resampler(44100, 16000), new Resampler(44100, 16000)];
    const wanted = [...whole.push(sound), ...whole.flush()];
    const found = inPieces(
      sound,
      (piece) => cut.push(piece),
      () => cut.flush(),
    );
    expect(found.length).toBe(wanted.length);
    expect(found.every((value, n) => Math.abs(value - wanted[n]) < 1e-6)).toBe(true);
  });
});

describe("features", () => {
  it("do not depend on how the sound is cut", () => {
    const sound = tone(220, 16000, 1.013);
    const [whole, cut] = [new MelStream(), new MelStream()];
    const wanted = [...whole.push(sound).values, ...whole.flush().values];
    const found = inPieces(
      sound,
      (piece) => cut.push(piece).values,
      () => cut.flush().values,
    );
    expect(wanted.length).toBe(80 * 102);
    expect(found).toEqual(wanted);
  });
});

describe("the mouth", () => {
  /** Frames in which one viseme is certain. */
  function certain(viseme: (typeof VISEMES)[number], count: number, closure = 0) {
    const activity = silence(count);
    activity.visemes.fill(0);
    for (let t = 0; t < count; t++) {
      activity.visemes[t * VISEMES.length + VISEMES.indexOf(viseme)] = 1;
    }
    activity.closure.fill(closure);
    activity.level.fill(-20);
    return activity;
  }

  it("opens for a, shuts for a short p between two", () => {
    const said = concatenate(
      concatenate(certain("A", 50), certain("PBM", 5, 0.95)),
      certain("A", 50),
    );
    const { channels, contact } = mouth(said, 0.287);
    expect(contact.length).toBe(105 - FRAMES_BEHIND - FRAMES_AHEAD);
    const p = 50 - FRAMES_BEHIND + 4;
    const jaw = (t: number) => channels[t * 52 + channel("jawOpen")];
    expect(contact[p]).toBeGreaterThan(0.95);
    expect(jaw(p)).toBeLessThan(0.5 * jaw(10));
    expect(jaw(10)).toBeGreaterThan(0.25);
    expect(contact[10]).toBe(0);
  });

  it("sees a bounded stretch, so that a stream may forget", () => {
    const said = concatenate(certain("I", 40), certain("U", 40));
    const whole = mouth(said, 0.287).channels;
    const last = mouth(tail(said, FRAMES_BEHIND + FRAMES_AHEAD + 1), 0.287).channels;
    expect([...last]).toEqual([...whole.slice(-52)]);
  });
});

describe("life", () => {
  it("is the same again from a seed, at any rate of frames", () => {
    const [often, seldom] = [IdleLife.seeded(5), IdleLife.seeded(5)];
    const [a, b] = [restLatents(), restLatents()];
    for (let n = 0; n < 3000; n++) {
      often.sample(n / 100, 0.5, a);
      if (n % 7 !== 0) continue;
      seldom.sample(n / 100, 0.5, b);
      expect([...a.dyn, ...a.pose]).toEqual([...b.dyn, ...b.pose]);
    }
  });

  it("blinks with the end of a phrase if a blink is due", () => {
    const speaking = Float32Array.from({ length: 100 }, (_, t) => (t < 40 ? 0.9 : 0.905 - t / 100));
    expect(new Phrases().ends(speaking)).toEqual([46]);
    const lids = (life: IdleLife, seconds: number) => {
      const out = restLatents();
      life.sample(seconds, 0, out);
      return out.dyn[channel("eyeBlinkLeft")];
    };
    let met = 0;
    for (let seed = 0; seed < 100; seed++) {
      const life = IdleLife.seeded(seed);
      life.pause(20);
      for (let n = 0; n < 1000; n++) lids(life, n / 50);
      if (lids(life, 20) === 0 && lids(life, 20.08) > 0.9) met++;
    }
    expect(met).toBeGreaterThan(15);
    expect(met).toBeLessThan(50);
  });

  it("draws numbers of the right spread", () => {
    const random = new SeededRandom(1, 2);
    const normal = Array.from({ length: 4000 }, () => random.normal(1, 2));
    const gamma = Array.from({ length: 4000 }, () => random.gamma(4, 0.42));
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    expect(mean(normal)).toBeCloseTo(1, 0);
    expect(Math.sqrt(mean(normal.map((x) => (x - 1) ** 2)))).toBeCloseTo(2, 0);
    expect(mean(gamma)).toBeCloseTo(1.68, 1);
  });
});
