/**
 * The shaders. First each Gaussian becomes a pixel of three float textures: `POSE` moves it from canonical
 * space into the world (kernels/residual.py, kernels/posing.py), `PROJECT` makes a splat of it
 * (kernels/projection.py). Then quads are drawn in order and blended (kernels/rasterization.py). A splat
 * covers a pixel by o exp(-q), q the conic at the pixel's centre, wherever that is at least 1/255; 0.3
 * square pixels are added to its variance. A quad spans that ellipse, so q = reach (u^2 + v^2) with
 * reach = ln(255 o) and u, v from -1 to 1 along its axes.
 */

const HEADER = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp isampler2D;
`;

const POSE = `
uniform sampler2D geometry;  // per Gaussian: mean and triangle; quaternion; scales
uniform sampler2D tint;      // per Gaussian: colour and opacity
uniform sampler2D hold;      // per layer Gaussian: weights of up to eight joints
uniform sampler2D maps;      // per face: three rows
uniform isampler2D modes;    // per Gaussian and mode: 14 bytes
uniform vec4 jointMaps[3 * JOINTS];
uniform vec4 factors[4 * MODES];
uniform int bound;

vec4 fetch(sampler2D source, int texel) {
  int width = textureSize(source, 0).x;
  return texelFetch(source, ivec2(texel % width, texel / width), 0);
}

vec4 mode(int texel) {
  int width = textureSize(modes, 0).x;
  return vec4(texelFetch(modes, ivec2(texel % width, texel / width), 0));
}

struct Gaussian {
  vec3 mean;
  mat3 root;   // the covariance is root * transpose(root)
  vec3 color;
  float opacity;
};

Gaussian pose(int n) {
  vec4 place = fetch(geometry, 3 * n);
  vec4 q = fetch(geometry, 3 * n + 1);
  vec3 scales = fetch(geometry, 3 * n + 2).xyz;
  vec4 shade = fetch(tint, n);
  vec3 mean = place.xyz;
#if RANK > 0
  vec4 d0 = vec4(0.0), d1 = vec4(0.0), d2 = vec4(0.0), d3 = vec4(0.0);
  for (int r = 0; r < RANK; r++) {
    int at = 4 * (n * RANK + r);
    d0 += factors[4 * r] * mode(at);
    d1 += factors[4 * r + 1] * mode(at + 1);
    d2 += factors[4 * r + 2] * mode(at + 2);
    d3 += factors[4 * r + 3] * mode(at + 3);
  }
  mean += d0.xyz;
  q += vec4(d0.w, d1.xyz);
  scales *= exp(vec3(d1.w, d2.xy));
  shade = clamp(shade + vec4(d2.zw, d3.xy), 0.0, 1.0);
#endif
  vec4 a = vec4(0.0), b = vec4(0.0), c = vec4(0.0);
  if (n < bound) {
    int face = 3 * int(place.w);
    a = fetch(maps, face);
    b = fetch(maps, face + 1);
    c = fetch(maps, face + 2);
  } else {
    int at = 2 * (n - bound);
    vec4 first = fetch(hold, at), second = fetch(hold, at + 1);
    for (int j = 0; j < JOINTS; j++) {
      float w = j < 4 ? first[j] : second[j - 4];
      a += w * jointMaps[3 * j];
      b += w * jointMaps[3 * j + 1];
      c += w * jointMaps[3 * j + 2];
    }
  }
  mat3 linear = mat3(a.x, b.x, c.x, a.y, b.y, c.y, a.z, b.z, c.z);
  float s = 2.0 / dot(q, q);
  float w = q.x, x = q.y, y = q.z, z = q.w;
  mat3 turn = mat3(
    1.0 - s * (y * y + z * z), s * (x * y + w * z), s * (x * z - w * y),
    s * (x * y - w * z), 1.0 - s * (x * x + z * z), s * (y * z + w * x),
    s * (x * z + w * y), s * (y * z - w * x), 1.0 - s * (x * x + y * y));
  Gaussian posed;
  posed.mean = vec3(dot(a, vec4(mean, 1.0)), dot(b, vec4(mean, 1.0)), dot(c, vec4(mean, 1.0)));
  posed.root = linear * mat3(turn[0] * scales.x, turn[1] * scales.y, turn[2] * scales.z);
  posed.color = shade.rgb;
  posed.opacity = shade.a;
  return posed;
}
`;

const PROJECT = `
const float LOW_PASS = 0.3;
const float ALPHA_FLOOR = 1.0 / 255.0;
const float CLAMP_MARGIN = 0.3;

uniform vec4 view[3];
uniform vec2 focal, centre, size;
uniform float near;
uniform int count, tableWidth;
layout(location = 0) out vec4 place;   // centre and half axis in pixels
layout(location = 1) out vec4 extent;  // half length of the other axis, reach, opacity
layout(location = 2) out vec4 shade;

