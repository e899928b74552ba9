/** What the page sends to a server, and to whom, on a made-up socket. */

import { beforeEach, describe, expect, it, vi } from "vitest";
import { LiveLink, tokenFor } from "../src/live";

const sockets: FakeSocket[] = [];

class FakeSocket {
  static readonly OPEN = 1;
  readonly readyState = 1;
  binaryType = "";
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: unknown) => void) | null = null;
  readonly texts: Record<string, unknown>[] = [];
  readonly sound: number[] = [];

  constructor(readonly url: string) {
    sockets.push(this);
    setTimeout(() => this.onmessage?.({ data: '{"type": "ready"}' }));
  }

  send(data: string | ArrayBuffer): void {
    if (typeof data === "string") this.texts.push(JSON.parse(data) as Record<string, unknown>);
    else this.sound.push(...new Int16Array(data, 8));
  }
}

vi.stubGlobal("WebSocket", FakeSocket);
vi.stubGlobal("location", { href: "https://page.test/folder/" });

describe("sound for a server", () => {
  let link: LiveLink;
  let socket: FakeSocket;
  beforeEach(async () => {
    link = await LiveLink.open("wss://live.test/live", {
      onFailure: (message) => expect.fail(message),
      onClose: () => undefined,
    });
    socket = sockets.at(-1)!;
  });

  /** A tone of 440 Hz for a tenth of a second, as it was sent. */
  async function said(rate: number): Promise<number[]> {
    const turn = link.begin(rate);
    await turn.push(Float32Array.from({ length: rate / 10 }, (_, i) => tone(i / rate)));
    turn.end();
    await vi.waitFor(() => expect(socket.texts.at(-1)!.type).toBe("end"));
    return socket.sound;
  }
  const tone = (time: number) => Math.sin(2 * Math.PI * 440 * time);

  it("keeps a rate that servers take", async () => {
    const sent = await said(44_100);
    expect(socket.texts[0]!.rate).toBe(44_100);
    expect(sent).toHaveLength(4410);
  });

  it.each([96_000, 192_000, 4_000])("of %i a second is sent at another", async (rate) => {
    const sent = await said(rate);
    expect(socket.texts[0]!.rate).toBe(48_000);
    expect(sent).toHaveLength(4800);
    for (let i = 500; i < 4300; i += 10) {
      expect(Math.abs(sent[i]! / 32767 - tone(i / 48_000))).toBeLessThan(0.02);
    }
  });
});

describe("the token of a server", () => {
  const token = "secret";

  it("is for the server's own addresses", () => {
    const server = "wss://live.test/live";
    expect(tokenFor("https://live.test/avatars/me", { server, token })).toBe(token);
    for (const other of ["me.bundle", "https://cdn.test/me", "http://live.test/me"]) {
      expect(tokenFor(other, { server, token })).toBeUndefined();
    }
  });

  it("is for the page's own where the server is", () => {
    for (const server of ["live", "/live", null, undefined]) {
      expect(tokenFor("avatars/me", { server, token })).toBe(token);
      expect(tokenFor("https://cdn.test/me", { server, token })).toBeUndefined();
    }
  });
});
