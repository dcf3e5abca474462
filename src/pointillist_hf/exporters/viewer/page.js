// SPDX-License-Identifier: Apache-2.0
// The page: sliders and motion move it, the pointer moves the camera.
//
// The part of the address after # presets it, for links and tests: `bare` hides the panel, and
// names of sliders and of the camera's numbers take values, as in #bare&azimuth=30&jawOpen=0.5

"use strict";

const CAMERA = { azimuth: 0, elevation: 0, distance: 1.2, fov: 18, height: -0.02 };
const BACKGROUND = [1, 1, 1];
const JAW_OPEN_ANGLE = 0.35, GAZE_ANGLE = 0.5, NECK_ANGLE = 0.8; // radians at full strength
// Joint sliders: name, range, and the (joint, axis, angle) it turns.
const JOINT_SLIDERS = [
  ["jawOpen", 0, 1, [[2, 0, JAW_OPEN_ANGLE]]],
  ["turn head", -1, 1, [[1, 1, NECK_ANGLE]]],
  ["nod", -1, 1, [[1, 0, NECK_ANGLE]]],
  ["tilt head", -1, 1, [[1, 2, NECK_ANGLE]]],
  ["look aside", -1, 1, [[3, 1, GAZE_ANGLE], [4, 1, GAZE_ANGLE]]],
  ["look down", -1, 1, [[3, 0, GAZE_ANGLE], [4, 0, GAZE_ANGLE]]],
];
const NAMELESS_SLIDERS = 12; // shown of a rig whose expressions have no names

/** World to camera of an orbit around the head. */
function orbitCamera(orbit, width, height) {
  const [a, e] = [orbit.azimuth, orbit.elevation].map((degrees) => (degrees * Math.PI) / 180);
  const back = [Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)];
  const eye = back.map((v, c) => v * orbit.distance + (c === 1 ? orbit.height : 0));
  const right = [Math.cos(a), 0, -Math.sin(a)];
  const forward = back.map((v) => -v);
  const down = [
    forward[1] * right[2] - forward[2] * right[1],
    forward[2] * right[0] - forward[0] * right[2],
    forward[0] * right[1] - forward[1] * right[0],
  ];
  const rotation = [...right, ...down, ...forward];
  return {
    rotation,
    translation: apply(rotation, eye).map((v) => -v),
    focal: (0.5 * height) / Math.tan((orbit.fov * Math.PI) / 360),
  };
}

/** Frames of ARKit coefficients by name, from the text of a .csv; other columns are left out. */
function parseMotion(text) {
  const rows = text.trim().split(/\r?\n/).map((line) => line.split(","));
  const names = rows[0].map((name) => name.trim().replace(/^./, (c) => c.toLowerCase()));
  const isCoefficient = (name) => /^(brow|cheek|eye|jaw|mouth|nose|tongue)[A-Z]/.test(name);
  const frames = rows.slice(1).map((row, number) => {
    const frame = {};
    names.forEach((name, i) => {
      if (!isCoefficient(name)) return;
      frame[name] = parseFloat(row[i]);
      if (!isFinite(frame[name]))
        throw new Error(`${name} in line ${number + 2} is no number: ${row[i]}`);
    });
    return frame;
  });
  if (!frames.length || !Object.keys(frames[0]).length)
    throw new Error("This file has no frames with ARKit's names (jawOpen, eyeBlinkLeft, ...).");
  return frames;
}

/** The motion that came with the page. */
function motionOf({ fps, parents, expression_names: names }, tables) {
  const { motion_expression: expression, motion_poses: poses, motion_transl: transl } = tables;
  const E = names.length, J = parents.length;
  const frames = Array.from({ length: transl.length / 3 }, (_, t) => ({
    expression: expression.subarray(E * t, E * (t + 1)),
    poses: parents.map((_, j) => [...poses.subarray(3 * (J * t + j), 3 * (J * t + j + 1))]),
    translation: [...transl.subarray(3 * t, 3 * t + 3)],
  }));
  return { fps, frames };
}

class Page {
  constructor(header, tables) {
    this.header = header;
    this.points = new PosedPoints(tables, header.parents);
    this.canvas = document.querySelector("canvas");
    this.splats = new SplatCanvas(this.canvas, tables.colors, tables.opacities);
    this.orbit = { ...CAMERA };
    this.values = {}; // of the sliders that are not at zero
    this.motion = header.fps === null ? null : motionOf(header, tables);
    this.moved = true;
    this.readAddress();
    this.buildPanel();
    this.listen();
    requestAnimationFrame((now) => this.tick(now));
  }

  /** Sliders of expressions: both sides of a pair together. name -> coefficients */
  expressionSliders() {
    const names = this.header.expression_names, sliders = new Map();
    names.forEach((name, e) => {
      const key = name.replace(/(Left|Right)$/, (side) =>
        names.includes(name.slice(0, -side.length) + (side === "Left" ? "Right" : "Left"))
          ? "" : side);
      // mouthLeft and jawLeft are movements of their own, not the left half of one.
      const whole = ["mouth", "jaw"].includes(key) ? name : key;
      sliders.set(whole, [...(sliders.get(whole) || []), e]);
    });
    return this.header.has_names ? sliders : new Map([...sliders].slice(0, NAMELESS_SLIDERS));
  }

