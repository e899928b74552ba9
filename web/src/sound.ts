/** Sound in and out of the page. What is heard is the clock that the face follows. */

/** Samples a second of sound that is sent to be turned into motion. */
export const SPEECH_RATE = 16_000;
const START_DELAY_SECONDS = 0.05;
const BLOCK_SECONDS = 0.04;
const MOST_WAKE_MILLISECONDS = 5_000;

let shared: AudioContext | null = null;

/** The page's audio context; browsers let it sound once the user has done something. */
export function audioContext(): AudioContext {
  shared ??= new AudioContext({ latencyHint: "interactive" });
  return shared;
}

/** Let the page sound: browsers want that to be asked for at once when the user does something. */
export function wakeSound(): void {
  void audioContext().resume();
}

/**
 * Wait until the page can sound.
 *
 * @throws Error if that takes too long: browsers say nothing where they do not allow it or find no device.
 */
async function soundReady(context: AudioContext): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, fail) => {
    const error = new Error(
      "this browser opens no sound: press a button of the page, and see that there is a loudspeaker",
    );
    timer = setTimeout(() => fail(error), MOST_WAKE_MILLISECONDS);
  });
  await Promise.race([context.resume(), late]).finally(() => clearTimeout(timer));
}

/** A recording, to be heard and to be turned into motion. */
export interface Recording {
  sound: AudioBuffer;
  /** Mono, `SPEECH_RATE` a second. */
  speech: Float32Array<ArrayBuffer>;
}

/** Fetch and decode a sound file. */
export async function decodeSound(source: string | Blob): Promise<AudioBuffer> {
  return decoded(audioContext(), await soundBytes(source));
}

/** Fetch and decode a recording of speech. */
export async function decodeSpeech(source: string | Blob): Promise<Recording> {
  const bytes = await soundBytes(source);
  // Decoded again rather than played at another rate, which would fold what is too high for it.
  const narrow = new OfflineAudioContext(1, 1, SPEECH_RATE);
  const [sound, speech] = await Promise.all([
    decoded(audioContext(), bytes.slice(0)),
    decoded(narrow, bytes),
  ]);
  return { sound, speech: mixed(speech) };
}

async function soundBytes(source: string | Blob): Promise<ArrayBuffer> {
  return typeof source === "string" ? fetchBytes(source) : source.arrayBuffer();
}

async function decoded(context: BaseAudioContext, bytes: ArrayBuffer): Promise<AudioBuffer> {
  try {
    return await context.decodeAudioData(bytes);
  } catch {
    throw new Error(
      "this browser finds no sound in that file that it can decode; try WAV, MP3 or FLAC",
    );
  }
}

/** Mean of all channels. */
function mixed(sound: AudioBuffer): Float32Array<ArrayBuffer> {
  const out = new Float32Array(sound.length);
  for (let c = 0; c < sound.numberOfChannels; c++) {
    const samples = sound.getChannelData(c);
    for (let i = 0; i < out.length; i++) out[i] += samples[i] / sound.numberOfChannels;
  }
  return out;
}

/** How much of a file has come, in bytes. */
export type OnProgress = (loaded: number, total: number) => void;

/** Fetch a file; `onProgress` is called where its size is known beforehand. */
export async function fetchBytes(
  url: string,
  token?: string,
  onProgress?: OnProgress,
): Promise<ArrayBuffer> {
  const options = token ? { headers: { Authorization: `Bearer ${token}` } } : {};
  let answer: Response;
  try {
    answer = await fetch(url, options);
  } catch {
    throw new Error(`${url} could not be loaded: its server does not answer`);
  }
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  const packed = answer.headers.get("content-encoding") !== null;
  const total = packed ? 0 : Number(answer.headers.get("content-length"));
  if (!onProgress || !answer.body || !(total > 0)) return answer.arrayBuffer();
  let loaded = 0;
  const counted = new TransformStream<Uint8Array, Uint8Array<ArrayBuffer>>({
    transform(piece, out) {
      loaded += piece.length;
      onProgress(loaded, total);
      out.enqueue(piece as Uint8Array<ArrayBuffer>);
    },
  });
  return new Response(answer.body.pipeThrough(counted)).arrayBuffer();
}

