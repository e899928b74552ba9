/**
 * Log-mel features of growing sound and their level: the arithmetic of `audio/features.py`, which has the
 * formulas. 16 kHz in; a frame every 10 ms, which looks at the 25 ms around it.
 */

export const NUM_MELS = 80;
export const FRAME_RATE = 100;
const SAMPLE_RATE = 16_000;
const HOP = SAMPLE_RATE / FRAME_RATE;
const WINDOW = 400;
const FFT = 512;
const LOWEST_HZ = 50;
const HIGHEST_HZ = 7600;
const POWER_FLOOR = 1e-13;
const LEVEL_FLOOR_DB = -72;
const LEVEL_DECAY_DB = 6 / FRAME_RATE;
const LEVEL_SMOOTHING = 0.35;

/** Features (n, 80) and level in dBFS (n) of some frames. */
export interface Features {
  values: Float32Array;
  levels: Float32Array;
}

interface Band {
  first: number;
  weights: Float64Array;
}

/** Triangles equally spaced on the mel scale, as the bins that they cover. */
function melBands(): Band[] {
  const mel = (hz: number) => 2595 * Math.log10(1 + hz / 700);
  const [from, to] = [mel(LOWEST_HZ), mel(HIGHEST_HZ)];
  const edges = Array.from(
    { length: NUM_MELS + 2 },
    (_, i) => 700 * (10 ** ((from + ((to - from) * i) / (NUM_MELS + 1)) / 2595) - 1),
  );
  return Array.from({ length: NUM_MELS }, (_, band) => {
    const [low, mid, high] = edges.slice(band, band + 3);
    const all = Array.from({ length: FFT / 2 + 1 }, (_, bin) => {
      const hz = (bin * SAMPLE_RATE) / FFT;
      return Math.max(0, Math.min((hz - low) / (mid - low), (high - hz) / (high - mid)));
    });
    const first = Math.max(
      0,
      all.findIndex((weight) => weight > 0),
    );
    return { first, weights: Float64Array.from(all.slice(first)).filter((weight) => weight > 0) };
  });
}

/** Fourier transform of `FFT` complex numbers, in place. */
class Fourier {
  readonly real = new Float64Array(FFT);
  readonly imaginary = new Float64Array(FFT);
  private readonly cosine = Float64Array.from({ length: FFT / 2 }, (_, i) =>
    Math.cos((2 * Math.PI * i) / FFT),
  );
  private readonly sine = Float64Array.from(
    { length: FFT / 2 },
    (_, i) => -Math.sin((2 * Math.PI * i) / FFT),
  );

  transform(): void {
    const { real, imaginary } = this;
    for (let i = 1, j = 0; i < FFT; i++) {
      let bit = FFT >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) {
        [real[i], real[j]] = [real[j], real[i]];
        [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
      }
    }
    for (let half = 1; half < FFT; half *= 2) {
      const stride = FFT / (2 * half);
      for (let start = 0; start < FFT; start += 2 * half) {
        for (let k = 0; k < half; k++) this.butterfly(start + k, half, k * stride);
      }
    }
  }

  private butterfly(at: number, half: number, turn: number): void {
    const { real, imaginary } = this;
    const other = at + half;
    const [c, s] = [this.cosine[turn], this.sine[turn]];
    const re = real[other] * c - imaginary[other] * s;
    const im = real[other] * s + imaginary[other] * c;
    real[other] = real[at] - re;
    imaginary[other] = imaginary[at] - im;
    real[at] += re;
    imaginary[at] += im;
  }
}

/** Features of growing sound; the same numbers however it is cut. */
export class MelStream {
  private readonly bands = melBands();
  private readonly fourier = new Fourier();
  private readonly window = Float64Array.from(
    { length: WINDOW },
    (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW),
  );
  private readonly scale = 2 / (FFT * this.window.reduce((sum, w) => sum + w * w, 0));
  private pending = new Float32Array(WINDOW / 2);
  private samplesIn = 0;
  private framesOut = 0;
  private levelPower = 0;
  private levelDb = LEVEL_FLOOR_DB;

  /** The frames that more samples complete. */
  push(samples: Float32Array): Features {
    this.samplesIn += samples.length;
    this.extend(samples);
    return this.take(Math.floor((this.pending.length - WINDOW) / HOP) + 1);
  }

  /** The frames that still waited for samples. */
  flush(): Features {
    const count = Math.ceil(this.samplesIn / HOP) - this.framesOut;
    const needed = count > 0 ? (count - 1) * HOP + WINDOW : 0;
    this.extend(new Float32Array(Math.max(0, needed - this.pending.length)));
    return this.take(count);
  }

  private extend(samples: Float32Array): void {
    const longer = new Float32Array(this.pending.length + samples.length);
    longer.set(this.pending);
    longer.set(samples, this.pending.length);
    this.pending = longer;
  }

  private take(wanted: number): Features {
    const count = Math.max(0, wanted);
    const values = new Float32Array(count * NUM_MELS);
    const levels = new Float32Array(count);
    for (let frame = 0; frame < count; frame++) {
      const row = values.subarray(frame * NUM_MELS, (frame + 1) * NUM_MELS);
      levels[frame] = this.frame(this.pending.subarray(frame * HOP, frame * HOP + WINDOW), row);
    }
    this.pending = this.pending.slice(count * HOP);
    this.framesOut += count;
    return { values, levels };
  }

  /** Write one frame's features; returns its level. */
  private frame(samples: Float32Array, out: Float32Array): number {
    const { real, imaginary } = this.fourier;
    let mean = 0;
    for (let i = 0; i < WINDOW; i++) mean += samples[i] / WINDOW;
    real.fill(0);
    imaginary.fill(0);
    let power = 0;
    for (let i = 0; i < WINDOW; i++) {
      const value = samples[i] - mean;
      power += (value * value) / WINDOW;
      real[i] = value * this.window[i];
    }
    this.fourier.transform();
    const follower = this.follow(power);
    for (let band = 0; band < NUM_MELS; band++) {
      const { first, weights } = this.bands[band];
      let sum = 0;
      for (let k = 0; k < weights.length; k++) {
        const [re, im] = [real[first + k], imaginary[first + k]];
        sum += weights[k] * (re * re + im * im);
      }
      const energy = 10 * Math.log10(sum * this.scale + POWER_FLOOR);
      out[band] = Math.min(Math.max((energy - follower) / 20 + 2, -1.25), 2);
    }
    return 10 * Math.log10(power + 1e-9);
  }

  /** Decibels of the slow follower of the level. */
  private follow(power: number): number {
    this.levelPower += LEVEL_SMOOTHING * (power - this.levelPower);
    this.levelDb = Math.max(
      10 * Math.log10(this.levelPower + 1e-12),
      this.levelDb - LEVEL_DECAY_DB,
      LEVEL_FLOOR_DB,
    );
    return this.levelDb;
  }
}
