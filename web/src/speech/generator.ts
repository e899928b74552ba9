/**
 * Sound to motion, as `MotionStream` of `motion/generator.py` with plain controls: frame t of the result
 * shows the face at t / fps seconds of the sound.
 */

import { Phrases } from "../idle";
import { NUM_CHANNELS, restLatents } from "../motion";
import { concatenate, joined, silence, tail, type Activity } from "./activity";
import { decided, mouth } from "./coarticulation";
import { EncoderStream, type SpeechNetwork } from "./encoder";
import { FRAME_RATE } from "./features";
import type { Life } from "./life";
import { ProsodyStream } from "./prosody";
import { FRAMES_AHEAD, FRAMES_BEHIND, STRESS_SECONDS } from "./tables";

const SAMPLE_RATE = 16_000;
const CONTEXT = FRAMES_BEHIND + FRAMES_AHEAD;
const SILENT_FRAMES = 16;
/** Channels of the mouth, then speaking and belief. */
const TRACK_WIDTH = NUM_CHANNELS + 2;

/** Channels (n, 52) and head poses (n, 6). */
export interface Motion {
  dyn: Float32Array<ArrayBuffer>;
  pose: Float32Array<ArrayBuffer>;
}

export class MotionStream {
  private readonly encoder: EncoderStream;
  private readonly prosody = new ProsodyStream();
  private readonly phrases = new Phrases();
  private heard = 0;
  private context = silence(FRAMES_BEHIND);
  /** Rows of 10 ms from frame `first` on, of the mouth and of the voice, which is known earlier. */
  private mouth: Float32Array = new Float32Array(0);
  private voice: Float32Array = new Float32Array(0);
  private first = 0;
  private samplesIn = 0;
  private framesOut = 0;
  private readonly face = restLatents();
  private readonly row = new Float32Array(TRACK_WIDTH);

  constructor(
    private readonly speech: SpeechNetwork,
    private readonly life: Life,
    readonly fps: number,
  ) {
    this.encoder = new EncoderStream(speech);
  }

  /** The frames that more samples at 16 kHz settle. */
  async push(samples: Float32Array): Promise<Motion> {
    this.samplesIn += samples.length;
    this.life.listen(samples);
    await this.hear(await this.encoder.push(samples));
    return this.take(this.ready());
  }

  /** The sound is over: all frames that are still due. */
  async flush(): Promise<Motion> {
    this.life.end();
    await this.hear(await this.encoder.flush());
    const seconds = this.samplesIn / SAMPLE_RATE;
    const total = Math.max(1, Math.ceil(seconds * this.fps - 1e-6), this.framesOut);
    while (this.ready() < total) await this.hear(silence(SILENT_FRAMES));
    return this.take(total);
  }

  /** How many frames from the start can be given. */
  private ready(): number {
    const rows = Math.min(this.mouth.length / NUM_CHANNELS, this.voice.length / 2);
    const settled = this.first + rows - 1;
    const said = settled < 0 ? 0 : Math.floor((settled * this.fps) / FRAME_RATE + 1e-9) + 1;
    return Math.min(said, this.life.framesReady(this.fps));
  }

  private async hear(activity: Activity): Promise<void> {
    const prosody = this.prosody.push(activity);
    const { speaking, belief, certainty, stresses } = prosody;
    for (const stress of stresses) stress.seconds += STRESS_SECONDS;
    const said = speaking.map((share, t) => share * belief[t]);
    for (const frame of this.phrases.ends(said)) {
      this.life.pause((this.heard + frame) / FRAME_RATE);
    }
    this.heard += speaking.length;
    await this.life.hear(activity, prosody);
    this.context = concatenate(this.context, decided(activity, certainty));
    const { channels } = mouth(this.context, this.speech.threshold);
    this.mouth = joined([this.mouth, channels]);
    const voice = new Float32Array(2 * speaking.length);
    for (let t = 0; t < speaking.length; t++) {
      voice[2 * t] = speaking[t];
      voice[2 * t + 1] = belief[t];
    }
    this.voice = joined([this.voice, voice]);
    this.context = tail(this.context, CONTEXT);
  }

  /** Frames from the last one given up to `stop`. */
  private take(stop: number): Motion {
    const count = Math.max(0, stop - this.framesOut);
    const dyn = new Float32Array(count * NUM_CHANNELS);
    const pose = new Float32Array(count * 6);
    for (let f = 0; f < count; f++) {
      const seconds = (this.framesOut + f) / this.fps;
      this.compose(seconds);
      dyn.set(this.face.dyn, f * NUM_CHANNELS);
      pose.set(this.face.pose, f * 6);
    }
    this.framesOut += count;
    if (count > 0) this.forget((this.framesOut - 1) / this.fps);
    return { dyn, pose };
  }

  /** Write the face at a time to `face`. */
  private compose(seconds: number): void {
    const { row, face } = this;
    const at = seconds * FRAME_RATE - this.first;
    sample(this.mouth, NUM_CHANNELS, at, row.subarray(0, NUM_CHANNELS));
    sample(this.voice, 2, at, row.subarray(NUM_CHANNELS));
    const [speaking, belief] = row.subarray(NUM_CHANNELS);
    this.life.compose(seconds, row, speaking, belief, face);
    for (let i = 0; i < NUM_CHANNELS; i++) face.dyn[i] = Math.min(Math.max(face.dyn[i], 0), 1);
  }

  private forget(seconds: number): void {
    const known = this.mouth.length / NUM_CHANNELS;
    const drop = Math.min(Math.max(Math.floor(seconds * FRAME_RATE) - this.first, 0), known);
    this.mouth = this.mouth.slice(drop * NUM_CHANNELS);
    this.voice = this.voice.slice(drop * 2);
    this.first += drop;
  }
}

/** A row of a track, linear between rows and held at both ends. */
function sample(track: Float32Array, width: number, at: number, out: Float32Array): void {
  const last = track.length / width - 1;
  const low = Math.min(Math.max(Math.floor(at), 0), last);
  const high = Math.min(low + 1, last);
  const share = Math.min(Math.max(at - low, 0), 1);
  for (let i = 0; i < width; i++) {
    const from = track[low * width + i];
    out[i] = from + share * (track[high * width + i] - from);
  }
}
