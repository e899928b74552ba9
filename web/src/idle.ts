/**
 * What a face does besides speaking: blinks, gaze, head motion, brows, breath. The arithmetic of
 * `motion/idle.py`, which explains it; every part draws its events from numbers of its own.
 */

import type { Channel } from "./generated";
import { channel, ease, type Latents } from "./motion";
import { SeededRandom, type Random } from "./random";
import type { Stress } from "./speech/prosody";
import { GAZE_DEGREES } from "./speech/tables";

/** Largest yaw, pitch and roll. */
export const HEAD_LIMITS_DEGREES = [8, 6, 4];
const HEAD_SPREAD = [2.3, 1.9, 1.2];
const SWAY_SPREAD = [0.6, 0.65, 0.5];
const QUIET_SHARE = 0.4;
const BLINK_RATE = 17;
const DOUBLE_BLINK_CHANCE = 0.1;
const MIN_BLINK_GAP = 0.5;
const BLINK_SIGMA = 0.55;
const DUE_SECONDS = 1.5;
const LARGE_JUMP_DEGREES = 5;
const PHRASE = 0.7;
const PAUSE = 0.45;
const NOD_SECONDS = [0.22, 0.4] as const;
/** Pitch of a full nod. */
export const NOD_DEGREES = 3;
const NOD_CHANCE = 0.7;
const BROW_SECONDS = [0.14, 0.45] as const;
const BROW_CHANCE = 0.45;
const ACCENT_HOLD_SECONDS = 0.03;
const SACCADE_SECONDS = 0.04;
const EYE_LIMIT_DEGREES = 25;
const HEAD_COMPENSATION = 0.85;

/** 0 to 1 in `rise` seconds, kept for `hold`, back in `fall`. */
function bump(time: number, rise: number, hold: number, fall: number): number {
  return ease(time / rise) * (1 - ease((time - rise - hold) / fall));
}

const limit = (x: number, most: number) => Math.min(Math.max(x, -most), most);

/** Target, seconds of rest on it, seconds of moving to it. */
type Step = [number[], number, number];

/** A quantity that rests on random targets and moves between them. */
class Steps {
  private before: number[];
  private target: number[];
  private start = -1;
  private move = 1e-3;
  private next = 0;

  constructor(
    private readonly draw: () => Step,
    size: number,
    /** Takes start and change of each move. */
    private readonly told: (seconds: number, change: number[]) => void = () => undefined,
  ) {
    this.before = this.target = new Array<number>(size).fill(0);
  }

  /** Value at a time; times may only grow. */
  at(time: number): number[] {
    while (this.next <= time) {
      const [target, rest, move] = this.draw();
      this.told(
        this.next,
        target.map((to, i) => to - this.target[i]),
      );
      [this.before, this.target] = [this.target, target];
      [this.start, this.move] = [this.next, move];
      this.next += move + rest;
    }
    const share = ease((time - this.start) / this.move);
    return this.before.map((from, i) => from + (this.target[i] - from) * share);
  }
}

/** Blinks at random times, or somewhat earlier, with a cue. */
export class Blinks {
  private known: { start: number; close: number; hold: number; open: number; depth: number }[] = [];
  private cues: number[] = [];
  private free = 0;
  private due: number;

  constructor(private readonly random: Random) {
    this.due = this.pause() * random.random();
  }

  /** Something to blink with, before the frames that follow it. */
  cue(seconds: number): void {
    this.cues.push(seconds);
  }

  /** The eyes turn by a change in degrees: a cue, if it is large. */
  look(seconds: number, change: number[]): void {
    if (Math.hypot(...change) > LARGE_JUMP_DEGREES) this.cue(seconds);
  }

  /** Closure of the lids in [0, 1]. */
  at(time: number): number {
    for (let start = this.start(); start <= time; start = this.start()) {
      // A cue moves a blink but adds none: the pause begins where the blink was due to end.
      this.due += this.blink(start) - start;
    }
    this.known = this.known.filter((b) => b.start + b.close + b.hold + b.open > time);
    return this.known.reduce(
      (most, b) => Math.max(most, b.depth * bump(time - b.start, b.close, b.hold, b.open)),
      0,
    );
  }

  /** When the next blink comes, for all that is known. */
  private start(): number {
    const since = Math.max(this.free, this.due - DUE_SECONDS);
    this.cues = this.cues.filter((cue) => cue >= since);
    return Math.min(this.due, ...this.cues);
  }

  /** Draw a blink, or several in a row; when the next one would be due. */
  private blink(start: number): number {
    const { random } = this;
    const hold = 0.042;
    const close = random.uniform(0.05, 0.075);
    const open = random.uniform(0.09, 0.125);
    const depth = random.uniform(0.94, 1);
    this.known.push({ start, close, hold, open, depth });
    const end = start + close + hold + open;
    if (random.random() < DOUBLE_BLINK_CHANCE) return this.blink(end + random.uniform(0.08, 0.2));
    this.free = end + MIN_BLINK_GAP;
    return end + this.pause();
  }

