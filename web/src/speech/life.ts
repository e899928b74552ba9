/** What a face does while it speaks: by rules, or as the diffusion transformer draws it with the voice. */

import { Accents, Blinks, Gaze, HEAD_LIMITS_DEGREES, NOD_DEGREES, type IdleLife } from "../idle";
import { CHANNELS } from "../generated";
import { channel, NUM_CHANNELS, type Latents } from "../motion";
import type { Random } from "../random";
import type { Activity } from "./activity";
import type { Prosody } from "./prosody";
import type { Network } from "./runtime";
import { FACE_SIZE, MotionSampler } from "./sampler";
import { VoiceStream } from "./voice";

export interface Life {
  /** Samples at 16 kHz, before what is heard in them. */
  listen(samples: Float32Array): void;
  /** The sound is over. */
  end(): void;
  hear(activity: Activity, prosody: Prosody): Promise<void>;
  /** A phrase has ended, before the frames that follow. */
  pause(seconds: number): void;
  /** How many frames from the start can be composed. */
  framesReady(fps: number): number;
  /**
   * Write the face at a time, in seconds that only grow, with what the mouth says.
   *
   * @param mouth Channels of speech.
   * @param belief In [0, 1], that it is speech.
   */
  compose(
    seconds: number,
    mouth: Float32Array,
    speaking: number,
    belief: number,
    out: Latents,
  ): void;
}

/** The rules of `motion/idle.py`. */
export class RuledLife implements Life {
  constructor(private readonly idle: IdleLife) {}

  listen(): void {
    // Rules follow who speaks and what is stressed only.
  }

  end(): void {
    // Nothing is held back.
  }

  async hear(_activity: Activity, { stresses }: Prosody): Promise<void> {
    this.idle.hear(stresses);
  }

  pause(seconds: number): void {
    this.idle.pause(seconds);
  }

  framesReady(): number {
    return Infinity;
  }

  compose(
    seconds: number,
    mouth: Float32Array,
    speaking: number,
    belief: number,
    out: Latents,
  ): void {
    this.idle.sample(seconds, speaking * belief, out);
    for (let i = 0; i < NUM_CHANNELS; i++) out.dyn[i] += mouth[i] * belief;
  }
}

/** Frames a second that the transformer draws. */
const RATE = 25;
const SETTLING_SECONDS = 15;
const CALM_SHARE = 0.5;
const NOD_RADIANS = (0.6 * NOD_DEGREES * Math.PI) / 180;
const BROW_ACCENT = 0.16;
const HEAD_ROOM = 1.6;
const BROWS = (["browInnerUp", "browOuterUpLeft", "browOuterUpRight"] as const).map(channel);
const LIDS = (["eyeBlinkLeft", "eyeBlinkRight"] as const).map(channel);
/** Channels that belong to speech. */
const SPOKEN = CHANNELS.map(
  (name) => /^(jaw|mouth|tongue)/.test(name) && !/^mouth(Smile|Frown)/.test(name),
);
/** Largest turns about x, y and z, in radians. */
const LIMITS = [1, 0, 2].map((i) => (HEAD_LIMITS_DEGREES[i] * HEAD_ROOM * Math.PI) / 180);

/** The arithmetic of `motion/life.py`, which explains it. */
export class GeneratedLife implements Life {
  private readonly voice = new VoiceStream();
  private readonly sampler: MotionSampler;
  private readonly blinks: Blinks;
  private readonly gaze: Gaze;
  private readonly accents: Accents;
  private readonly calm = new Float64Array(FACE_SIZE);
  private readonly calmer = new Float64Array(6);
  private readonly mean = new Float64Array(6);
  /** Faces from frame `first` on. */
  private faces: Float32Array[] = [];
  private first = 0;

  /**
   * @param headMotion Scale of head motion.
   * @param part The numbers of each part: 1 blinks, 4 gaze, 7 accents, 11 noise.
   */
  constructor(
    network: Network,
    private readonly headMotion: number,
    part: (number: number) => Random,
  ) {
    this.sampler = new MotionSampler(network, part(11));
    this.blinks = new Blinks(part(1));
    this.gaze = new Gaze(part(4), (...jump) => this.blinks.look(...jump));
    this.accents = new Accents(part(7));
  }

