// SPDX-License-Identifier: Apache-2.0
// Moves the points of an avatar: expressions, joints, linear blend skinning (Eq. 5 of the paper).
//
// Metres, y up, the face along +z, x to the subject's left. Matrices are rows first.

"use strict";

// Limits of the stretch of a splat, as in stretching.py.
const LARGEST = 4, SLIVER = 1e-3;

/** Rotation matrix [9] of an axis-angle vector, radians. */
function rotationOf([x, y, z]) {
  const angle = Math.hypot(x, y, z);
  if (angle < 1e-9) return [1, 0, 0, 0, 1, 0, 0, 0, 1];
  const [a, b, c] = [x / angle, y / angle, z / angle];
  const s = Math.sin(angle), t = 1 - Math.cos(angle);
  return [
    1 - t * (b * b + c * c), t * a * b - s * c, t * a * c + s * b,
    t * a * b + s * c, 1 - t * (a * a + c * c), t * b * c - s * a,
    t * a * c - s * b, t * b * c + s * a, 1 - t * (a * a + b * b),
  ];
}

/** Product of two 3 x 3 matrices. */
function multiply(m, n) {
  const out = new Array(9);
  for (let i = 0; i < 3; i++)
    for (let j = 0; j < 3; j++)
      out[3 * i + j] = m[3 * i] * n[j] + m[3 * i + 1] * n[3 + j] + m[3 * i + 2] * n[6 + j];
  return out;
}

/** A 3 x 3 matrix times a vector. */
function apply(m, [x, y, z]) {
  return [
    m[0] * x + m[1] * y + m[2] * z, m[3] * x + m[4] * y + m[5] * z, m[6] * x + m[7] * y + m[8] * z,
  ];
}

/** Makes a nearly orthogonal matrix a rotation, in place: its polar factor, by Newton's method. */
function makeRotation(m) {
  for (let step = 0; step < 4; step++) {
    const c = [
      m[4] * m[8] - m[5] * m[7], m[5] * m[6] - m[3] * m[8], m[3] * m[7] - m[4] * m[6],
      m[2] * m[7] - m[1] * m[8], m[0] * m[8] - m[2] * m[6], m[1] * m[6] - m[0] * m[7],
      m[1] * m[5] - m[2] * m[4], m[2] * m[3] - m[0] * m[5], m[0] * m[4] - m[1] * m[3],
    ];
    const scale = 1 / (m[0] * c[0] + m[1] * c[1] + m[2] * c[2]);
    for (let i = 0; i < 9; i++) m[i] = 0.5 * (m[i] + scale * c[i]);
  }
}

/** The axes of splats as columns of 3 x 3 matrices, as long as the splats are wide. [9 N] */
function axesOf(logScales, axisAngles) {
  const axes = new Float32Array(3 * logScales.length);
  for (let n = 0; n < logScales.length / 3; n++) {
    const turn = rotationOf(axisAngles.subarray(3 * n, 3 * n + 3));
    axes.set(turn.map((value, i) => value * Math.exp(logScales[3 * n + (i % 3)])), 9 * n);
  }
  return axes;
}

/** Inner products of the edges at a face's first corner: 1 and 1, 1 and 2, 2 and 2. */
function edgeProducts(places, [a, b, c]) {
  let g11 = 0, g12 = 0, g22 = 0;
  for (let i = 0; i < 3; i++) {
    const first = places[3 * b + i] - places[3 * a + i];
    const second = places[3 * c + i] - places[3 * a + i];
    g11 += first * first;
    g12 += first * second;
    g22 += second * second;
  }
  return [g11, g12, g22];
}

