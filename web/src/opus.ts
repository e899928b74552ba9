/** Opus by the browser's own encoder, for sound that goes over a network. */

import { OPUS_RATE } from "./generated";

const BITS_PER_SECOND = 32_000;
/** What encoders look ahead; without so much silence behind it, the end of the sound would stay in them. */
const DELAY_SECONDS = 0.0065;
/** Rates that Opus takes; whatever it was given, it is decoded at `OPUS_RATE`. */
const RATES = [8_000, 12_000, 16_000, 24_000, OPUS_RATE];

function config(rate: number): AudioEncoderConfig {
  return { codec: "opus", sampleRate: rate, numberOfChannels: 1, bitrate: BITS_PER_SECOND };
}

/** Rates of sound that can be coded here; old browsers and pages without https have no encoder. */
export async function opusRates(): Promise<Set<number>> {
  if (typeof AudioEncoder === "undefined") return new Set();
  const asked = RATES.map((rate) => AudioEncoder.isConfigSupported(config(rate)));
  const answers = await Promise.allSettled(asked);
  const able = answers.map((a) => a.status === "fulfilled" && a.value.supported === true);
  return new Set(RATES.filter((_, i) => able[i]));
}

/** Mono sound in, packets out. */
export class OpusEncoder {
  private readonly encoder: AudioEncoder;
  private samples = 0;
  private ending: Promise<void> | null = null;

  constructor(
    private readonly rate: number,
    onPacket: (packet: Uint8Array<ArrayBuffer>) => void,
    onError: (error: unknown) => void,
  ) {
    const output = (chunk: EncodedAudioChunk) => {
      const packet = new Uint8Array(chunk.byteLength);
      chunk.copyTo(packet);
      onPacket(packet);
    };
    this.encoder = new AudioEncoder({ output, error: onError });
    this.encoder.configure(config(rate));
  }

  push(samples: Float32Array): void {
    if (this.encoder.state === "closed" || samples.length === 0) return;
    const sound = new AudioData({
      format: "f32",
      sampleRate: this.rate,
      numberOfFrames: samples.length,
      numberOfChannels: 1,
      timestamp: (this.samples / this.rate) * 1e6,
      data: Float32Array.from(samples),
    });
    this.encoder.encode(sound);
    sound.close();
    this.samples += samples.length;
  }

  /** Nothing more is pushed; resolves when all packets have come. */
  end(): Promise<void> {
    this.ending ??= this.finish();
    return this.ending;
  }

  private async finish(): Promise<void> {
    this.push(new Float32Array(Math.ceil(DELAY_SECONDS * this.rate)));
    if (this.encoder.state === "closed") return;
    await this.encoder.flush();
    this.close();
  }

  /** Give up; nothing more comes. */
  close(): void {
    if (this.encoder.state !== "closed") this.encoder.close();
  }
}
