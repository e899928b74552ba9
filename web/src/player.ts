/**
 * The player: an avatar on a canvas, and what a page can ask of it.
 *
 *     const head = await load(canvas, "avatar.safetensors", { server: "/live" });
 *     await head.speak("hello.wav");
 *
 * Events: `start`, `end`, `interrupt` of what is said; `error` (an ErrorEvent); `view` when the viewer
 * has moved.
 */

import { readAvatar, type AvatarData } from "./avatar";
import { FRONT, limited, viewFrom, type View, type Viewpoint } from "./camera";
import { IdleLife } from "./idle";
import { tokenFor } from "./live";
import { copyLatents, readMotion, restLatents, type Latents } from "./motion";
import {
  EchoPerformance,
  SilentPerformance,
  SoundPerformance,
  type Performance,
} from "./performance";
import { PoseClient } from "./pose-client";
import { Renderer, type Background } from "./renderer";
import {
  captureStream,
  decodeSound,
  decodeSpeech,
  fetchBytes,
  SoundOutput,
  type OnProgress,
  SPEECH_RATE,
  wakeSound,
} from "./sound";
import type { Speaker, Turn } from "./speaker";
import { Speakers } from "./speakers";
import type { LifeKind } from "./speech/local";
import { Steering } from "./steering";
import { Transition } from "./transition";
import type { FrameAnswer } from "./worker";

/** Motion that is there before its sound begins, so that the network may hesitate. */
const HEAD_START_SECONDS = 0.25;
/** A head that follows a microphone from further behind is no use. */
const MOST_LAG_SECONDS = 5;
const MAX_PIXEL_RATIO = 2;
const MAX_SIDE = 2048;
const POLL_MILLISECONDS = 10;

export interface PlayerOptions {
  background?: Background;
  /** Address of the socket of `vasa3d serve`; without one, the page itself turns sound into motion. */
  server?: string | null;
  /** How the page itself moves head, gaze and brows; "rules" costs less. */
  life?: LifeKind;
  /** What the server asks for; it is shown to the server alone, without one to the page's own host. */
  token?: string;
  /** Told how much of the avatar has come. */
  onProgress?: OnProgress;
}

/** Times of the last frame, milliseconds. */
export interface FrameTimes {
  pose: number;
  draw: number;
}

export class Player extends EventTarget {
  background: Background;
  readonly times: FrameTimes = { pose: 0, draw: 0 };
  /** Distance between the middles of the lips in the last frame, metres. */
  aperture = 0;
  /** Seconds into what is said, in the last frame; null while nothing is. */
  mediaTime: number | null = null;
  private point: Viewpoint = { ...FRONT };
  private renderer: Renderer;
  private readonly poser: PoseClient;
  private readonly steering: Steering;
  private readonly still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  private readonly idle = IdleLife.seeded(Math.floor(Math.random() * 2 ** 31));
  private readonly observer: ResizeObserver;
  private readonly face = restLatents();
  private readonly asked = restLatents();
  private act: Performance | null = null;
  private readonly transition = new Transition();
  private fixed: Latents | null = null;
  private readonly speakers: Speakers;
  private stopCapture: (() => void) | null = null;
  private lastTick = performance.now();
  private request = 0;
  /** Counts interruptions, so that what was being prepared before one never begins. */
  private epoch = 0;
  private dirty = true;
  private closed = false;

  /** Fetch an avatar and show it on a canvas. */
  static async load(
    canvas: HTMLCanvasElement,
    src: string,
    options: PlayerOptions = {},
  ): Promise<Player> {
    const bytes = await fetchBytes(src, tokenFor(src, options), options.onProgress);
    const player = new Player(canvas, bytes, options);
    try {
      await player.firstFrame();
    } catch (error) {
      player.close();
      throw error;
    }
    return player;
  }