/** The avatar's points and what moves them; `pose` writes into `means` and `covariances`. */
class PosedPoints {
  /** @param {object} tables Of `page_tables.py`, by name. @param {number[]} parents Of the joints. */
  constructor(tables, parents) {
    this.tables = tables;
    this.parents = parents;
    this.count = tables.opacities.length;
    this.numVertices = tables.lbs_weights.length / parents.length;
    this.corners = new Uint32Array(3 * this.count); // vertices that a point hangs on
    this.shares = new Float32Array(3 * this.count); // and how much of each
    for (let n = 0; n < this.count; n++) {
      const [v, w] = tables.barycentric.subarray(2 * n, 2 * n + 2);
      this.shares.set([1 - v - w, v, w], 3 * n);
      const face = 3 * tables.bindings[n];
      this.corners.set(tables.faces.subarray(face, face + 3), 3 * n);
    }
    this.axes = axesOf(tables.log_scales, tables.axis_angles);
    this.layAxes();
    this.places = new Float32Array(3 * this.numVertices);
    this.products = new Float32Array(tables.faces.length); // of the edges of the posed faces
    this.offsets = new Float32Array(3 * this.numVertices);
    this.transforms = new Float32Array(12 * this.numVertices); // linear part, then shift
    this.means = new Float32Array(3 * this.count);
    this.covariances = new Float32Array(6 * this.count); // xx xy xz yy yz zz
  }

  /** Per axis what it takes of the edges of its face at rest, and its square normal to that. */
  layAxes() {
    const { axes, tables } = this;
    this.taken = new Float32Array(9 * this.count);
    for (let n = 0; n < this.count; n++) {
      const [a, b, c] = this.corners.subarray(3 * n, 3 * n + 3);
      const [g11, g12, g22] = edgeProducts(tables.vertices, [a, b, c]);
      const area = g11 * g22 - g12 * g12;
      for (let k = 0; k < 3; k++) {
        let first = 0, second = 0, length = 0;
        for (let i = 0; i < 3; i++) {
          const value = axes[9 * n + 3 * i + k], at = tables.vertices[3 * a + i];
          first += value * (tables.vertices[3 * b + i] - at);
          second += value * (tables.vertices[3 * c + i] - at);
          length += value * value;
        }
        length = Math.sqrt(length);
        let u = 0, v = 0;
        if (area > SLIVER * g11 * g22) {
          u = (g22 * first - g12 * second) / (area * length);
          v = (g11 * second - g12 * first) / (area * length);
        }
        this.taken.set([u, v, 1 - (g11 * u * u + 2 * g12 * u * v + g22 * v * v)], 9 * n + 3 * k);
      }
    }
  }

  /**
   * @param {Float32Array} expression Coefficients. [E]
   * @param {number[][]} poses Axis-angle of root, neck, jaw, left eye, right eye.
   * @param {number[]} translation Metres.
   */
  pose(expression, poses, translation) {
    const turns = poses.map(rotationOf);
    const { world, shifts } = this.moveJoints(expression, turns, translation);
    // Pose correctives read the turns of all joints but the root, less the identity.
    const features = turns.slice(1).flatMap((m) => m.map((v, i) => v - (i % 4 === 0 ? 1 : 0)));
    this.offsets.fill(0);
    this.addOffsets(this.tables.exprdirs, expression);
    if (this.tables.posedirs) this.addOffsets(this.tables.posedirs, features);
    this.blendTransforms(world, shifts);
    this.moveFaces();
    for (let n = 0; n < this.count; n++) this.movePoint(n);
  }

  /** Turn and shift of every joint, from rest to the pose. */
  moveJoints(expression, turns, translation) {
    const { joints, joint_dirs: jointDirs } = this.tables;
    const E = expression.length;
    const places = this.parents.map((_, j) =>
      [0, 1, 2].map((c) => {
        let place = joints[3 * j + c];
        for (let e = 0; e < E; e++) place += expression[e] * jointDirs[(3 * j + c) * E + e];
        return place;
      }));
    const world = [turns[0]], origins = [places[0]];
    for (let j = 1; j < places.length; j++) {
      const parent = this.parents[j];
      const bone = places[j].map((value, c) => value - places[parent][c]);
      const moved = apply(world[parent], bone);
      origins.push(moved.map((value, c) => value + origins[parent][c]));
      world.push(multiply(world[parent], turns[j]));
    }
    const shifts = world.map((turn, j) => {
      const turned = apply(turn, places[j]);
      return origins[j].map((value, c) => value - turned[c] + translation[c]);
    });
    return { world, shifts };
  }

