/**
 * The page around the head, as `vasa3d serve` and `vasa3d export` show it. What it offers is in the JSON
 * of its `config` element. In the address: `?bare` leaves the head alone on a transparent ground, for
 * OBS; `?background=` sets another ground; `#token=` opens servers that ask for one.
 */

import { EMOTIONS, VasaHead } from "../index";

interface Avatar {
  name: string;
  src: string;
}

interface Config {
  /** A server tells them itself, to whoever has its token. */
  avatars?: Avatar[];
  motion?: string;
  audio?: string;
  server?: string;
}

const config = JSON.parse(find("config").textContent || "{}") as Config;
const query = new URLSearchParams(location.search);
const bare = query.has("bare");
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
const status = find("status");
const play = find<HTMLButtonElement>("play");
const microphone = find<HTMLButtonElement>("microphone");
const file = find<HTMLInputElement>("file");
const stop = find<HTMLButtonElement>("stop");
const speech = find<HTMLSelectElement>("speech");
const avatar = find<HTMLSelectElement>("avatar");
const emotion = find<HTMLSelectElement>("emotion");
const background = find<HTMLSelectElement>("background");
let head = new VasaHead();
/** Counts what was begun, so that what it has taken the place of says nothing any more. */
let begun = 0;

function find<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

function say(text: string, wrong = false): void {
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
}

function update(): void {
  const player = head.player;
  const speaking = player?.speaking ?? false;
  play.disabled = !player || speaking;
  microphone.disabled = file.disabled = !player;
  stop.disabled = !speaking;
  if (!speaking) microphone.setAttribute("aria-pressed", "false");
}

/** Put the chosen avatar on the stage. */
function show(src: string): void {
  begun++;
  head = new VasaHead();
  head.setAttribute("src", src);
  head.setAttribute("label", "Talking head");
  head.setAttribute("background", background.value);
  applySpeech();
  if (token) head.setAttribute("token", token);
  head.addEventListener("ready", () => {
    say("Ready. Drag to turn the head.");
    applyEmotion();
    update();
  });
  for (const name of ["start", "end", "interrupt"]) head.addEventListener(name, update);
  head.addEventListener("error", (event) => {
    say((event as ErrorEvent).message, true);
    update();
  });
  say("Loading …");
  find("stage").replaceChildren(head);
  update();
}

/** Without a server, the page itself turns sound into motion. */
function applySpeech(): void {
  if (config.server && speech.value === "server") head.setAttribute("server", config.server);
  else head.removeAttribute("server");
}

function applyEmotion(): void {
  head.player?.setEmotion(emotion.value === "neutral" ? {} : { [emotion.value]: 0.8 });
}

/** Run something that may fail, and say so. */
async function attempt(what: string, action: () => Promise<void>): Promise<void> {
  const mine = ++begun;
  microphone.setAttribute("aria-pressed", "false");
  say(what);
  try {
    await action();
    // What went wrong meanwhile stays to be read.
    if (mine === begun && !status.classList.contains("wrong")) say("Ready.");
  } catch (error) {
    if (mine === begun) say(error instanceof Error ? error.message : String(error), true);
  }
  if (mine === begun) update();
}

const MICROPHONE_ERRORS: Record<string, string> = {
  NotAllowedError: "The microphone may not be used. Allow it in the address bar, then try again.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "The microphone cannot be opened; another program may be using it.",
};

async function openMicrophone(): Promise<MediaStream> {
  // Undefined where the address is neither https nor this computer's own.
  const devices = navigator.mediaDevices as MediaDevices | undefined;
  if (!devices) throw new Error("Browsers open the microphone on https pages and localhost only.");
  try {
    return await devices.getUserMedia({ audio: true });
  } catch (error) {
    const told = error instanceof DOMException ? MICROPHONE_ERRORS[error.name] : undefined;
    throw told ? new Error(told) : error;
  }
}

/** Be ready to speak; what it takes is fetched the first time only. */
async function prepare(): Promise<void> {
  say("Loading speech …");
  await head.player?.prepare();
}

const listening = () => microphone.getAttribute("aria-pressed") === "true";

async function listen(): Promise<void> {
  const mine = begun;
  const stream = await openMicrophone();
  try {
    if (mine !== begun) return;
    microphone.setAttribute("aria-pressed", "true");
    await prepare();
    if (mine !== begun || !listening()) return;
    say("Listening … say something.");
    await head.player?.speak(stream);
  } finally {
    for (const track of stream.getTracks()) track.stop();
  }
}

async function speakFile(chosen: File): Promise<void> {
  await prepare();
  say("Speaking …");
  await head.player?.speak(chosen);
}

async function avatarsHere(): Promise<Avatar[]> {
  if (config.avatars || !config.server) return config.avatars ?? [];
  const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
  const answer = await fetch("avatars", { headers });
  if (!answer.ok) throw new Error(await answer.text());
  return (await answer.json()) as Avatar[];
}

async function open(): Promise<void> {
  const avatars = await avatarsHere();
  for (const { name, src } of avatars) avatar.append(new Option(name, src));
  find("avatar-label").hidden = avatars.length < 2;
  if (!avatars[0]) throw new Error("There is no avatar here.");
  show(avatars[0].src);
}

play.addEventListener("click", () => {
  void attempt("Speaking …", async () => head.player?.play(config.motion!, config.audio));
});
microphone.addEventListener("click", () => {
  if (listening()) {
    microphone.setAttribute("aria-pressed", "false");
    head.player?.interrupt();
  } else void attempt("Waiting for the microphone …", listen);
});
file.addEventListener("change", () => {
  const chosen = file.files?.[0];
  file.value = "";
  if (chosen) void attempt("Loading …", () => speakFile(chosen));
});
speech.addEventListener("change", applySpeech);
stop.addEventListener("click", () => head.player?.interrupt());
find("reset").addEventListener("click", () => {
  if (head.player) head.player.viewpoint = { yawDegrees: 0, pitchDegrees: 0, distance: 1 };
});
emotion.addEventListener("change", applyEmotion);
background.addEventListener("change", () => head.setAttribute("background", background.value));
avatar.addEventListener("change", () => show(avatar.value));

document.documentElement.classList.toggle("bare", bare);
const ground = query.get("background") ?? (bare ? "transparent" : null);
if (ground) {
  if (![...background.options].some((option) => option.value === ground)) {
    background.append(new Option(ground, ground));
  }
  background.value = ground;
}
for (const name of Object.keys(EMOTIONS)) emotion.append(new Option(name, name));
play.hidden = !config.motion;
find("speech-label").hidden = !config.server;
void attempt("Loading …", open);