  private pause(): number {
    const drawn = Math.exp(this.random.normal(-0.5 * BLINK_SIGMA ** 2, BLINK_SIGMA));
    return Math.max(MIN_BLINK_GAP, (60 / BLINK_RATE) * drawn);
  }
}

/** Finds where phrases end. */
export class Phrases {
  private speaking = false;

  /** Frames, counted from the first of some values of who speaks, in which a phrase has ended. */
  ends(speaking: Float32Array): number[] {
    const found: number[] = [];
    for (const [frame, share] of speaking.entries()) {
      if (this.speaking && share < PAUSE) found.push(frame);
      this.speaking = share > (this.speaking ? PAUSE : PHRASE);
    }
    return found;
  }
}

/** Nods and raised brows that answer stressed syllables. */
export class Accents {
  private readonly nodding: [number, number][] = [];
  private readonly raising: [number, number][] = [];

  constructor(private readonly random: Random) {}

  hear(stresses: Stress[]): void {
    for (const stress of stresses) this.answer(stress);
  }

  private answer({ seconds, strength }: Stress): void {
    const nod = this.random.random();
    const brow = this.random.random();
    const size = this.random.uniform(0.6, 1) * (0.4 + 0.6 * strength);
    if (nod < NOD_CHANCE) this.nodding.push([seconds, size]);
    if (brow < BROW_CHANCE) this.raising.push([seconds, size]);
  }

  nods(time: number): number {
    return strongest(this.nodding, time, NOD_SECONDS);
  }

  brows(time: number): number {
    return strongest(this.raising, time, BROW_SECONDS);
  }
}

function strongest(
  events: [number, number][],
  time: number,
  [rise, fall]: readonly [number, number],
): number {
  while (events.length > 0 && events[0][0] + rise + fall + 0.1 <= time) events.shift();
  return events.reduce(
    (most, [start, size]) =>
      Math.max(most, size * bump(time - start, rise, ACCENT_HOLD_SECONDS, fall)),
    0,
  );
}

function drawHead(random: Random): Step {
  const target = HEAD_SPREAD.map((spread) => spread * random.normal(0, 1));
  target[2] += 0.25 * target[0];
  return [target, random.uniform(0.1, 1.4), random.uniform(0.55, 1.3)];
}

function drawSway(random: Random): Step {
  const target = SWAY_SPREAD.map((spread) => spread * random.normal(0, 1));
  return [target, 0, random.uniform(0.25, 0.75)];
}

function drawGaze(random: Random): Step {
  const away = random.random() < 0.16;
  const yaw = random.normal(0, 1) * (away ? 6 : 1.3);
  const pitch = random.normal(0, 1) * (away ? 3.5 : 0.8) - (away ? 1 : 0);
  const rest = away ? random.uniform(0.5, 1.4) : random.gamma(4, 0.42);
  return [[limit(yaw, 9), limit(pitch, 9)], Math.max(0.25, rest), SACCADE_SECONDS];
}

function drawMood(random: Random): Step {
  const target = [0, 1, 2, 3].map(() => random.random());
  return [target, random.uniform(0.5, 3), random.uniform(0.6, 1.6)];
}

/** Eyes that rest near the viewer and jump, and hold their target while the head moves. */
export class Gaze {
  private readonly jumps: Steps;

  /** @param told Takes start and change in degrees of each jump. */
  constructor(random: Random, told: (seconds: number, change: number[]) => void) {
    this.jumps = new Steps(() => drawGaze(random), 2, told);
  }

  /** Write the channels of the eyes; `head` is yaw to the person's left and pitch down, in degrees. */
  write(time: number, head: ArrayLike<number>, dyn: Float32Array): void {
    const [yaw, up] = this.jumps.at(time);
    const left = limit(yaw - HEAD_COMPENSATION * head[0], EYE_LIMIT_DEGREES) / GAZE_DEGREES[0];
    const raised = limit(up + HEAD_COMPENSATION * head[1], EYE_LIMIT_DEGREES) / GAZE_DEGREES[1];
    set(dyn, ["eyeLookOutLeft", "eyeLookInRight"], Math.max(left, 0));
    set(dyn, ["eyeLookInLeft", "eyeLookOutRight"], Math.max(-left, 0));
    set(dyn, ["eyeLookUpLeft", "eyeLookUpRight"], Math.max(raised, 0));
    set(dyn, ["eyeLookDownLeft", "eyeLookDownRight"], Math.max(-raised, 0));
  }
}

