/**
 * The page for devices that cannot draw Gaussians: the server draws, video and sound come over WebRTC.
 * A data channel carries the messages of docs/protocol.md. `#token=` in the address opens servers that ask
 * for one.
 */

import type { ClientMessage, ServerMessage } from "../generated";

const RATE = 48_000;
const BLOCK = 16_000;
/** Sound on its way to the server; more would wait there. */
const MAX_BUFFERED = 256_000;
const GATHER_MILLISECONDS = 2_000;

const token = new URLSearchParams(location.hash.slice(1)).get("token");
const authorisation: Record<string, string> = token ? { Authorization: `Bearer ${token}` } : {};
const status = find("status");
const video = find<HTMLVideoElement>("video");
const microphone = find<HTMLButtonElement>("microphone");
const file = find<HTMLInputElement>("file");
const stop = find<HTMLButtonElement>("stop");
const avatar = find<HTMLSelectElement>("avatar");

/** STUN and TURN servers, as the server names them. */
let iceServers: RTCIceServer[] = [];
let peer: RTCPeerConnection | null = null;
let channel: RTCDataChannel | null = null;
let voice: RTCRtpSender | null = null;
let captured: MediaStreamTrack | null = null;
/** Counts releases of the microphone, so that one asked for before is not taken after. */
let releases = 0;
/** Turns are counted for each connection; `speaking` is the one under way. */
let turns = 0;
let speaking = 0;

function find<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

function say(text: string, wrong = false): void {
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
}

function update(): void {
  const open = channel?.readyState === "open";
  microphone.disabled = file.disabled = !open;
  stop.disabled = !open || speaking === 0;
  microphone.setAttribute("aria-pressed", String(captured !== null));
}

function send(message: ClientMessage): void {
  if (channel?.readyState === "open") channel.send(JSON.stringify(message));
}

function receive(message: ServerMessage): void {
  if (message.type === "ready") say("Ready.");
  else if (message.type === "failure") {
    releaseMicrophone();
    say(message.message, true);
    speaking = 0;
  } else if (message.type === "done" && message.turn === speaking) {
    speaking = 0;
    say("Ready.");
  }
  update();
}

/** All addresses of this device, or those that were found in time. */
async function gathered(from: RTCPeerConnection): Promise<void> {
  await new Promise<void>((done) => {
    if (from.iceGatheringState === "complete") done();
    setTimeout(done, GATHER_MILLISECONDS);
    from.addEventListener("icegatheringstatechange", () => {
      if (from.iceGatheringState === "complete") done();
    });
  });
}

async function connect(): Promise<void> {
  disconnect();
  say("Connecting …");
  const mine = new RTCPeerConnection({ iceServers });
  peer = mine;
  mine.addTransceiver("video", { direction: "recvonly" });
  voice = mine.addTransceiver("audio", { direction: "sendrecv" }).sender;
  channel = mine.createDataChannel("live");
  channel.binaryType = "arraybuffer";
  channel.onmessage = ({ data }) => receive(JSON.parse(data as string) as ServerMessage);
  channel.onclose = () => {
    if (peer !== mine) return;
    releaseMicrophone();
    speaking = 0;
    if (!status.classList.contains("wrong")) say("The server has closed the connection.", true);
    update();
  };
  const stream = new MediaStream();
  mine.ontrack = ({ track }) => {
    stream.addTrack(track);
    video.srcObject = stream;
  };
  await mine.setLocalDescription();
  await gathered(mine);
  const answer = await fetch("webrtc/offer", {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      ...authorisation,
    },
    body: JSON.stringify({ sdp: mine.localDescription?.sdp, avatar: avatar.value || undefined }),
  });
  const { sdp, message } = (await answer.json()) as { sdp?: string; message?: string };
  if (!sdp) throw new Error(message ?? "The server did not answer.");
  if (peer === mine) await mine.setRemoteDescription({ type: "answer", sdp });
}

