/** The page's side of `vasa3d serve`: sound up, motion down (docs/protocol.md). */

import {
  BEARER_PREFIX,
  MAX_BLOCK_BYTES,
  MAX_RATE,
  MIN_RATE,
  MOTION_FRAME_BYTES,
  MOTION_HEADER_BYTES,
  OPUS_RATE,
  SUBPROTOCOL,
  type ClientMessage,
  type ServerMessage,
  type Start,
} from "./generated";
import { MotionTrack, NUM_CHANNELS } from "./motion";
import { OpusEncoder, opusRates } from "./opus";
import { toInt16 } from "./sound";
import { roomIn, SPEECH_FPS, type Speaker, type SpeakerEvents, type Turn } from "./speaker";
import { Resampler } from "./speech/resample";

const MAX_SAMPLES = (MAX_BLOCK_BYTES - 8) >> 1;

class LiveTurn implements Turn {
  readonly track: MotionTrack;
  complete = false;
  cancelled = false;
  private readonly encoder: OpusEncoder | null = null;
  private readonly resampler: Resampler;
  private block = 0;
  private samples = 0;

  /**
   * @param from Samples a second of what is pushed.
   * @param rate Samples a second of what is sent.
   */
  constructor(
    private readonly link: LiveLink,
    readonly number: number,
    from: number,
    private readonly rate: number,
    fps: number,
    coded: boolean,
  ) {
    this.track = new MotionTrack(fps);
    this.resampler = new Resampler(from, rate);
    if (!coded) return;
    const onPacket = (packet: Uint8Array<ArrayBuffer>) => this.sendBlock(packet);
    this.encoder = new OpusEncoder(rate, onPacket, () => this.fail());
  }

  get over(): boolean {
    return this.complete || this.cancelled;
  }

  async push(samples: Float32Array): Promise<void> {
    const sound = this.resampler.push(samples);
    for (let from = 0; from < sound.length && !this.over; from += MAX_SAMPLES) {
      this.give(sound.subarray(from, from + MAX_SAMPLES));
      await roomIn(this, this.samples / this.rate);
    }
  }

  end(): void {
    if (!this.over) this.give(this.resampler.flush());
    const complete = () => {
      if (!this.over) this.link.send({ type: "end", turn: this.number });
    };
    if (this.encoder) void this.encoder.end().then(complete, () => this.fail());
    else complete();
  }

  cancel(): void {
    this.cancelled = true;
    this.encoder?.close();
  }

  private give(sound: Float32Array): void {
    if (sound.length === 0) return;
    if (this.encoder) this.encoder.push(sound);
    // Int16Array has the machine's byte order, which is little-endian wherever browsers run.
    else this.sendBlock(new Uint8Array(toInt16(sound).buffer));
    this.samples += sound.length;
  }

  /** The encoder has given up; one that a cancelled turn closes says so too. */
  private fail(): void {
    if (!this.over) this.link.spoil("this browser could not encode the sound");
  }

  private sendBlock(sound: Uint8Array<ArrayBuffer>): void {
    if (this.over) return;
    const message = new Uint8Array(8 + sound.length);
    const head = new DataView(message.buffer);
    head.setUint32(0, this.number, true);
    head.setUint32(4, this.block++, true);
    message.set(sound, 8);
    this.link.sendBytes(message.buffer);
  }
}

export interface LiveEvents extends SpeakerEvents {
  /** `cut` tells that it ends a turn that was under way. */
  onClose: (code: number, reason: string, cut: boolean) => void;
}

export class LiveLink implements Speaker {
  private turns = 0;
  private turn: LiveTurn | null = null;

  private constructor(
    private readonly socket: WebSocket,
    private readonly events: LiveEvents,
    private readonly codedRates: ReadonlySet<number>,
  ) {
    socket.onmessage = ({ data }) => this.receive(data as string | ArrayBuffer);
    socket.onclose = ({ code, reason }) => {
      // A server that has nothing more to do for a turn may leave while it is still heard.
      const { turn } = this;
      const cut = turn !== null && !turn.over;
      if (cut) turn.cancel();
      events.onClose(code, reason, cut);
    };
  }