  /** Adds directions [3 V, K] times coefficients [K] to the offsets of the vertices. */
  addOffsets(directions, coefficients) {
    const K = coefficients.length, { offsets } = this;
    for (let k = 0; k < K; k++) {
      const strength = coefficients[k];
      if (strength === 0) continue;
      for (let i = 0, at = k; i < offsets.length; i++, at += K)
        offsets[i] += strength * directions[at];
    }
  }

  /** The transform of every vertex: those of the joints, by its skinning weights. */
  blendTransforms(world, shifts) {
    const { transforms } = this, weights = this.tables.lbs_weights, J = world.length;
    const joints = world.map((turn, j) => [...turn, ...shifts[j]]);
    transforms.fill(0);
    for (let v = 0; v < this.numVertices; v++)
      for (let j = 0; j < J; j++) {
        const weight = weights[J * v + j];
        if (weight === 0) continue;
        for (let i = 0; i < 12; i++) transforms[12 * v + i] += weight * joints[j][i];
      }
  }

  /** The vertices of the pose, and the edges between them. */
  moveFaces() {
    const { places, offsets, transforms, products, tables } = this;
    for (let v = 0; v < this.numVertices; v++)
      for (let c = 0, from = 12 * v; c < 3; c++) {
        let place = transforms[from + 9 + c];
        for (let i = 0; i < 3; i++)
          place += transforms[from + 3 * c + i] * (tables.vertices[3 * v + i] + offsets[3 * v + i]);
        places[3 * v + c] = place;
      }
    for (let at = 0; at < products.length; at += 3)
      products.set(edgeProducts(places, tables.faces.subarray(at, at + 3)), at);
  }

  /** The axes of a splat at rest, those longer that lie along a face which stretches. */
  stretchAxes(n) {
    const { axes, taken, products } = this, face = 3 * this.tables.bindings[n];
    const stretched = Array.from(axes.subarray(9 * n, 9 * n + 9));
    for (let k = 0; k < 3; k++) {
      const [u, v, across] = taken.subarray(9 * n + 3 * k, 9 * n + 3 * k + 3);
      const square = across + products[face] * u * u + 2 * products[face + 1] * u * v +
        products[face + 2] * v * v;
      const factor = Math.sqrt(Math.min(Math.max(square, 1), LARGEST * LARGEST));
      for (let i = k; i < 9; i += 3) stretched[i] *= factor;
    }
    return stretched;
  }

  /** What the corners do, by their shares, is what the point does. */
  movePoint(n) {
    const { corners, shares, offsets, transforms, tables } = this;
    const place = [tables.means[3 * n], tables.means[3 * n + 1], tables.means[3 * n + 2]];
    const m = [0, 0, 0, 0, 0, 0, 0, 0, 0], shift = [0, 0, 0];
    for (let k = 3 * n; k < 3 * n + 3; k++) {
      const share = shares[k], from = 12 * corners[k];
      for (let i = 0; i < 9; i++) m[i] += share * transforms[from + i];
      for (let c = 0; c < 3; c++) {
        shift[c] += share * transforms[from + 9 + c];
        place[c] += share * offsets[3 * corners[k] + c];
      }
    }
    const moved = apply(m, place);
    for (let c = 0; c < 3; c++) this.means[3 * n + c] = moved[c] + shift[c];
    makeRotation(m);
    const half = multiply(m, this.stretchAxes(n));
    for (let i = 0, at = 6 * n; i < 9; i += 3)
      for (let j = i; j < 9; j += 3)
        this.covariances[at++] =
          half[i] * half[j] + half[i + 1] * half[j + 1] + half[i + 2] * half[j + 2];
  }
}