  private constructor(
    private readonly canvas: HTMLCanvasElement,
    bytes: ArrayBuffer,
    options: PlayerOptions,
  ) {
    super();
    this.background = options.background ?? "original";
    this.avatar = readAvatar(bytes);
    // The worker reads the avatar while the shaders are compiled.
    this.poser = new PoseClient(bytes);
    try {
      this.renderer = new Renderer(canvas, this.avatar);
    } catch (error) {
      this.poser.close();
      throw error;
    }
    this.steering = new Steering(this.avatar.head);
    this.speakers = new Speakers(options.server ?? null, {
      token: options.token,
      life: options.life ?? "diffusion",
      headMotion: this.still ? 0 : 1,
      onFailure: (message) => this.fail(new Error(message)),
    });
    this.observer = new ResizeObserver(() => (this.dirty = true));
    this.observer.observe(canvas);
    canvas.addEventListener("webglcontextlost", this.onLost);
    canvas.addEventListener("webglcontextrestored", this.onRestored);
  }

  readonly avatar: AvatarData;

  /** Where the viewer stands. */
  get viewpoint(): Readonly<Viewpoint> {
    return this.point;
  }

  set viewpoint(point: Viewpoint) {
    this.point = limited(point);
    this.dirty = true;
    this.dispatchEvent(new Event("view"));
  }

  get speaking(): boolean {
    return this.act !== null;
  }

  setBackground(background: Background): void {
    this.background = background;
    this.dirty = true;
  }

  /** Play motion that is ready, with its sound if there is one. Resolves when it is over. */
  async play(motion: string, sound?: string | Blob): Promise<void> {
    const epoch = this.interrupt();
    const [bytes, buffer] = await Promise.all([
      fetchBytes(motion),
      sound ? decodeSound(sound) : null,
    ]);
    if (epoch !== this.epoch) return;
    const track = readMotion(bytes);
    if (!buffer) return this.perform(new SilentPerformance(track));
    const output = new SoundOutput();
    output.push(buffer);
    output.end();
    await output.start();
    return this.perform(new SoundPerformance(track, output), epoch);
  }

  /**
   * Get ready to speak: connect to the server, or fetch what the page needs to turn sound into motion. What
   * speaks does so by itself; this is for pages that want to say that they are loading.
   */
  async prepare(): Promise<void> {
    await this.speakers.get();
  }

  /**
   * Say something: a sound file, decoded by the browser, or a stream, such as a microphone's, which is
   * followed silently until `interrupt`. Resolves when it is over.
   */
  async speak(source: string | Blob | MediaStream): Promise<void> {
    const epoch = this.interrupt();
    wakeSound();
    if (source instanceof MediaStream) {
      const speaker = await this.speakers.get();
      return epoch === this.epoch ? this.follow(speaker, source, epoch) : undefined;
    }
    const [speaker, { sound, speech }] = await Promise.all([
      this.speakers.get(),
      decodeSpeech(source),
    ]);
    if (epoch !== this.epoch) return;
    const turn = speaker.begin(SPEECH_RATE);
    const output = new SoundOutput();
    output.push(sound);
    output.end();
    const given = turn.push(speech).then(() => turn.end());
    return this.begin(turn, output, epoch, given);
  }

  /**
   * Say sound as it is made, for speech synthesis: mono samples of a rate, piece by piece. Resolves when
   * it is over.
   */
  async speakSamples(
    pieces: AsyncIterable<Float32Array<ArrayBuffer>>,
    rate: number,
  ): Promise<void> {
    const epoch = this.interrupt();
    wakeSound();
    const speaker = await this.speakers.get();
    if (epoch !== this.epoch) return;
    const turn = speaker.begin(rate);
    const output = new SoundOutput();
    const feed = async () => {
      for await (const samples of pieces) {
        if (turn.over) break;
        output.pushSamples(samples, rate);
        await turn.push(samples);
      }
      turn.end();
      output.end();
    };
    return this.begin(turn, output, epoch, feed());
  }

  /** Be silent at once, and forget what was about to be said. Returns how often that has happened. */
  interrupt(): number {
    this.epoch++;
    this.stopCapture?.();
    this.stopCapture = null;
    this.speakers.interrupt();
    if (this.act) {
      this.act.stop();
      this.act = null;
      this.dispatchEvent(new Event("interrupt"));
    }
    return this.epoch;
  }

