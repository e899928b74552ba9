/**
 * The web bundle of an avatar (docs/formats.md): the person's own head, and Gaussians that hang on it.
 * Values are brought to floats here, except the bytes of the residual's modes.
 */

import { FileError, TensorFile } from "./tensors";

const FORMAT = "vasa3d-web";
const VERSION = 1;
const MAX_GAUSSIANS = 400_000;
const LOG_LOW = Math.log(1e-6);
const LOG_HIGH = Math.log(0.3);
export const ATTRIBUTES = 14;
export const VAS_INPUTS = 59;

export interface Guard {
  joint: number;
  growth: number;
  vertices: Uint16Array;
  margins: Float32Array;
  axis: Float32Array;
  heights: Float32Array;
  falloffs: Float32Array;
}

/** The person's head: V vertices, J joints, C shapes, F faces that carry Gaussians. */
export interface HeadData {
  rest: Float32Array;
  jointsRest: Float32Array;
  parents: Int32Array;
  skinWeights: Float32Array;
  shapeChannels: Int16Array;
  shapeStarts: Int32Array;
  shapeVertices: Uint16Array;
  shapeDeltas: Float32Array;
  guards: Guard[];
  faces: Uint16Array;
  canonicalExpression: Float32Array;
  lipMiddles: Int32Array;
  mood: Float32Array;
  restEyes: Float32Array;
  neckShare: number;
  gazeRadians: [number, number];
}

/** N canonical Gaussians, the first S of them bound to faces. */
export interface GaussianData {
  count: number;
  means: Float32Array;
  quats: Float32Array;
  scales: Float32Array;
  opacities: Uint8Array;
  colors: Uint8Array;
  triangles: Uint16Array;
  layerWeights: Float32Array;
  rank: number;
  modes: Int8Array;
  reach: Float32Array;
  mixing: Float32Array;
}

export interface CameraData {
  viewmat: number[][];
  K: number[][];
  size: [number, number];
}

export interface AvatarData {
  head: HeadData;
  gaussians: GaussianData;
  camera: CameraData;
  target: [number, number, number];
  photoDyn: Float32Array;
  background: Uint8Array;
  backgroundFraming: number;
  provenance: Record<string, unknown>;
}

interface Header {
  format: string;
  version: number;
  camera: CameraData;
  target: [number, number, number];
  background_framing: number;
  neck_share: number;
  gaze_degrees: [number, number];
  guards: { joint: number; growth: number }[];
  provenance: Record<string, unknown>;
}

/** Read a bundle. Throws `FileError` when it is none, damaged or of a later version. */
export function readAvatar(bytes: ArrayBuffer): AvatarData {
  const file = new TensorFile(bytes);
  const header = file.header as unknown as Header;
  if (header.format !== FORMAT) throw new FileError("this is no avatar for the web");
  if (!(header.version <= VERSION)) {
    throw new FileError(`the avatar has version ${header.version}; this player reads ${VERSION}`);
  }
  const head = readHead(file, header);
  const gaussians = readGaussians(file, head);
  return {
    head,
    gaussians,
    camera: header.camera,
    target: header.target,
    photoDyn: file.get("photo_dyn", "F32", [52]),
    background: file.get("background", "U8", [-1]),
    backgroundFraming: header.background_framing,
    provenance: header.provenance,
  };
}