export function toInt16(samples: Float32Array): Int16Array<ArrayBuffer> {
  return Int16Array.from(samples, (x) => Math.round(Math.min(Math.max(x, -1), 1) * 32767));
}

/** Sound that is played piece by piece, without gaps while pieces come in time. */
export class SoundOutput {
  private readonly context = audioContext();
  private readonly gain = this.context.createGain();
  private readonly playing = new Set<AudioBufferSourceNode>();
  private waiting: AudioBuffer[] = [];
  private startTime: number | null = null;
  private endTime = 0;
  private complete = false;
  /** Pauses that late pieces have made, as [time, length]. */
  private readonly pauses: [number, number][] = [];

  constructor() {
    this.gain.connect(this.context.destination);
  }

  /** More sound. */
  push(sound: AudioBuffer): void {
    if (this.startTime === null) this.waiting.push(sound);
    else this.schedule(sound);
  }

  /** Mono samples of any rate. */
  pushSamples(samples: Float32Array<ArrayBuffer>, rate: number): void {
    const buffer = this.context.createBuffer(1, Math.max(1, samples.length), rate);
    buffer.copyToChannel(samples, 0);
    this.push(buffer);
  }

  /** Nothing more will come. */
  end(): void {
    this.complete = true;
  }

  /** Begin to sound. */
  async start(): Promise<void> {
    await soundReady(this.context);
    if (this.startTime !== null) return;
    this.startTime = this.endTime = this.context.currentTime + START_DELAY_SECONDS;
    const { waiting } = this;
    this.waiting = [];
    for (const sound of waiting) this.schedule(sound);
  }

  /** Seconds of the sound that have been heard by now. */
  get seconds(): number {
    if (this.startTime === null) return 0;
    const latency = this.context.outputLatency || this.context.baseLatency || 0;
    const now = this.context.currentTime - latency;
    let paused = 0;
    for (const [time, length] of this.pauses) {
      paused += Math.min(Math.max(now - time, 0), length);
    }
    return Math.min(now, this.endTime) - this.startTime - paused;
  }

  get finished(): boolean {
    return this.complete && this.startTime !== null && this.context.currentTime >= this.endTime;
  }

  stop(): void {
    this.complete = true;
    this.endTime = Math.min(this.endTime, this.context.currentTime);
    for (const source of this.playing) source.stop();
    this.gain.disconnect();
  }

  private schedule(sound: AudioBuffer): void {
    const source = this.context.createBufferSource();
    source.buffer = sound;
    source.connect(this.gain);
    const now = this.context.currentTime;
    if (now > this.endTime) {
      this.pauses.push([this.endTime, now - this.endTime]);
      this.endTime = now;
    }
    source.start(this.endTime);
    this.endTime += sound.duration;
    this.playing.add(source);
    source.onended = () => this.playing.delete(source);
  }
}

const CAPTURE = `
registerProcessor("vasa3d-capture", class extends AudioWorkletProcessor {
  process([input]) {
    if (input[0]) this.port.postMessage(input[0].slice());
    return true;
  }
});`;

/** Mono blocks of a microphone or any other stream; returns how to stop. */
export async function captureStream(
  stream: MediaStream,
  onBlock: (samples: Float32Array, rate: number) => void,
): Promise<() => void> {
  const context = audioContext();
  await soundReady(context);
  const url = URL.createObjectURL(new Blob([CAPTURE], { type: "text/javascript" }));
  try {
    await context.audioWorklet.addModule(url);
  } finally {
    URL.revokeObjectURL(url);
  }
  const source = context.createMediaStreamSource(stream);
  const node = new AudioWorkletNode(context, "vasa3d-capture", {
    numberOfOutputs: 0,
    channelCount: 1,
    channelCountMode: "explicit",
  });
  const block = new Float32Array(Math.round(BLOCK_SECONDS * context.sampleRate));
  let filled = 0;
  node.port.onmessage = ({ data }: MessageEvent<Float32Array>) => {
    for (const value of data) {
      block[filled++] = value;
      if (filled === block.length) {
        onBlock(block.slice(), context.sampleRate);
        filled = 0;
      }
    }
  };
  source.connect(node);
  return () => {
    node.port.onmessage = null;
    source.disconnect();
    node.disconnect();
  };
}
