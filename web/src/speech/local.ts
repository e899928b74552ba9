/**
 * Speech in the page: the player's side of the worker that hears. Runtime and network lie beside the
 * player and are fetched when somebody is to speak for the first time.
 */

import { MotionTrack } from "../motion";
import { roomIn, SPEECH_FPS, type Speaker, type SpeakerEvents, type Turn } from "../speaker";
import type { Answer, Request } from "./worker";
import workerUrl from "./worker?worker&url";

const RUNTIME = "onnxruntime.wasm.gz";
const SPEECH = "speech.onnx";
const MOTION = "motion.onnx";
/** Head, gaze and brows: drawn with the voice by the diffusion transformer, or by rules, for slow devices. */
export type LifeKind = "diffusion" | "rules";

/** Sound goes to the worker in pieces of this length, so that it soon hears of an interruption. */
const PIECE_SECONDS = 0.5;

class LocalTurn implements Turn {
  readonly track = new MotionTrack(SPEECH_FPS);
  complete = false;
  cancelled = false;
  private seconds = 0;

  constructor(
    readonly number: number,
    private readonly rate: number,
    private readonly send: (request: Request) => void,
  ) {}

  get over(): boolean {
    return this.complete || this.cancelled;
  }

  async push(samples: Float32Array): Promise<void> {
    const size = Math.max(1, Math.round(PIECE_SECONDS * this.rate));
    for (let from = 0; from < samples.length && !this.over; from += size) {
      this.give(samples.slice(from, from + size), false);
      await roomIn(this, this.seconds);
    }
  }

  end(): void {
    this.give(new Float32Array(0), true);
  }

  private give(samples: Float32Array, last: boolean): void {
    if (this.over) return;
    this.seconds += samples.length / this.rate;
    this.send({ kind: "sound", turn: this.number, samples, last });
  }
}

export class LocalSpeaker implements Speaker {
  private turns = 0;
  private turn: LocalTurn | null = null;
  private closed = false;

  private constructor(
    private readonly worker: Worker,
    private readonly headMotion: number,
    private readonly onFailure: (message: string) => void,
  ) {
    worker.onmessage = ({ data }: MessageEvent<Answer>) => this.receive(data);
    worker.onerror = (event) => this.fail(event.message);
  }

  /**
   * Fetch what is needed and start the worker; resolves when it can hear.
   *
   * @param headMotion Scale of the head's motion, 0 for a still head.
   */
  static open(life: LifeKind, headMotion: number, events: SpeakerEvents): Promise<LocalSpeaker> {
    const script = workerScript();
    const worker = new Worker(script, { type: "module" });
    const opened = new Promise<LocalSpeaker>((done, fail) => {
      const refuse = (message: string) => {
        worker.terminate();
        fail(new Error(`speech cannot run in this page: ${message}`));
      };
      worker.onerror = (event) => refuse(event.message || "its script could not be loaded");
      worker.onmessage = ({ data }: MessageEvent<Answer>) => {
        if (data.kind === "ready") done(new LocalSpeaker(worker, headMotion, events.onFailure));
        else if (data.kind === "failure") refuse(data.message);
      };
      const beside = (name: string) => new URL(name, import.meta.url).href;
      const request: Request = {
        kind: "open",
        runtime: beside(RUNTIME),
        speech: beside(SPEECH),
        motion: life === "rules" ? null : beside(MOTION),
      };
      worker.postMessage(request);
    });
    return opened.finally(() => URL.revokeObjectURL(script));
  }

  get open(): boolean {
    return !this.closed;
  }

  begin(rate: number): Turn {
    this.interrupt();
    const send = (request: Request) => this.worker.postMessage(request);
    const turn = new LocalTurn(++this.turns, rate, send);
    this.turn = turn;
    const seed = Math.floor(Math.random() * 2 ** 31);
    send({
      kind: "begin",
      turn: turn.number,
      rate,
      fps: SPEECH_FPS,
      seed,
      headMotion: this.headMotion,
    });
    return turn;
  }

  interrupt(): void {
    if (this.turn && !this.turn.over) this.turn.cancelled = true;
  }

  close(): void {
    this.closed = true;
    this.interrupt();
    this.worker.terminate();
  }

  private receive(data: Answer): void {
    const { turn } = this;
    if (data.kind === "ready" || !turn || turn.over || data.turn !== turn.number) return;
    if (data.kind === "failure") {
      this.fail(data.message);
      return;
    }
    turn.track.append(data.dyn, data.pose);
    turn.complete = data.last;
  }

  private fail(message: string): void {
    this.interrupt();
    this.onFailure(message);
  }
}

/** Address of a script for the worker: one of another origin must be imported by one of the page's own. */
function workerScript(): string {
  const text = `import ${JSON.stringify(workerUrl)};`;
  return URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
}