/** Half breaths, in and out in turn. */
function breathing(random: Random): () => Step {
  let inhale = true;
  return () => {
    const depth = random.uniform(0.6, 1) * (inhale ? 1 : 0.1);
    inhale = !inhale;
    return [[depth], random.uniform(0.1, 0.5), random.uniform(1.3, 1.9)];
  };
}

/** Life of one face. */
export class IdleLife {
  private readonly blinks: Blinks;
  private readonly head: Steps;
  private readonly sway: Steps;
  private readonly gaze: Gaze;
  private readonly mood: Steps;
  private readonly breath: Steps;
  private readonly accents: Accents;

  /**
   * @param headMotion Scale of head motion, 0 for a still head.
   * @param part The numbers of each part, 1 to 7.
   */
  constructor(
    private readonly headMotion: number,
    part: (number: number) => Random,
  ) {
    this.blinks = new Blinks(part(1));
    const steps = (number: number, draw: (random: Random) => Step, size: number) => {
      const random = part(number);
      return new Steps(() => draw(random), size);
    };
    this.head = steps(2, drawHead, 3);
    this.sway = steps(3, drawSway, 3);
    this.gaze = new Gaze(part(4), (...jump) => this.blinks.look(...jump));
    this.mood = steps(5, drawMood, 4);
    this.breath = new Steps(breathing(part(6)), 1);
    this.accents = new Accents(part(7));
  }

  /** A life that the same seed repeats. */
  static seeded(seed: number, headMotion = 1): IdleLife {
    return new IdleLife(headMotion, (part) => new SeededRandom(seed, part));
  }

  /** Stressed syllables, in order of time, before the frames that follow them. */
  hear(stresses: Stress[]): void {
    this.accents.hear(stresses);
  }

  /** A phrase has ended, before the frames that follow. */
  pause(seconds: number): void {
    this.blinks.cue(seconds);
  }

  /** The face at a time, in seconds; times may only grow. `speaking` is in [0, 1]. */
  sample(time: number, speaking: number, out: Latents): void {
    const { dyn, pose } = out;
    const degrees = this.headDegrees(time, speaking);
    dyn.fill(0);
    pose.fill(0);
    this.gaze.write(time, degrees, dyn);
    const mood = this.mood.at(time);
    const brows = this.accents.brows(time);
    set(dyn, ["eyeBlinkLeft", "eyeBlinkRight"], this.blinks.at(time));
    set(dyn, ["browInnerUp"], 0.06 * mood[0] + 0.24 * brows);
    set(dyn, ["browOuterUpLeft", "browOuterUpRight"], 0.04 * mood[0] + 0.2 * brows);
    set(dyn, ["eyeSquintLeft", "eyeSquintRight"], 0.06 * mood[1]);
    set(dyn, ["mouthSmileLeft", "mouthSmileRight"], 0.03 + 0.05 * mood[2]);
    set(dyn, ["cheekSquintLeft", "cheekSquintRight"], 0.05 * mood[2]);
    const [breath] = this.breath.at(time);
    pose.set(rotation(degrees.map((angle) => (angle * Math.PI) / 180)));
    pose[4] = 0.0008 * breath;
    pose[5] = 0.0003 * breath;
  }

  /** Yaw to the person's left, pitch down, roll to the person's right. */
  private headDegrees(time: number, speaking: number): number[] {
    const liveliness = QUIET_SHARE + (1 - QUIET_SHARE) * speaking;
    const sway = this.sway.at(time);
    const degrees = this.head.at(time).map((angle, i) => (angle + sway[i]) * liveliness);
    degrees[1] += this.accents.nods(time) * NOD_DEGREES;
    return degrees.map((angle, i) => {
      const most = HEAD_LIMITS_DEGREES[i];
      return most * Math.tanh((angle * this.headMotion) / most);
    });
  }
}

function set(dyn: Float32Array, names: Channel[], value: number): void {
  for (const name of names) dyn[channel(name)] = value;
}

/** Axis-angle of yaw about y, then pitch about x, then roll about z, in radians. */
function rotation(angles: number[]): number[] {
  const [cy, cx, cz] = angles.map((angle) => Math.cos(angle / 2));
  const [sy, sx, sz] = angles.map((angle) => Math.sin(angle / 2));
  const w = cy * cx * cz + sy * sx * sz;
  const xyz = [
    cy * sx * cz + sy * cx * sz,
    sy * cx * cz - cy * sx * sz,
    cy * cx * sz - sy * sx * cz,
  ];
  const angle = 2 * Math.atan2(Math.hypot(...xyz), w);
  const scale = angle < 1e-6 ? 2 : angle / Math.sin(angle / 2);
  return xyz.map((value) => value * scale);
}