  /** Let a server turn sound into motion, or with null the page itself. */
  setServer(server: string | null): void {
    if (this.speakers.use(server)) this.interrupt();
  }

  setEmotion(strengths: Record<string, number>): void {
    this.steering.setEmotion(strengths);
  }

  /** Degrees to the person's left and up. */
  lookAt(yawDegrees: number, pitchDegrees: number): void {
    this.steering.lookAt(yawDegrees, pitchDegrees);
  }

  /**
   * Hold a face, or with null let go of it. Channels are those of ARKit; `pose` is axis-angle and
   * translation. Resolves when it is shown.
   */
  async hold(latents: Latents | null): Promise<void> {
    this.fixed = latents;
    this.dirty = true;
    if (latents) await this.shown(latents);
  }

  /** The picture as it is now. */
  async snapshot(): Promise<Blob> {
    // What was seen from elsewhere is in another order.
    while (this.poser.busy) await this.drawn();
    if (this.dirty) {
      this.dirty = false;
      this.take(await this.poser.request(null, this.view().view));
    }
    this.renderer.draw(this.view(), this.background);
    return new Promise((done, fail) =>
      this.canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("no picture")))),
    );
  }

  /** End everything and give memory back. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.interrupt();
    cancelAnimationFrame(this.request);
    this.observer.disconnect();
    this.canvas.removeEventListener("webglcontextlost", this.onLost);
    this.canvas.removeEventListener("webglcontextrestored", this.onRestored);
    this.speakers.close();
    this.poser.close();
    this.renderer.dispose();
  }

  private async firstFrame(): Promise<void> {
    this.loadPicture();
    this.take(await this.poser.request(this.face, this.view().view));
    this.request = requestAnimationFrame(this.tick);
  }

  /** The scene behind the person follows when it is decoded; the head need not wait for it. */
  private loadPicture(): void {
    const blob = new Blob([this.avatar.background.slice()], { type: "image/webp" });
    createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" })
      .then((picture) => {
        this.renderer.setPicture(picture);
        this.dirty = true;
      })
      .catch((error: unknown) => this.fail(error));
  }

  private async follow(speaker: Speaker, stream: MediaStream, epoch: number): Promise<void> {
    let turn: Turn | null = null;
    let heard = 0;
    // A microphone that is unplugged has said all that it will say.
    for (const track of stream.getAudioTracks()) track.onended = () => turn?.end();
    const done = new Promise<void>((resolve, reject) => {
      // Until something is heard, there is no act that ends.
      this.stopCapture = resolve;
      captureStream(stream, (samples, rate) => {
        if (epoch !== this.epoch) return;
        if (!turn) {
          turn = speaker.begin(rate);
          this.perform(new EchoPerformance(turn)).then(resolve, reject);
        }
        void turn.push(samples);
        heard += samples.length / rate;
        if (heard - turn.track.duration < MOST_LAG_SECONDS) return;
        reject(new Error("motion does not keep up with the sound; this takes a faster device"));
        this.interrupt();
      }).then((stop) => {
        if (epoch !== this.epoch) return stop();
        this.stopCapture = () => {
          stop();
          resolve();
        };
      }, reject);
    });
    return done;
  }

  /** Say a turn until it is over, is interrupted, or its sound cannot be given. */
  private async begin(
    turn: Turn,
    output: SoundOutput,
    epoch: number,
    given: Promise<void>,
  ): Promise<void> {
    const failed = new Promise<never>((_, fail) => given.catch(fail));
    try {
      await Promise.race([this.utter(turn, output, epoch), failed]);
    } catch (error) {
      if (epoch === this.epoch) this.interrupt();
      throw error;
    }
  }

  /** Let the sound begin once its motion is ahead of it. */
  private async utter(turn: Turn, output: SoundOutput, epoch: number): Promise<void> {
    while (!turn.over && turn.track.duration < HEAD_START_SECONDS) {
      await new Promise((done) => setTimeout(done, POLL_MILLISECONDS));
    }
    if (turn.cancelled) return;
    await output.start();
    return this.perform(new SoundPerformance(turn.track, output, turn), epoch);
  }

  private async perform(act: Performance, epoch = this.epoch): Promise<void> {
    if (epoch !== this.epoch) {
      act.stop();
      return;
    }
    this.act = act;
    this.dispatchEvent(new Event("start"));
    await new Promise<void>((done) => {
      const over = () => {
        this.removeEventListener("end", over);
        this.removeEventListener("interrupt", over);
        done();
      };
      this.addEventListener("end", over);
      this.addEventListener("interrupt", over);
    });
  }

  private readonly tick = (now: number): void => {
    if (this.closed) return;
    this.request = requestAnimationFrame(this.tick);
    if (this.poser.busy) return;
    const elapsed = Math.min(Math.max((now - this.lastTick) / 1000, 0), 0.25);
    this.lastTick = now;
    this.compose(now / 1000, elapsed);
    const moved = !same(this.face, this.asked);
    if (!moved && !this.dirty) return;
    this.dirty = false;
    copyLatents(this.face, this.asked);
    this.poser
      .request(moved ? this.asked : null, this.view().view)
      .then((answer) => this.take(answer))
      .catch((error: unknown) => this.fail(error));
  };

  /** Write what the face shows now to `face`. */
  private compose(now: number, elapsed: number): void {
    const { face, act } = this;
    if (this.fixed) {
      copyLatents(this.fixed, face);
      return;
    }
    this.idle.sample(now, 0, face);
    this.mediaTime = null;
    const speaking = act && act.track.length > 0 ? act : null;
    if (act) {
      this.mediaTime = act.seconds();
      act.track.sample(this.mediaTime, face);
      if (act.finished()) {
        this.act = null;
        act.stop();
        this.dispatchEvent(new Event("end"));
      }
    }
    if (this.still) face.pose.fill(0);
    this.transition.apply(face, speaking, elapsed);
    this.steering.apply(face, elapsed);
  }

  /** Draw an answer of the worker. */
  private take(answer: FrameAnswer): void {
    if (this.closed) return;
    const start = performance.now();
    this.renderer.setFrame(answer.frame, answer.samePose);
    this.renderer.draw(this.view(), this.background);
    this.poser.recycle(answer);
    this.aperture = answer.frame.aperture;
    this.times.pose = answer.milliseconds;
    this.times.draw = performance.now() - start;
    this.dispatchEvent(new Event("frame"));
  }

  /** The camera for the canvas as it is laid out, whose pixels follow. */
  private view(): View {
    const { canvas } = this;
    const ratio = Math.min(devicePixelRatio, MAX_PIXEL_RATIO);
    const size = [canvas.clientWidth, canvas.clientHeight].map((side) =>
      Math.min(Math.max(Math.round(side * ratio), 1), MAX_SIDE),
    ) as [number, number];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    return viewFrom(this.avatar.camera, this.avatar.target, this.point, ...size);
  }

  private async shown(latents: Latents): Promise<void> {
    while (!same(latents, this.asked) || this.poser.busy) await this.drawn();
  }

  /** The next picture. */
  private async drawn(): Promise<void> {
    await new Promise((done) => this.addEventListener("frame", done, { once: true }));
  }

  private readonly onLost = (event: Event): void => event.preventDefault();

  private readonly onRestored = (): void => {
    this.renderer = new Renderer(this.canvas, this.avatar);
    this.loadPicture();
    this.asked.dyn.fill(NaN);
    this.dirty = true;
  };

  private fail(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    this.dispatchEvent(new ErrorEvent("error", { message, error }));
  }
}

function same(a: Latents, b: Latents): boolean {
  return a.dyn.every((x, i) => x === b.dyn[i]) && a.pose.every((x, i) => x === b.pose[i]);
}
