// SPDX-License-Identifier: Apache-2.0
// Draws splats with WebGL2, sorted back to front, by the rules of gsplat's classic mode: pinhole
// projection, 0.3 square pixels added to the footprint, alpha cut off below 1/255.
//
// Cameras are OpenCV's: x right, y down, z forward. Matrices are rows first.

"use strict";

const FLOATS_PER_SPLAT = 13; // mean 3, covariance 6, colour 3, opacity

const VERTEX_SHADER = `#version 300 es
precision highp float;
layout(location = 0) in vec2 corner;
layout(location = 1) in vec3 mean;
layout(location = 2) in vec3 upper;   // xx xy xz
layout(location = 3) in vec3 lower;   // yy yz zz
layout(location = 4) in vec4 color;   // and opacity
uniform mat3 rotation;                // world to camera
uniform vec3 translation;
uniform vec2 focal, center, size;     // pixels
out vec2 offset;
out vec3 conic;
out vec4 paint;

void main() {
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);  // outside, unless the splat is seen
  vec3 t = rotation * mean + translation;
  if (t.z < 0.01 || color.a < 1.0 / 255.0) return;
  vec2 limit = 0.15 * size / focal;
  vec2 uv = clamp(t.xy / t.z, -(center / focal + limit), (size - center) / focal + limit);
  mat3 W = mat3(upper, vec3(upper.y, lower.xy), vec3(upper.z, lower.yz));
  W = rotation * W * transpose(rotation);
  vec3 a = focal.x / t.z * vec3(1.0, 0.0, -uv.x), b = focal.y / t.z * vec3(0.0, 1.0, -uv.y);
  float A = dot(a, W * a) + 0.3, B = dot(a, W * b), C = dot(b, W * b) + 0.3;
  float det = A * C - B * B;
  if (det <= 0.0) return;
  conic = vec3(C, -B, A) / det;
  // Half the box around the ellipse on which alpha is 1/255.
  vec2 reach = sqrt(2.0 * log(255.0 * color.a) * vec2(A, C)) + 1.0;
  offset = corner * reach;
  vec2 pixel = focal * t.xy / t.z + center + offset;
  gl_Position = vec4(2.0 * pixel.x / size.x - 1.0, 1.0 - 2.0 * pixel.y / size.y, 0.0, 1.0);
  paint = color;
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
in vec2 offset;
in vec3 conic;
in vec4 paint;
out vec4 result;

void main() {
  float power = -0.5 * (conic.x * offset.x * offset.x + conic.z * offset.y * offset.y)
    - conic.y * offset.x * offset.y;
  float alpha = min(0.999, paint.a * exp(power));
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(paint.rgb * alpha, alpha);
}`;

/** A canvas that shows splats. */
class SplatCanvas {
  /** @param {HTMLCanvasElement} canvas @param {Float32Array} colors [3 N] @param opacities [N] */
  constructor(canvas, colors, opacities) {
    this.canvas = canvas;
    this.colors = colors;
    this.opacities = opacities;
    this.count = opacities.length;
    this.rows = new Float32Array(FLOATS_PER_SPLAT * this.count);
    this.depths = new Float32Array(this.count);
    this.order = Uint32Array.from({ length: this.count }, (_, i) => i);
    const options = { antialias: false, alpha: false, preserveDrawingBuffer: true };
    const gl = canvas.getContext("webgl2", options);
    if (!gl) throw new Error("This page needs WebGL 2, which this browser does not offer.");
    this.gl = gl;
    this.program = this.link();
    this.attach();
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  link() {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [
      [gl.VERTEX_SHADER, VERTEX_SHADER],
      [gl.FRAGMENT_SHADER, FRAGMENT_SHADER],
    ]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS))
        throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS))
      throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    return program;
  }

  attach() {
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    let start = 0;
    for (const [place, width] of [[1, 3], [2, 3], [3, 3], [4, 4]]) {
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, width, gl.FLOAT, false, 4 * FLOATS_PER_SPLAT, 4 * start);
      gl.vertexAttribDivisor(place, 1);
      start += width;
    }
  }

  /** Farthest first, which is what blending "over" needs. */
  sort(means, { rotation: r, translation: t }) {
    for (let n = 0; n < this.count; n++)
      this.depths[n] =
        r[6] * means[3 * n] + r[7] * means[3 * n + 1] + r[8] * means[3 * n + 2] + t[2];
    this.order.sort((a, b) => this.depths[b] - this.depths[a] || b - a);
  }

  /**
   * @param {Float32Array} means [3 N] @param {Float32Array} covariances [6 N]
   * @param {object} camera rotation [9], translation [3], focal in pixels; the principal point is
   *   the middle of the canvas.
   * @param {number[]} background sRGB in [0, 1].
   */
  draw(means, covariances, camera, background) {
    const gl = this.gl, { width, height } = this.canvas;
    this.sort(means, camera);
    let at = 0;
    for (const n of this.order) {
      for (let c = 0; c < 3; c++) this.rows[at + c] = means[3 * n + c];
      for (let c = 0; c < 6; c++) this.rows[at + 3 + c] = covariances[6 * n + c];
      for (let c = 0; c < 3; c++) this.rows[at + 9 + c] = this.colors[3 * n + c];
      this.rows[at + 12] = this.opacities[n];
      at += FLOATS_PER_SPLAT;
    }
    gl.bufferData(gl.ARRAY_BUFFER, this.rows, gl.DYNAMIC_DRAW);
    gl.viewport(0, 0, width, height);
    gl.clearColor(...background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const set = (name) => gl.getUniformLocation(this.program, name);
    // Uniform matrices are columns first; transposing is WebGL 2's own service.
    gl.uniformMatrix3fv(set("rotation"), true, camera.rotation);
    gl.uniform3fv(set("translation"), camera.translation);
    gl.uniform2f(set("focal"), camera.focal, camera.focal);
    gl.uniform2f(set("center"), width / 2, height / 2);
    gl.uniform2f(set("size"), width, height);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count);
  }
}