function disconnect(): void {
  releaseMicrophone();
  turns = speaking = 0;
  peer?.close();
  peer = null;
}

function releaseMicrophone(): void {
  releases++;
  captured?.stop();
  captured = null;
  void voice?.replaceTrack(null);
}

/** A turn begins; browsers let sound be heard once somebody has pressed something. */
function begin(): number {
  video.muted = false;
  speaking = ++turns;
  send({ type: "start", turn: speaking, rate: RATE });
  update();
  return speaking;
}

function interrupt(): void {
  releaseMicrophone();
  if (speaking) send({ type: "interrupt" });
  speaking = 0;
  say("Ready.");
  update();
}

async function listen(): Promise<void> {
  interrupt();
  const devices = navigator.mediaDevices as MediaDevices | undefined;
  if (!devices) throw new Error("Browsers open the microphone on https pages and localhost only.");
  const asked = releases;
  const stream = await devices.getUserMedia({ audio: true });
  if (asked !== releases) {
    for (const track of stream.getTracks()) track.stop();
    return;
  }
  captured = stream.getAudioTracks()[0] ?? null;
  await voice?.replaceTrack(captured);
  if (asked !== releases) return;
  begin();
  say("Listening … say something.");
}

async function speak(chosen: File): Promise<void> {
  interrupt();
  say("Loading …");
  const decoder = new OfflineAudioContext(1, 1, RATE);
  const sound = await decoder.decodeAudioData(await chosen.arrayBuffer());
  const channels = Array.from({ length: sound.numberOfChannels }, (_, c) =>
    sound.getChannelData(c),
  );
  const turn = begin();
  say("Speaking …");
  const began = performance.now();
  for (let block = 0; block * BLOCK < sound.length && turn === speaking; block++) {
    channel?.send(packed(turn, block, channels, Math.min(BLOCK, sound.length - block * BLOCK)));
    // Not further ahead of what is heard than the server lets wait.
    const ahead = () => ((block + 1) * BLOCK) / RATE - (performance.now() - began) / 1000;
    while (turn === speaking && (ahead() > 10 || (channel?.bufferedAmount ?? 0) > MAX_BUFFERED)) {
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  if (turn === speaking) send({ type: "end", turn });
}

/** A message of sound: turn, block, and the mean of all channels as int16. */
function packed(turn: number, block: number, channels: Float32Array[], count: number): ArrayBuffer {
  const message = new ArrayBuffer(8 + 2 * count);
  const view = new DataView(message);
  view.setUint32(0, turn, true);
  view.setUint32(4, block, true);
  for (let i = 0; i < count; i++) {
    const total = channels.reduce((sum, part) => sum + part[block * BLOCK + i]!, 0);
    const value = Math.max(-1, Math.min(1, total / channels.length));
    view.setInt16(8 + 2 * i, Math.round(value * 32767), true);
  }
  return message;
}

/** Run something that may fail, and say so. */
async function attempt(action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    say(error instanceof Error ? error.message : String(error), true);
  }
  update();
}

/** What the server tells to whoever has its token. */
async function told<T>(path: string): Promise<T> {
  const answer = await fetch(path, { headers: authorisation });
  if (!answer.ok) throw new Error(await answer.text());
  return (await answer.json()) as T;
}

/** Choose among the avatars. */
async function open(): Promise<void> {
  const avatars = await told<{ name: string }[]>("avatars");
  iceServers = await told<RTCIceServer[]>("webrtc/ice");
  for (const { name } of avatars) avatar.append(new Option(name, name));
  find("avatar-label").hidden = avatars.length < 2;
  await connect();
}

microphone.addEventListener("click", () => {
  if (captured) interrupt();
  else void attempt(listen);
});
file.addEventListener("change", () => {
  const chosen = file.files?.[0];
  file.value = "";
  if (chosen) void attempt(() => speak(chosen));
});
stop.addEventListener("click", interrupt);
avatar.addEventListener("change", () => void attempt(connect));
addEventListener("pagehide", disconnect);

void attempt(open);
