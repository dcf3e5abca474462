// SPDX-License-Identifier: Apache-2.0
// Moves the points of an avatar: expressions, joints, linear blend skinning (Eq. 5 of the paper).
//
// Metres, y up, the face along +z, x to the subject's left. Matrices are rows first.

"use strict";

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

/** The avatar's points and what moves them; `pose` writes into `means` and `covariances`. */
class PosedPoints {
  /** @param {object} arrays What `write_page` packed, by name. @param {object} header Its sizes. */
  constructor(arrays, header) {
    this.arrays = arrays;
    this.count = header.num_points;
    this.parents = header.parents;
    this.numExpressions = header.expression_names.length;
    this.means = new Float32Array(3 * this.count);
    this.covariances = new Float32Array(6 * this.count); // xx xy xz yy yz zz
  }

  /**
   * @param {Float32Array} expression Coefficients. [E]
   * @param {number[][]} poses Axis-angle of root, neck, jaw, left eye, right eye.
   * @param {number[]} translation Metres.
   */
  pose(expression, poses, translation) {
    const { joints, joint_dirs: jointDirs } = this.arrays;
    const numJoints = this.parents.length, E = this.numExpressions;
    const active = [...expression.keys()].filter((e) => expression[e] !== 0);
    const places = [];
    for (let j = 0; j < numJoints; j++) {
      const place = [joints[3 * j], joints[3 * j + 1], joints[3 * j + 2]];
      for (const e of active)
        for (let c = 0; c < 3; c++) place[c] += expression[e] * jointDirs[(3 * j + c) * E + e];
      places.push(place);
    }
    const turns = poses.map(rotationOf);
    const world = [turns[0]], origins = [places[0]];
    for (let j = 1; j < numJoints; j++) {
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
    // Pose correctives read the turns of all joints but the root, less the identity.
    const features = turns.slice(1).flatMap((m) => m.map((v, i) => v - (i % 4 === 0 ? 1 : 0)));
    const correctives = this.arrays.posedirs ? [...features.keys()].filter((f) => features[f]) : [];
    for (let n = 0; n < this.count; n++)
      this.movePoint(n, expression, active, features, correctives, world, shifts);
  }

  movePoint(n, expression, active, features, correctives, world, shifts) {
    const { rest, exprdirs, posedirs, lbs_weights: weights, rest_covariances: S } = this.arrays;
    const E = this.numExpressions, P = features.length, J = world.length;
    const place = [rest[3 * n], rest[3 * n + 1], rest[3 * n + 2]];
    for (let c = 0; c < 3; c++) {
      for (const e of active) place[c] += expression[e] * exprdirs[(3 * n + c) * E + e];
      for (const f of correctives) place[c] += features[f] * posedirs[(3 * n + c) * P + f];
    }
    const m = [0, 0, 0, 0, 0, 0, 0, 0, 0], shift = [0, 0, 0];
    for (let j = 0; j < J; j++) {
      const weight = weights[J * n + j];
      if (weight === 0) continue;
      for (let i = 0; i < 9; i++) m[i] += weight * world[j][i];
      for (let c = 0; c < 3; c++) shift[c] += weight * shifts[j][c];
    }
    const moved = apply(m, place);
    for (let c = 0; c < 3; c++) this.means[3 * n + c] = moved[c] + shift[c];
    makeRotation(m);
    const k = 6 * n;
    const full = [
      S[k], S[k + 1], S[k + 2], S[k + 1], S[k + 3], S[k + 4], S[k + 2], S[k + 4], S[k + 5],
    ];
    const half = multiply(m, full);
    const dot = (i, j) =>
      half[3 * i] * m[3 * j] + half[3 * i + 1] * m[3 * j + 1] + half[3 * i + 2] * m[3 * j + 2];
    this.covariances.set([dot(0, 0), dot(0, 1), dot(0, 2), dot(1, 1), dot(1, 2), dot(2, 2)], k);
  }
}
