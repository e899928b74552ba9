/** Random numbers from a seed. */

export interface Random {
  /** From 0 up to 1. */
  random(): number;
  uniform(low: number, high: number): number;
  normal(mean: number, spread: number): number;
  /** Gamma distribution of a whole shape. */
  gamma(shape: number, scale: number): number;
}

/** A generator for one part of one life: Weyl steps of 32 bits, mixed as in "mulberry32". */
export class SeededRandom implements Random {
  private state: number;

  constructor(seed: number, part: number) {
    this.state = (Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(part + 1, 0x85ebca6b)) >>> 0;
  }

  random(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  uniform(low: number, high: number): number {
    return low + (high - low) * this.random();
  }

  normal(mean: number, spread: number): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.random()));
    return mean + spread * radius * Math.cos(2 * Math.PI * this.random());
  }

  gamma(shape: number, scale: number): number {
    let sum = 0;
    for (let i = 0; i < shape; i++) sum -= Math.log(1 - this.random());
    return scale * sum;
  }
}
