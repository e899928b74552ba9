/**
 * Draws posed Gaussians with WebGL 2: a pass that makes a splat of each, a pass that blends them back to
 * front, premultiplied, into half floats (bytes lose a rounding with each of some fifty layers), and one
 * that lays the result over the background.
 */

import { ATTRIBUTES, type AvatarData } from "./avatar";
import type { View } from "./camera";
import { createProgram, createTable, Program, sampleNearest, setTable } from "./gl";
import { NEAR, type PosedFrame } from "./poser";
import { projectionShaders, SCREEN_SHADERS, SPLAT_SHADERS } from "./shaders";

const UNITS = {
  geometry: 0,
  tint: 1,
  hold: 2,
  maps: 3,
  modes: 4,
  order: 5,
  places: 6,
  extents: 7,
  shades: 8,
  drawn: 9,
  picture: 10,
} as const;
const MAX_JOINTS = 8;

/** What is behind the head: the photo's own scene, nothing, or a colour in [0, 1]. */
export type Background = "original" | "transparent" | readonly [number, number, number];

/** The browser or its graphics driver cannot draw. */
export class GraphicsError extends Error {}

export class Renderer {
  private readonly gl: WebGL2RenderingContext;
  private readonly projection: Program;
  private readonly splats: Program;
  private readonly screen: Program;
  private readonly table: [number, number];
  private readonly tableBuffer: WebGLFramebuffer;
  private readonly frameBuffer: WebGLFramebuffer;
  private readonly frameTexture: WebGLTexture;
  private drawnSize: [number, number] = [0, 0];
  private count = 0;
  private hasPicture = false;

  constructor(
    canvas: HTMLCanvasElement,
    private readonly avatar: AvatarData,
  ) {
    const options = { alpha: true, antialias: false, depth: false, premultipliedAlpha: true };
    const gl = canvas.getContext("webgl2", options) as WebGL2RenderingContext | null;
    if (!gl)
      throw new GraphicsError(
        "there is no WebGL 2 here: switch on the browser's graphics acceleration, or take a newer one",
      );
    if (!gl.getExtension("EXT_color_buffer_float")) {
      throw new GraphicsError("this browser cannot draw into float textures");
    }
    this.gl = gl;
    const { head, gaussians } = avatar;
    const joints = head.parents.length;
    if (joints > MAX_JOINTS) throw new GraphicsError(`${joints} joints are too many`);
    this.projection = createProgram(gl, projectionShaders(joints, gaussians.rank));
    this.splats = createProgram(gl, SPLAT_SHADERS);
    this.screen = createProgram(gl, SCREEN_SHADERS);
    this.uploadGaussians();
    createTable(gl, UNITS.maps, "F32", head.faces.length);
    this.table = createTable(gl, UNITS.places, "F32", gaussians.count);
    createTable(gl, UNITS.extents, "F32", gaussians.count);
    createTable(gl, UNITS.shades, "F32", gaussians.count);
    createTable(gl, UNITS.order, "U32", gaussians.count);
    this.tableBuffer = this.attach([UNITS.places, UNITS.extents, UNITS.shades]);
    this.frameBuffer = gl.createFramebuffer();
    this.frameTexture = gl.createTexture();
    this.makeQuads(gaussians.count);
    this.bindUnits();
    gl.activeTexture(gl.TEXTURE0 + UNITS.picture);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    gl.disable(gl.DEPTH_TEST);
    if (gl.getError() !== gl.NO_ERROR && !gl.isContextLost()) {
      throw new GraphicsError("the graphics driver refuses the avatar");
    }
  }

