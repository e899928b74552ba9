/** Made by scripts/make_web_types.py from the Python package; do not edit. */

export const PROTOCOL_VERSION = 1;
export const SUBPROTOCOL = "vasa3d.v1";
export const BEARER_PREFIX = "bearer.";
export const MIN_RATE = 8000;
export const MAX_RATE = 48000;
export const MAX_BLOCK_BYTES = 96008;
export const OPUS_RATE = 48000;
export const MOTION_HEADER_BYTES = 8;
export const MOTION_FRAME_BYTES = 128;

export const CHANNELS = ["eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft", "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight", "eyeSquintRight", "eyeWideRight", "jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRight", "mouthLeft", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut"] as const;
export type Channel = (typeof CHANNELS)[number];

/** Offsets of the channels at full strength; a name without Left or Right stands for both. */
export const EMOTIONS: Record<string, Record<string, number>> = {"neutral": {}, "happy": {"mouthSmile": 0.5, "cheekSquint": 0.35, "eyeSquint": 0.2, "mouthDimple": 0.1, "browInnerUp": 0.05, "browOuterUp": 0.05}, "sad": {"browInnerUp": 0.55, "mouthFrown": 0.4, "browDown": 0.1, "eyeSquint": 0.1, "mouthShrugLower": 0.12, "eyeLookDown": 0.1}, "angry": {"browDown": 0.7, "noseSneer": 0.3, "eyeSquint": 0.3, "mouthFrown": 0.2, "mouthPress": 0.12, "mouthStretch": 0.08}, "surprised": {"browInnerUp": 0.6, "browOuterUp": 0.65, "eyeWide": 0.65, "jawOpen": 0.05}, "afraid": {"browInnerUp": 0.65, "browOuterUp": 0.2, "eyeWide": 0.5, "mouthStretch": 0.3}, "disgusted": {"noseSneer": 0.45, "browDown": 0.35, "mouthUpperUp": 0.2, "mouthFrown": 0.2, "eyeSquint": 0.2}};

/** A turn begins: sound follows. A turn that was under way is interrupted. */
export interface Start {
  type: "start";
  turn: number;
  rate: number;
  codec?: string;
  fps?: number;
  seed?: number;
  amplitude?: number;
  head_motion?: number;
  gaze?: [number, number];
  emotion?: Record<string, number>;
}

/** The sound of a turn is complete; the server answers with the rest of its motion and ``Done``. */
export interface End {
  type: "end";
  turn: number;
}

/** The turn under way is over at once; what is not yet sent of it is dropped. */
export interface Interrupt {
  type: "interrupt";
}

/** First message of the server. */
export interface Ready {
  type: "ready";
  version: number;
  max_ahead_seconds: number;
  max_session_seconds: number;
}

/** All motion of a turn is sent. */
export interface Done {
  type: "done";
  turn: number;
  frames: number;
}

/** A turn is over before its end; nothing of it follows. */
export interface Interrupted {
  type: "interrupted";
  turn: number;
}

/** The client reads too slowly: old frames of a turn were left out. */
export interface Dropped {
  type: "dropped";
  turn: number;
  frames: number;
}

/** Something is wrong; a close of the socket follows unless ``fatal`` is false. */
export interface Failure {
  type: "failure";
  message: string;
  hint: string;
  fatal: boolean;
}

export type ClientMessage = Start | End | Interrupt;

export type ServerMessage = Ready | Done | Interrupted | Dropped | Failure;