  buildPanel() {
    const panel = document.querySelector("#sliders");
    this.sliders = this.expressionSliders();
    const add = (name, low, high) => {
      const label = document.createElement("label"), input = document.createElement("input");
      label.textContent = name;
      Object.assign(input, { type: "range", min: low, max: high, step: 0.01, name });
      input.value = this.values[name] || 0;
      input.addEventListener("input", () => this.set(name, +input.value));
      label.append(input);
      panel.append(label);
    };
    for (const [name, low, high] of JOINT_SLIDERS) add(name, low, high);
    for (const name of this.sliders.keys()) {
      if (this.header.has_names) add(name, 0, 1);
      else add(name, -2, 2);
    }
    document.querySelector("#count").textContent = `${this.points.count} points`;
    document.querySelector("#notice").textContent = this.header.notice;
  }

  set(name, value) {
    if (value === 0) delete this.values[name];
    else this.values[name] = value;
    this.moved = true;
  }

  async load(file) {
    const notice = document.querySelector("#notice");
    try {
      this.motion = { frames: parseMotion(await file.text()) };
      notice.textContent = `${file.name}: ${this.motion.frames.length} frames`;
    } catch (error) {
      this.motion = null;
      notice.textContent = error.message;
    }
    this.start = undefined;
  }

  readAddress() {
    for (const part of decodeURIComponent(location.hash.slice(1)).split("&")) {
      const [name, value] = part.split("=");
      if (name === "bare") document.body.classList.add("bare");
      else if (name in CAMERA) this.orbit[name] = +value;
      else if (value !== undefined) this.values[name] = +value;
    }
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      this.orbit.azimuth -= 0.4 * event.movementX;
      const elevation = this.orbit.elevation + 0.4 * event.movementY;
      this.orbit.elevation = Math.max(-80, Math.min(80, elevation));
      this.moved = true;
    });
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const fov = this.orbit.fov * Math.exp(0.001 * event.deltaY);
      this.orbit.fov = Math.max(4, Math.min(50, fov));
      this.moved = true;
    }, { passive: false });
    document.querySelector("#reset").addEventListener("click", () => {
      this.values = {};
      this.motion = null;
      Object.assign(this.orbit, CAMERA);
      for (const input of document.querySelectorAll("#sliders input")) input.value = 0;
      this.moved = true;
    });
    document.querySelector("#motion").addEventListener("change", async (event) => {
      if (event.target.files.length) await this.load(event.target.files[0]);
    });
    this.rate = document.querySelector("#fps");
    addEventListener("resize", () => (this.moved = true));
  }

  /** Expression and poses of named strengths; names without Left or Right move both sides. */
  parametersOf(values) {
    const expression = new Float32Array(this.header.expression_names.length);
    const poses = [0, 1, 2, 3, 4].map(() => [0, 0, 0]);
    for (const [name, value] of Object.entries(values)) {
      const exact = this.header.expression_names.indexOf(name);
      const places = exact >= 0 ? [exact] : this.sliders.get(name) || [];
      for (const e of places) expression[e] += value;
      const slider = JOINT_SLIDERS.find(([known]) => known === name);
      for (const [joint, axis, angle] of slider ? slider[3] : []) poses[joint][axis] += value * angle;
      this.look(name, value, poses);
    }
    return { expression, poses, translation: [0, 0, 0] };
  }

  /** ARKit's gaze: eyeLookOutLeft and the like. */
  look(name, value, poses) {
    const match = /^eyeLook(Up|Down|In|Out)(Left|Right)$/.exec(name);
    if (!match) return;
    const isLeft = match[2] === "Left", joint = isLeft ? 3 : 4;
    if (match[1] === "Down" || match[1] === "Up")
      poses[joint][0] += (match[1] === "Down" ? 1 : -1) * 0.45 * value;
    else poses[joint][1] += ((match[1] === "Out") === isLeft ? 1 : -1) * 0.6 * value;
  }

  /** What moves in this moment: the motion's frame, then the sliders on top. */
  parameters(now) {
    if (!this.motion) return this.parametersOf(this.values);
    this.start ??= now;
    const { frames, fps } = this.motion;
    const rate = fps || +this.rate.value || 30;
    const frame = frames[Math.floor(((now - this.start) / 1000) * rate) % frames.length];
    const base = frame.poses ? frame : this.parametersOf(frame);
    const own = this.parametersOf(this.values);
    return {
      expression: own.expression.map((value, e) => value + base.expression[e]),
      poses: own.poses.map((pose, j) => pose.map((value, c) => value + base.poses[j][c])),
      translation: base.translation,
    };
  }

  tick(now) {
    requestAnimationFrame((next) => this.tick(next));
    if (!this.moved && !this.motion) return;
    this.moved = false;
    const { expression, poses, translation } = this.parameters(now);
    this.points.pose(expression, poses, translation);
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(ratio * this.canvas.clientWidth);
    const height = Math.round(ratio * this.canvas.clientHeight);
    if (this.canvas.width !== width || this.canvas.height !== height)
      Object.assign(this.canvas, { width, height });
    const camera = orbitCamera(this.orbit, width, height);
    this.splats.draw(this.points.means, this.points.covariances, camera, BACKGROUND);
    this.countFrame(now);
  }

  countFrame(now) {
    this.times = [...(this.times || []).slice(-30), now];
    const seconds = (now - this.times[0]) / 1000;
    if (this.motion && seconds > 0)
      document.querySelector("#rate").textContent =
        `${Math.round((this.times.length - 1) / seconds)} frames per second`;
  }
}

async function open() {
  try {
    const header = JSON.parse(document.querySelector("#header").textContent);
    const bytes = await inflate(document.querySelector("#data").textContent.trim());
    window.page = new Page(header, readTables(header.tables, bytes));
  } catch (error) {
    document.querySelector("#notice").textContent = error.message;
    console.error(error);
  }
}

open();
