/** Small helpers of WebGL 2: programs, and tables: textures that hold arrays row after row. */

import type { Sources } from "./shaders";

const TABLE_WIDTH = 4096;
const LIMITS = new WeakMap<WebGL2RenderingContext, number>();

/** A linked program and the places of its uniforms. */
export class Program {
  private readonly places = new Map<string, WebGLUniformLocation | null>();

  constructor(
    private readonly gl: WebGL2RenderingContext,
    readonly handle: WebGLProgram,
  ) {}

  place(name: string): WebGLUniformLocation | null {
    let found = this.places.get(name);
    if (found === undefined) {
      found = this.gl.getUniformLocation(this.handle, name);
      this.places.set(name, found);
    }
    return found;
  }
}

/** Compile and link; throws what the driver says. */
export function createProgram(gl: WebGL2RenderingContext, sources: Sources): Program {
  const handle = gl.createProgram();
  const shaders = [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].map((kind, i) => {
    const shader = gl.createShader(kind);
    if (!shader) throw new Error("the graphics driver has stopped");
    gl.shaderSource(shader, sources[i]!);
    gl.compileShader(shader);
    gl.attachShader(handle, shader);
    return shader;
  });
  gl.linkProgram(handle);
  if (!gl.getProgramParameter(handle, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = [gl.getProgramInfoLog(handle), ...shaders.map((s) => gl.getShaderInfoLog(s))];
    throw new Error(logs.join(" "));
  }
  return new Program(gl, handle);
}

type Kind = "F32" | "U8" | "I8" | "U32";

/** Internal format, format, type and values of a texel. */
function kindOf(gl: WebGL2RenderingContext, type: Kind): [number, number, number, number] {
  const kinds: Record<Kind, [number, number, number, number]> = {
    F32: [gl.RGBA32F, gl.RGBA, gl.FLOAT, 4],
    U8: [gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, 4],
    I8: [gl.RGBA8I, gl.RGBA_INTEGER, gl.BYTE, 4],
    U32: [gl.R32UI, gl.RED_INTEGER, gl.UNSIGNED_INT, 1],
  };
  return kinds[type];
}

/** Make a table of `texels` texels and bind it to its unit for good; returns width and height. */
export function createTable(
  gl: WebGL2RenderingContext,
  unit: number,
  type: Kind,
  texels: number,
): [number, number] {
  const width = tableWidth(gl);
  const height = Math.max(1, Math.ceil(texels / width));
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texStorage2D(gl.TEXTURE_2D, 1, kindOf(gl, type)[0], width, height);
  sampleNearest(gl);
  return [width, height];
}

/** Write a table from its beginning on. */
export function setTable(
  gl: WebGL2RenderingContext,
  unit: number,
  values: Float32Array | Uint8Array | Int8Array | Uint32Array,
): void {
  const type: Kind =
    values instanceof Float32Array
      ? "F32"
      : values instanceof Uint32Array
        ? "U32"
        : values instanceof Int8Array
          ? "I8"
          : "U8";
  const [, format, kind, size] = kindOf(gl, type);
  const width = tableWidth(gl);
  const texels = values.length / size;
  const rows = Math.floor(texels / width);
  const target = gl.TEXTURE_2D;
  gl.activeTexture(gl.TEXTURE0 + unit);
  if (rows > 0) gl.texSubImage2D(target, 0, 0, 0, width, rows, format, kind, values);
  const rest = texels - rows * width;
  if (rest > 0) {
    gl.texSubImage2D(target, 0, 0, rows, rest, 1, format, kind, values, rows * width * size);
  }
}

export function sampleNearest(gl: WebGL2RenderingContext): void {
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
}

function tableWidth(gl: WebGL2RenderingContext): number {
  let limit = LIMITS.get(gl);
  if (limit === undefined) {
    limit = Math.min(TABLE_WIDTH, gl.getParameter(gl.MAX_TEXTURE_SIZE) as number);
    LIMITS.set(gl, limit);
  }
  return limit;
}
