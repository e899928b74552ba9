/** The player with all that draws, sounds and speaks made up: what it leaves behind when things go wrong. */

import { beforeEach, describe, expect, it, vi } from "vitest";

const world = vi.hoisted(() => ({
  fetched: [] as [string, string | undefined][],
  workers: 0,
  rendererFails: false,
  poserFails: false,
  captured: null as ((samples: Float32Array, rate: number) => void) | null,
  opened: null as (() => void) | null,
  captures: 0,
  turns: [] as { over: boolean; cancelled: boolean }[],
}));

vi.mock("../src/avatar", () => ({
  readAvatar: () => ({ background: new Uint8Array(1), head: {} }),
}));
vi.mock("../src/camera", () => ({
  FRONT: {},
  viewFrom: () => ({ view: new Float32Array(16) }),
}));
vi.mock("../src/steering", () => ({ Steering: vi.fn() }));
vi.mock("../src/renderer", () => ({
  Renderer: class {
    constructor() {
      if (world.rendererFails) throw new Error("no WebGL 2");
    }
    setFrame(): void {}
    draw(): void {}
    dispose(): void {}
  },
}));
vi.mock("../src/pose-client", () => ({
  PoseClient: class {
    readonly busy = true;
    constructor() {
      world.workers++;
    }
    request() {
      if (world.poserFails) return Promise.reject(new Error("no memory"));
      return Promise.resolve({ frame: { aperture: 0 }, samePose: false, milliseconds: 0 });
    }
    recycle(): void {}
    close(): void {
      world.workers--;
    }
  },
}));
vi.mock("../src/speakers", () => ({
  Speakers: class {
    get() {
      const begin = () => {
        const turn = {
          over: false,
          cancelled: false,
          track: { duration: 1 },
          push: () => Promise.resolve(),
          end: () => undefined,
        };
        world.turns.push(turn);
        return turn;
      };
      return Promise.resolve({ begin });
    }
    interrupt(): void {
      for (const turn of world.turns) turn.over = turn.cancelled = true;
    }
    close(): void {}
  },
}));
vi.mock("../src/sound", () => ({
  SPEECH_RATE: 16_000,
  wakeSound: () => undefined,
  fetchBytes: (url: string, token?: string) => {
    world.fetched.push([url, token]);
    return Promise.resolve(new ArrayBuffer(8));
  },
  captureStream: (_: unknown, onBlock: (samples: Float32Array, rate: number) => void) =>
    new Promise((done) => {
      world.opened = () => {
        world.captures++;
        world.captured = onBlock;
        done(() => void world.captures--);
      };
    }),
  SoundOutput: class {
    pushSamples(): void {}
    end(): void {}
    stop(): void {}
    start = () => Promise.resolve();
  },
}));

class FakeStream {
  getAudioTracks = () => [];
}

vi.stubGlobal("location", { href: "https://page.test/" });
vi.stubGlobal("devicePixelRatio", 1);
vi.stubGlobal("matchMedia", () => ({ matches: false }));
vi.stubGlobal("requestAnimationFrame", () => 0);
vi.stubGlobal("cancelAnimationFrame", () => undefined);
vi.stubGlobal("createImageBitmap", () => new Promise(() => undefined));
vi.stubGlobal("MediaStream", FakeStream);
vi.stubGlobal(
  "ResizeObserver",
  class {
    observe(): void {}
    disconnect(): void {}
  },
);
const { Player } = await import("../src/player");

const canvas = Object.assign(new EventTarget(), { width: 1, height: 1 });
const load = (src = "me", options = {}) =>
  Player.load(canvas as unknown as HTMLCanvasElement, src, options);
const stream = () => new FakeStream() as unknown as MediaStream;
/** All that can happen without anything new from outside. */
const settled = () => new Promise((done) => setTimeout(done));

beforeEach(() => {
  Object.assign(world, { fetched: [], workers: 0, rendererFails: false, poserFails: false });
  Object.assign(world, { captures: 0, captured: null, turns: [] });
});

describe("a player that opens", () => {
  it("shows the token to the server only", async () => {
    const options = { server: "wss://live.test/live", token: "secret" };
    await load("https://live.test/avatars/me", options);
    await load("https://cdn.test/me", options);
    expect(world.fetched.map(([, token]) => token)).toEqual(["secret", undefined]);
  });

  it.each(["rendererFails", "poserFails"] as const)("leaves no worker: %s", async (what) => {
    world[what] = true;
    await expect(load()).rejects.toThrow();
    expect(world.workers).toBe(0);
  });
});

describe("a microphone that is followed", () => {
  it("may be interrupted while it opens", async () => {
    const player = await load();
    const done = player.speak(stream());
    await settled();
    player.interrupt();
    await done;
    world.opened!();
    await settled();
    expect(world.captures).toBe(0);
  });

  it("may be interrupted before anything is heard", async () => {
    const player = await load();
    const done = player.speak(stream());
    await settled();
    world.opened!();
    await settled();
    player.interrupt();
    await done;
    expect(world.captures).toBe(0);
  });

  it("is let go of when another takes its place", async () => {
    const player = await load();
    const first = player.speak(stream());
    await settled();
    const open = world.opened!;
    const second = player.speak(stream());
    await first;
    await settled();
    world.opened!();
    open();
    await settled();
    expect(world.captures).toBe(1);
    world.captured!(new Float32Array(160), 16_000);
    player.interrupt();
    await second;
    expect(world.captures).toBe(0);
  });
});

describe("synthesised speech", () => {
  it("tells when its source fails, and falls silent", async () => {
    const player = await load();
    async function* pieces() {
      yield new Float32Array(1600);
      await settled();
      throw new Error("the voice is gone");
    }
    await expect(player.speakSamples(pieces(), 16_000)).rejects.toThrow("the voice is gone");
    expect(player.speaking).toBe(false);
    expect(world.turns[0]!.cancelled).toBe(true);
  });

  it("does not wait for its source when interrupted", async () => {
    const player = await load();
    async function* pieces() {
      yield new Float32Array(1600);
      await new Promise(() => undefined);
    }
    const done = player.speakSamples(pieces(), 16_000);
    await settled();
    player.interrupt();
    await done;
    expect(player.speaking).toBe(false);
  });
});
