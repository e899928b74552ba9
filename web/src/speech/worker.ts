/** Speech beside the page's own thread: it hears, and answers with motion. Nothing that it hears leaves it. */

import { IdleLife } from "../idle";
import { SeededRandom } from "../random";
import { openSpeechNetwork, type SpeechNetwork } from "./encoder";
import { MotionStream, type Motion } from "./generator";
import { GeneratedLife, RuledLife } from "./life";
import { Resampler } from "./resample";
import { Network, startRuntime } from "./runtime";

const SPEECH_RATE = 16_000;
const GZIP_MAGIC = [0x1f, 0x8b];

/** First of all: absolute addresses of what is needed. */
export interface OpenRequest {
  kind: "open";
  runtime: string;
  speech: string;
  /** Of the diffusion transformer; null: the face lives by rules. */
  motion: string | null;
}

export interface BeginRequest {
  kind: "begin";
  turn: number;
  /** Samples a second of the sound that follows. */
  rate: number;
  fps: number;
  seed: number;
  headMotion: number;
}

/** Sound of a turn; with `last`, all of it. */
export interface SoundRequest {
  kind: "sound";
  turn: number;
  samples: Float32Array;
  last: boolean;
}

export type Request = OpenRequest | BeginRequest | SoundRequest;

export type Answer =
  | { kind: "ready" }
  | ({ kind: "motion"; turn: number; last: boolean } & Motion)
  /** Of no turn: the network could not be opened. */
  | { kind: "failure"; turn: number | null; message: string };

interface Talk {
  turn: number;
  resampler: Resampler;
  stream: MotionStream;
}

let speech: SpeechNetwork | null = null;
let transformer: Network | null = null;
let talk: Talk | null = null;
/** Requests are answered one after the other. */
let before: Promise<void> = Promise.resolve();

async function fetched(url: string): Promise<ArrayBuffer> {
  let answer: Response;
  try {
    answer = await fetch(url);
  } catch {
    throw new Error(`${url} could not be loaded`);
  }
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  const bytes = await answer.arrayBuffer();
  const start = new Uint8Array(bytes, 0, Math.min(2, bytes.byteLength));
  // Some hosts unpack a .gz on the way, others do not.
  if (!GZIP_MAGIC.every((value, i) => start[i] === value)) return bytes;
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(unpacked).arrayBuffer();
}

async function open(request: OpenRequest): Promise<void> {
  if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function") {
    throw new Error("this browser has no WebAssembly, which speech in the page needs");
  }
  const [code, ears, motion] = await Promise.all([
    fetched(request.runtime),
    fetched(request.speech),
    request.motion ? fetched(request.motion) : null,
  ]);
  startRuntime(code);
  speech = await openSpeechNetwork(ears);
  transformer = motion && (await Network.open(motion));
  send({ kind: "ready" });
}

function begin({ turn, rate, fps, seed, headMotion }: BeginRequest): void {
  if (!speech) return;
  const life = transformer
    ? new GeneratedLife(transformer, headMotion, (part) => new SeededRandom(seed, part))
    : new RuledLife(IdleLife.seeded(seed, headMotion));
  talk = {
    turn,
    resampler: new Resampler(rate, SPEECH_RATE),
    stream: new MotionStream(speech, life, fps),
  };
}

async function hear({ turn, samples, last }: SoundRequest): Promise<void> {
  // Sound of a turn that is over may still be on its way.
  if (talk?.turn !== turn || turn !== latest) return;
  const { resampler, stream } = talk;
  answer(turn, false, await stream.push(resampler.push(samples)));
  if (!last) return;
  answer(turn, false, await stream.push(resampler.flush()));
  answer(turn, true, await stream.flush());
}

function answer(turn: number, last: boolean, motion: Motion): void {
  if (motion.pose.length === 0 && !last) return;
  send({ kind: "motion", turn, last, ...motion }, [motion.dyn.buffer, motion.pose.buffer]);
}

function send(message: Answer, transfer: Transferable[] = []): void {
  postMessage(message, { transfer });
}

let latest = 0;

onmessage = ({ data }: MessageEvent<Request>) => {
  if (data.kind === "begin") latest = data.turn;
  before = before
    .then(() => {
      if (data.kind === "open") return open(data);
      return data.kind === "begin" ? begin(data) : hear(data);
    })
    .catch((error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      send({ kind: "failure", turn: data.kind === "open" ? null : data.turn, message });
    });
};