function readHead(file: TensorFile, header: Header): HeadData {
  const vertices = file.count("rest");
  const joints = file.count("joints_rest");
  const shapes = file.count("shape_channels");
  const starts = file.get("shape_starts", "I32", [shapes + 1]);
  const moved = file.count("shape_vertices");
  const steps = file.get("shape_steps", "F32", [shapes]);
  const raw = file.get("shape_deltas", "I16", [moved, 3]);
  const deltas = new Float32Array(raw.length);
  for (let shape = 0; shape < shapes; shape++) {
    const last = Math.min(starts[shape + 1]!, moved);
    for (let i = 3 * starts[shape]!; i < 3 * last; i++) deltas[i] = raw[i]! * steps[shape]!;
  }
  const head: HeadData = {
    rest: file.get("rest", "F32", [vertices, 3]),
    jointsRest: file.get("joints_rest", "F32", [joints, 3]),
    parents: file.get("joint_parents", "I32", [joints]),
    skinWeights: Float32Array.from(
      file.get("skin_weights", "U16", [vertices, joints]),
      (w) => w / 65535,
    ),
    shapeChannels: file.get("shape_channels", "I16", [shapes, 2]),
    shapeStarts: starts,
    shapeVertices: file.get("shape_vertices", "U16", [moved]),
    shapeDeltas: deltas,
    guards: header.guards.map(({ joint, growth }, i) => ({
      joint,
      growth,
      vertices: file.get(`guard${i}_vertices`, "U16", [-1]),
      margins: file.get(`guard${i}_margins`, "F32", [-1]),
      axis: file.get(`guard${i}_axis`, "F32", [3]),
      heights: file.get(`guard${i}_heights`, "F32", [-1]),
      falloffs: file.get(`guard${i}_falloffs`, "F32", [-1]),
    })),
    faces: file.get("faces", "U16", [-1, 3]),
    canonicalExpression: file.get("canonical_expression", "F32", [52]),
    lipMiddles: file.get("lip_middles", "I32", [2]),
    mood: file.get("mood", "F32", [52]),
    restEyes: file.get("rest_eyes", "F32", [2, 3]),
    neckShare: header.neck_share,
    gazeRadians: [radians(header.gaze_degrees[0]), radians(header.gaze_degrees[1])],
  };
  checkIndices("faces", head.faces, vertices);
  checkIndices("shape_vertices", head.shapeVertices, vertices);
  for (const guard of head.guards) checkIndices("a guard", guard.vertices, vertices);
  return head;
}

function readGaussians(file: TensorFile, head: HeadData): GaussianData {
  const count = file.count("means");
  if (count < 1 || count > MAX_GAUSSIANS) throw new FileError(`${count} Gaussians`);
  const bound = file.count("triangles");
  const joints = head.parents.length;
  const rank = file.count("vas_modes");
  const range = file.get("means_range", "F32", [2, 3]);
  const means = Float32Array.from(file.get("means", "U16", [count, 3]), (value, i) => {
    const low = range[i % 3]!;
    return low + (value / 65535) * (range[3 + (i % 3)]! - low);
  });
  const quats = Float32Array.from(file.get("quats", "I8", [count, 4]));
  for (let i = 0; i < quats.length; i += 4) {
    const length = Math.hypot(quats[i]!, quats[i + 1]!, quats[i + 2]!, quats[i + 3]!);
    for (let k = i; k < i + 4; k++) quats[k]! /= length;
  }
  const weights = Float32Array.from(file.get("layer_weights", "U8", [count - bound, joints]));
  for (let i = 0; i < weights.length; i += joints) {
    let total = 0;
    for (let k = i; k < i + joints; k++) total += weights[k]!;
    for (let k = i; k < i + joints; k++) weights[k]! /= total;
  }
  const triangles = file.get("triangles", "U16", [bound]);
  checkIndices("triangles", triangles, head.faces.length / 3);
  return {
    count,
    means,
    quats,
    scales: Float32Array.from(file.get("scales", "U16", [count, 3]), (value) =>
      Math.exp(LOG_LOW + (value / 65535) * (LOG_HIGH - LOG_LOW)),
    ),
    opacities: file.get("opacities", "U8", [count]),
    colors: file.get("colors", "U8", [count, 3]),
    triangles,
    layerWeights: weights,
    rank,
    modes: file.get("vas_modes", "I8", [rank, count, ATTRIBUTES]),
    reach: file.get("vas_reach", "F32", [rank, ATTRIBUTES]),
    mixing: file.get("vas_mixing", "F32", [rank, VAS_INPUTS]),
  };
}

function radians(degrees: number): number {
  return (degrees * Math.PI) / 180;
}

function checkIndices(name: string, values: Uint16Array, limit: number): void {
  for (const value of values) {
    if (value >= limit) throw new FileError(`${name} point beyond the head`);
  }
}
