/**
 * Growing sound of any rate at another: x(t) = sum_n x[n] h(t - n), with h the sine cardinal of the lower
 * of both rates' bands under a window of `ZEROS` zero crossings to each side.
 */

const ZEROS = 16;
/** Share of the band that is kept; the rest gives the filter room to fall. */
const ROLL_OFF = 0.94;
const STEPS = 512;

export class Resampler {
  private readonly step: number;
  private readonly reach: number;
  private readonly filter: Float64Array;
  private pending: Float32Array;
  /** Place of the next sample out, in samples in from the first that is pending. */
  private at: number;
  private samplesIn = 0;
  private samplesOut = 0;

  /** @param from @param to Samples a second. */
  constructor(
    private readonly from: number,
    private readonly to: number,
  ) {
    const band = Math.min(1, to / from) * ROLL_OFF;
    this.step = from / to;
    this.reach = Math.ceil(ZEROS / band);
    this.filter = Float64Array.from({ length: this.reach * STEPS + 2 }, (_, i) => {
      const t = i / STEPS;
      if (t >= this.reach) return 0;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * t) / this.reach);
      const x = Math.PI * band * t;
      return band * window * (x === 0 ? 1 : Math.sin(x) / x);
    });
    // Silence before the sound, so that its first samples have neighbours too.
    this.pending = new Float32Array(this.reach);
    this.at = this.reach;
  }

  /** What more samples settle. */
  push(samples: Float32Array): Float32Array {
    this.samplesIn += samples.length;
    return this.take(samples, Infinity);
  }

  /** The rest. */
  flush(): Float32Array {
    const total = Math.round((this.samplesIn * this.to) / this.from);
    return this.take(new Float32Array(2 * this.reach + Math.ceil(this.step)), total);
  }

  private take(samples: Float32Array, total: number): Float32Array {
    if (this.from === this.to) return total === Infinity ? samples : new Float32Array(0);
    const sound = new Float32Array(this.pending.length + samples.length);
    sound.set(this.pending);
    sound.set(samples, this.pending.length);
    const room = Math.floor((sound.length - this.reach - 1 - this.at) / this.step) + 1;
    const count = Math.max(0, Math.min(room, total - this.samplesOut));
    const out = new Float32Array(count);
    for (let i = 0; i < count; i++) out[i] = this.value(sound, this.at + i * this.step);
    const next = this.at + count * this.step;
    const drop = Math.max(0, Math.floor(next) - this.reach);
    this.pending = sound.slice(drop);
    this.at = next - drop;
    this.samplesOut += count;
    return out;
  }

  private value(sound: Float32Array, at: number): number {
    const first = Math.max(0, Math.ceil(at - this.reach));
    const last = Math.min(sound.length - 1, Math.floor(at + this.reach));
    let sum = 0;
    for (let n = first; n <= last; n++) {
      const t = Math.abs(at - n) * STEPS;
      const low = Math.floor(t);
      const here = this.filter[low];
      sum += sound[n] * (here + (t - low) * (this.filter[low + 1] - here));
    }
    return sum;
  }
}