  /**
   * Connect; resolves when the server is ready. Sound is coded on its way to another computer, if the browser
   * can do that.
   */
  static async open(url: string, events: LiveEvents, token?: string): Promise<LiveLink> {
    const codedRates = isHere(url) ? new Set<number>() : await opusRates();
    const protocols = token ? [SUBPROTOCOL, BEARER_PREFIX + token] : [SUBPROTOCOL];
    const socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    return new Promise((done, fail) => {
      socket.onclose = ({ reason }) =>
        fail(new Error(reason || "the server does not answer; it may have been stopped"));
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data as string) as ServerMessage;
        if (message.type === "ready") done(new LiveLink(socket, events, codedRates));
        else if (message.type === "failure") fail(new Error(message.message));
      };
    });
  }

  get open(): boolean {
    return this.socket.readyState === WebSocket.OPEN;
  }

  /** Begin an utterance; one under way is interrupted. */
  begin(
    rate: number,
    options: Partial<Omit<Start, "type" | "turn" | "rate" | "codec">> = {},
  ): Turn {
    this.turn?.cancel();
    const fps = options.fps ?? SPEECH_FPS;
    // Sound cards may run at rates that servers do not take.
    const sent = MIN_RATE <= rate && rate <= MAX_RATE ? Math.round(rate) : MAX_RATE;
    const coded = this.codedRates.has(sent);
    const turn = new LiveTurn(this, ++this.turns, rate, sent, fps, coded);
    this.turn = turn;
    if (!this.open) this.spoil("the connection has ended");
    const sound = coded
      ? ({ rate: OPUS_RATE, codec: "opus" } as const)
      : ({ rate: sent, codec: "pcm" } as const);
    this.send({ type: "start", turn: turn.number, ...sound, ...options, fps });
    return turn;
  }

  interrupt(): void {
    if (!this.turn || this.turn.over) return;
    this.turn.cancel();
    this.send({ type: "interrupt" });
  }

  /** End the utterance under way and say why. */
  spoil(message: string): void {
    this.events.onFailure(message);
    this.interrupt();
  }

  close(): void {
    this.interrupt();
    this.socket.close(1000);
  }

  send(message: ClientMessage): void {
    if (this.open) this.socket.send(JSON.stringify(message));
  }

  sendBytes(message: ArrayBuffer): void {
    if (this.open) this.socket.send(message);
  }

  private receive(data: string | ArrayBuffer): void {
    if (typeof data !== "string") {
      this.receiveMotion(data);
      return;
    }
    const message = JSON.parse(data) as ServerMessage;
    const { turn } = this;
    if (message.type === "failure") {
      // What ends the session between turns spoils none.
      if (!turn || turn.over) return;
      this.events.onFailure(message.message);
      turn.cancel();
    } else if (message.type === "done" && turn?.number === message.turn) {
      turn.complete = true;
    }
  }

  private receiveMotion(data: ArrayBuffer): void {
    const head = new DataView(data);
    const { turn } = this;
    if (!turn || turn.over || head.getUint32(0, true) !== turn.number) return;
    const first = head.getUint32(4, true);
    const frames = Math.floor((data.byteLength - MOTION_HEADER_BYTES) / MOTION_FRAME_BYTES);
    const dyn = new Float32Array(frames * NUM_CHANNELS);
    const pose = new Float32Array(frames * 6);
    for (let f = 0; f < frames; f++) {
      const at = MOTION_HEADER_BYTES + f * MOTION_FRAME_BYTES;
      for (let i = 0; i < NUM_CHANNELS; i++) {
        dyn[f * NUM_CHANNELS + i] = head.getUint16(at + 2 * i, true) / 65535;
      }
      for (let i = 0; i < 6; i++) {
        pose[f * 6 + i] = head.getFloat32(at + 2 * NUM_CHANNELS + 4 * i, true);
      }
    }
    // Frames that were dropped on the way are bridged by the next ones, so that times stay right.
    while (frames > 0 && turn.track.length < first) {
      turn.track.append(dyn.subarray(0, NUM_CHANNELS), pose.subarray(0, 6));
    }
    turn.track.append(dyn, pose);
  }
}

/** The token for a request to an address: a server's token is nobody else's business. */
export function tokenFor(
  address: string,
  options: { server?: string | null; token?: string },
): string | undefined {
  return originOf(address) === originOf(options.server ?? "") ? options.token : undefined;
}

/** Whose an address is, be it of a socket; an empty one is the page's. */
function originOf(address: string): string {
  const url = new URL(address, location.href);
  url.protocol = url.protocol.replace("ws", "http");
  return url.origin;
}

/** Whether an address is of this computer, where sound need not be made small. */
function isHere(url: string): boolean {
  return ["localhost", "127.0.0.1", "[::1]"].includes(new URL(url).hostname);
}