void main() {
  place = extent = shade = vec4(0.0);
  int n = int(gl_FragCoord.x) + tableWidth * int(gl_FragCoord.y);
  if (n >= count) return;
  Gaussian g = pose(n);
  vec4 mean = vec4(g.mean, 1.0);
  vec3 t = vec3(dot(view[0], mean), dot(view[1], mean), dot(view[2], mean));
  if (!(t.z >= near) || g.opacity < ALPHA_FLOOR) return;
  vec2 slope = t.xy / t.z;
  vec2 margin = CLAMP_MARGIN * 0.5 * size / focal;
  vec2 at = clamp(slope, -centre / focal - margin, (size - centre) / focal + margin);
  vec2 j = focal / t.z;
  vec3 u = j.x * (view[0].xyz - at.x * view[2].xyz) * g.root;
  vec3 v = j.y * (view[1].xyz - at.y * view[2].xyz) * g.root;
  float a = dot(u, u) + LOW_PASS, b = dot(u, v), c = dot(v, v) + LOW_PASS;
  float half_gap = sqrt(0.25 * (a - c) * (a - c) + b * b);
  float large = 0.5 * (a + c) + half_gap;
  // The determinant over the larger root keeps digits that the difference would lose.
  float small = max((a * c - b * b) / large, LOW_PASS);
  vec2 axis = a >= c ? vec2(large - c, b) : vec2(b, large - a);
  axis = half_gap > 0.0 ? normalize(axis) : vec2(1.0, 0.0);
  float reach = log(g.opacity / ALPHA_FLOOR);
  place = vec4(focal * slope + centre, axis * sqrt(2.0 * reach * large));
  extent = vec4(sqrt(2.0 * reach * small), reach, g.opacity, 0.0);
  shade = vec4(g.color, 1.0);
}
`;

const SPLAT_VERTEX = `
precision highp usampler2D;
uniform usampler2D order;
uniform sampler2D places, extents, shades;
uniform vec2 size;
out vec2 corner;
flat out vec2 strength;
flat out vec3 color;

void main() {
  int slot = gl_VertexID >> 2;
  int width = textureSize(order, 0).x;
  int n = int(texelFetch(order, ivec2(slot % width, slot / width), 0).x);
  width = textureSize(places, 0).x;
  ivec2 at = ivec2(n % width, n / width);
  vec4 place = texelFetch(places, at, 0);
  vec4 extent = texelFetch(extents, at, 0);
  corner = vec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2.0 - 1.0;
  strength = extent.yz;
  color = texelFetch(shades, at, 0).rgb;
  vec2 across = normalize(vec2(-place.w, place.z) + vec2(0.0, 1e-20)) * extent.x;
  vec2 pixel = place.xy + corner.x * place.zw + corner.y * across;
  // What has no opacity goes outside, where it costs nothing.
  gl_Position = extent.z > 0.0
    ? vec4(pixel.x / size.x * 2.0 - 1.0, 1.0 - pixel.y / size.y * 2.0, 0.0, 1.0)
    : vec4(2.0, 2.0, 2.0, 1.0);
}
`;

const SPLAT_FRAGMENT = `
in vec2 corner;
flat in vec2 strength;
flat in vec3 color;
out vec4 result;

void main() {
  float alpha = strength.y * exp(-strength.x * dot(corner, corner));
  if (alpha < 1.0 / 255.0) discard;
  alpha = min(alpha, 0.99);
  result = vec4(color * alpha, alpha);
}
`;

const SCREEN_VERTEX = `
out vec2 place;

void main() {
  place = vec2((gl_VertexID << 1) & 2, gl_VertexID & 2);
  gl_Position = vec4(place * 2.0 - 1.0, 0.0, 1.0);
}
`;

const SCREEN_FRAGMENT = `
uniform sampler2D drawn;
uniform sampler2D picture;
uniform vec4 behind;          // colour with alpha; a picture where alpha is negative
uniform vec2 size;
uniform float framing;
in vec2 place;
out vec4 result;

void main() {
  vec4 front = texelFetch(drawn, ivec2(gl_FragCoord.xy), 0);
  vec4 back = vec4(behind.rgb * max(behind.a, 0.0), max(behind.a, 0.0));
  if (behind.a < 0.0) {
    vec2 at = vec2(place.x - 0.5, 0.5 - place.y) * size / min(size.x, size.y) * framing + 0.5;
    back = vec4(texture(picture, at).rgb, 1.0);
  }
  result = front + (1.0 - front.a) * back;
}
`;

/** Vertex and fragment shader. */
export type Sources = [string, string];

/** What poses and projects Gaussians of an avatar with this many joints and modes of the residual. */
export function projectionShaders(joints: number, rank: number): Sources {
  const constants =
    `#define JOINTS ${joints}\n#define RANK ${rank}\n` + `#define MODES ${Math.max(rank, 1)}\n`;
  return [HEADER + SCREEN_VERTEX, HEADER + constants + POSE + PROJECT];
}

export const SPLAT_SHADERS: Sources = [HEADER + SPLAT_VERTEX, HEADER + SPLAT_FRAGMENT];
export const SCREEN_SHADERS: Sources = [HEADER + SCREEN_VERTEX, HEADER + SCREEN_FRAGMENT];