  listen(samples: Float32Array): void {
    this.voice.listen(samples);
  }

  end(): void {
    this.voice.end();
  }

  async hear(activity: Activity, prosody: Prosody): Promise<void> {
    this.accents.hear(prosody.stresses);
    const drawn = await this.sampler.push(this.voice.push(activity, prosody));
    this.faces.push(...drawn.map((face) => this.settled(face)));
  }

  pause(seconds: number): void {
    this.blinks.cue(seconds);
  }

  framesReady(fps: number): number {
    const count = this.first + this.faces.length;
    if (fps === RATE) return count;
    return Math.ceil((Math.max(0, count - 2) / RATE) * fps - 1e-6);
  }

  compose(
    seconds: number,
    mouth: Float32Array,
    _speaking: number,
    belief: number,
    out: Latents,
  ): void {
    const { dyn, pose } = out;
    this.between(seconds * RATE - this.first, out);
    pose[0] += NOD_RADIANS * this.accents.nods(seconds);
    for (let i = 0; i < 6; i++) pose[i] *= this.headMotion;
    for (const [i, most] of LIMITS.entries()) pose[i] = most * Math.tanh(pose[i] / most);
    const brows = BROW_ACCENT * this.accents.brows(seconds);
    for (const i of BROWS) dyn[i] += brows;
    const degrees = [pose[1], pose[0]].map((angle) => (angle * 180) / Math.PI);
    this.gaze.write(seconds, degrees, dyn);
    const lids = this.blinks.at(seconds);
    for (const i of LIDS) dyn[i] = lids;
    for (let i = 0; i < NUM_CHANNELS; i++) {
      dyn[i] = Math.max(SPOKEN[i] ? 0 : dyn[i], mouth[i] * belief);
    }
  }

  /** Both channels and pose calmed, the pose twice and about its own slow mean. */
  private settled(face: Float32Array): Float32Array {
    for (let i = 0; i < FACE_SIZE; i++) {
      if (SPOKEN[i]) continue;
      this.calm[i] += (face[i] - this.calm[i]) * CALM_SHARE;
      face[i] = this.calm[i];
    }
    for (let i = 0; i < 6; i++) {
      this.calmer[i] += (face[NUM_CHANNELS + i] - this.calmer[i]) * CALM_SHARE;
      this.mean[i] += (this.calmer[i] - this.mean[i]) / (SETTLING_SECONDS * RATE);
      face[NUM_CHANNELS + i] = this.calmer[i] - this.mean[i];
    }
    return face;
  }

  /** The face between frames: straight lines for channels, Catmull and Rom's cubics for the pose. */
  private between(at: number, out: Latents): void {
    const last = this.faces.length - 1;
    const low = Math.min(Math.floor(at + 1e-6), last);
    let s = Math.min(Math.max(at - low, 0), 1);
    if (s < 1e-4) s = 0;
    const row = (step: number) => this.faces[Math.min(Math.max(low + step, 0), last)];
    const [before, here, there, after] = [-1, 0, 1, 2].map(row);
    for (let i = 0; i < NUM_CHANNELS; i++) out.dyn[i] = here[i] * (1 - s) + there[i] * s;
    for (let i = 0; i < 6; i++) {
      const j = NUM_CHANNELS + i;
      const start = 0.5 * (there[j] - before[j]);
      const stop = 0.5 * (after[j] - here[j]);
      out.pose[i] =
        (2 * s ** 3 - 3 * s ** 2 + 1) * here[j] +
        (s ** 3 - 2 * s ** 2 + s) * start +
        (3 * s ** 2 - 2 * s ** 3) * there[j] +
        (s ** 3 - s ** 2) * stop;
    }
    const keep = Math.max(0, low - 2);
    this.faces.splice(0, keep);
    this.first += keep;
  }
}