  /** Show the scene behind the person once its picture is decoded. */
  setPicture(picture: ImageBitmap): void {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + UNITS.picture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, picture);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    this.hasPicture = true;
  }

  /** Take a frame of the poser. */
  setFrame(frame: PosedFrame, samePose: boolean): void {
    const { gl, projection } = this;
    if (!samePose) {
      setTable(gl, UNITS.maps, frame.maps);
      gl.useProgram(projection.handle);
      gl.uniform4fv(projection.place("jointMaps"), frame.jointMaps);
      if (frame.factors.length > 0) gl.uniform4fv(projection.place("factors"), frame.factors);
    }
    setTable(gl, UNITS.order, frame.order);
    this.count = frame.drawn;
  }

  /** Draw the last frame. */
  draw(view: View, background: Background): void {
    this.resize(view.width, view.height);
    this.project(view);
    this.blend(view);
    this.compose(view, background);
  }

  /** Give the graphics memory back. */
  dispose(): void {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  private project(view: View): void {
    const { gl, projection, table } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.tableBuffer);
    gl.viewport(0, 0, ...table);
    gl.disable(gl.BLEND);
    gl.useProgram(projection.handle);
    gl.uniform4fv(projection.place("view"), view.view);
    gl.uniform2fv(projection.place("focal"), view.focal);
    gl.uniform2fv(projection.place("centre"), view.centre);
    gl.uniform2f(projection.place("size"), view.width, view.height);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  private blend(view: View): void {
    const { gl, splats } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frameBuffer);
    gl.viewport(0, 0, view.width, view.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.useProgram(splats.handle);
    gl.uniform2f(splats.place("size"), view.width, view.height);
    gl.drawElements(gl.TRIANGLES, 6 * this.count, gl.UNSIGNED_INT, 0);
  }

  private compose(view: View, background: Background): void {
    const { gl, screen } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.disable(gl.BLEND);
    gl.useProgram(screen.handle);
    gl.uniform2f(screen.place("size"), view.width, view.height);
    gl.uniform4fv(screen.place("behind"), this.behind(background));
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  private behind(background: Background): number[] {
    if (background === "transparent") return [0, 0, 0, 0];
    if (background === "original") return this.hasPicture ? [0, 0, 0, -1] : [0, 0, 0, 0];
    return [...background, 1];
  }

  private resize(width: number, height: number): void {
    if (this.drawnSize[0] === width && this.drawnSize[1] === height) return;
    const { gl } = this;
    this.drawnSize = [width, height];
    gl.activeTexture(gl.TEXTURE0 + UNITS.drawn);
    gl.bindTexture(gl.TEXTURE_2D, this.frameTexture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, width, height, 0, gl.RGBA, gl.HALF_FLOAT, null);
    sampleNearest(gl);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frameBuffer);
    const [target, point] = [gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0];
    gl.framebufferTexture2D(target, point, gl.TEXTURE_2D, this.frameTexture, 0);
  }

  /** A framebuffer that draws into the tables of these units. */
  private attach(units: number[]): WebGLFramebuffer {
    const { gl } = this;
    const buffer = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
    const points = units.map((unit, i) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      const texture = gl.getParameter(gl.TEXTURE_BINDING_2D) as WebGLTexture;
      const point = gl.COLOR_ATTACHMENT0 + i;
      gl.framebufferTexture2D(gl.FRAMEBUFFER, point, gl.TEXTURE_2D, texture, 0);
      return point;
    });
    gl.drawBuffers(points);
    return buffer;
  }

  /** Two triangles for each of four consecutive vertices: quads share what the shader computes. */
  private makeQuads(count: number): void {
    const { gl } = this;
    const indices = new Uint32Array(6 * count);
    for (let n = 0; n < count; n++) {
      indices.set([4 * n, 4 * n + 1, 4 * n + 2, 4 * n + 2, 4 * n + 1, 4 * n + 3], 6 * n);
    }
    gl.bindVertexArray(gl.createVertexArray());
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);
  }

  /** What the programs are told once. */
  private bindUnits(): void {
    const { gl, projection, splats, screen } = this;
    for (const program of [projection, splats, screen]) {
      gl.useProgram(program.handle);
      for (const [name, unit] of Object.entries(UNITS)) gl.uniform1i(program.place(name), unit);
    }
    gl.uniform1f(screen.place("framing"), this.avatar.backgroundFraming);
    gl.useProgram(projection.handle);
    gl.uniform1i(projection.place("bound"), this.avatar.gaussians.triangles.length);
    gl.uniform1i(projection.place("count"), this.avatar.gaussians.count);
    gl.uniform1i(projection.place("tableWidth"), this.table[0]);
    gl.uniform1f(projection.place("near"), NEAR);
  }

  /** Everything about the Gaussians that stays the same from frame to frame. */
  private uploadGaussians(): void {
    const { gl } = this;
    const { head, gaussians: g } = this.avatar;
    const bound = g.triangles.length;
    const geometry = new Float32Array(12 * g.count);
    const tint = new Uint8Array(4 * g.count);
    for (let n = 0; n < g.count; n++) {
      geometry.set(g.means.subarray(3 * n, 3 * n + 3), 12 * n);
      geometry[12 * n + 3] = n < bound ? g.triangles[n]! : 0;
      geometry.set(g.quats.subarray(4 * n, 4 * n + 4), 12 * n + 4);
      geometry.set(g.scales.subarray(3 * n, 3 * n + 3), 12 * n + 8);
      tint.set(g.colors.subarray(3 * n, 3 * n + 3), 4 * n);
      tint[4 * n + 3] = g.opacities[n]!;
    }
    const joints = head.parents.length;
    const hold = new Float32Array(MAX_JOINTS * (g.count - bound));
    for (let n = 0; n < g.count - bound; n++) {
      hold.set(g.layerWeights.subarray(joints * n, joints * (n + 1)), MAX_JOINTS * n);
    }
    const modes = new Int8Array(16 * g.count * g.rank);
    for (let r = 0; r < g.rank; r++) {
      for (let n = 0; n < g.count; n++) {
        const from = (r * g.count + n) * ATTRIBUTES;
        modes.set(g.modes.subarray(from, from + ATTRIBUTES), 16 * (n * g.rank + r));
      }
    }
    for (const [unit, type, values] of [
      [UNITS.geometry, "F32", geometry],
      [UNITS.tint, "U8", tint],
      [UNITS.hold, "F32", hold],
      [UNITS.modes, "I8", modes],
    ] as const) {
      createTable(gl, unit, type, values.length / 4);
      setTable(gl, unit, values);
    }
  }
}
