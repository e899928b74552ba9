/**
 * The page around the head, as `vasa3d serve` and `vasa3d export` show it. What it offers is in the JSON
 * of its `config` element. In the address: `?bare` leaves the head alone on a transparent ground, for
 * OBS; `?listen` follows the microphone from the start; `?background=` sets another ground, `?avatar=`
 * chooses by name; `#token=` opens servers that ask for one.
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
  /** A recording for who has none at hand. */
  example?: string;
  server?: string;
}

/** What listens from the start begins anew when a connection has ended, after so long. */
const AGAIN_MILLISECONDS = 3_000;

const config = JSON.parse(find("config").textContent || "{}") as Config;
const query = new URLSearchParams(location.search);
const bare = query.has("bare");
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
const stage = find("stage");
const status = find("status");
const progress = find<HTMLProgressElement>("progress");
const play = find<HTMLButtonElement>("play");
const microphone = find<HTMLButtonElement>("microphone");
const file = find<HTMLInputElement>("file");
const example = find<HTMLButtonElement>("example");
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
  status.textContent = text.charAt(0).toUpperCase() + text.slice(1);
  status.classList.toggle("wrong", wrong);
}

function update(): void {
  const player = head.player;
  const speaking = player?.speaking ?? false;
  play.disabled = !player || speaking;
  microphone.disabled = file.disabled = example.disabled = !player;
  stop.disabled = !speaking;
  if (!speaking) microphone.setAttribute("aria-pressed", "false");
}

/** Put the chosen avatar on the stage. */
function show(src: string): void {
  begun++;
  const name = avatar.selectedOptions[0]?.text ?? "Talking head";
  document.title = `${name} · vasa3d`;
  find("name").textContent = name;
  head = new VasaHead();
  head.setAttribute("src", src);
  head.setAttribute("label", `Talking head of ${name}`);
  head.setAttribute("background", background.value);
  applySpeech();
  if (token) head.setAttribute("token", token);
  head.addEventListener("progress", (event) => {
    progress.value = (event as ProgressEvent).loaded / (event as ProgressEvent).total;
    progress.hidden = false;
  });
  head.addEventListener("ready", () => {
    settle();
    say("Ready. Drag to turn the head.");
    applyEmotion();
    update();
    if (query.has("listen")) void listenOn(head);
  });
  for (const name of ["start", "end", "interrupt"]) head.addEventListener(name, update);
  head.addEventListener("error", (event) => {
    settle();
    say((event as ErrorEvent).message, true);
    update();
  });
  say("Loading …");
  stage.classList.add("loading");
  stage.replaceChildren(head);
  update();
}

/** Nothing is being loaded any more. */
function settle(): void {
  stage.classList.remove("loading");
  progress.hidden = true;
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
  say(head.hasAttribute("server") ? "Connecting …" : "Loading speech, 7 MB, the first time …");
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

/** Listen as long as a head is shown, whatever happens to the connection. */
async function listenOn(shown: VasaHead): Promise<void> {
  while (head === shown) {
    await attempt("Waiting for the microphone …", listen);
    await new Promise((done) => setTimeout(done, AGAIN_MILLISECONDS));
  }
}

async function speak(chosen: Blob | string): Promise<void> {
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
  const wanted = query.get("avatar");
  const first = wanted === null ? avatars[0] : avatars.find(({ name }) => name === wanted);
  if (!first)
    throw new Error(wanted ? `There is no avatar "${wanted}".` : "There is no avatar here.");
  avatar.value = first.src;
  show(first.src);
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
  if (chosen) void attempt("Loading …", () => speak(chosen));
});
example.addEventListener("click", () => {
  void attempt("Loading …", () => speak(config.example!));
});
speech.addEventListener("change", applySpeech);
stop.addEventListener("click", () => head.player?.interrupt());
find("reset").addEventListener("click", () => {
  if (head.player) head.player.viewpoint = { yawDegrees: 0, pitchDegrees: 0, distance: 1 };
});
emotion.addEventListener("change", applyEmotion);
background.addEventListener("change", () => head.setAttribute("background", background.value));
avatar.addEventListener("change", () => show(avatar.value));

addEventListener("keydown", ({ key }) => {
  if (key === "Escape") head.player?.interrupt();
});
// A recording may also be dropped anywhere on the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const dropped = event.dataTransfer?.files[0];
  if (dropped && head.player) void attempt("Loading …", () => speak(dropped));
});

find("stuck").remove();
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
example.hidden = !config.example;
find("speech-label").hidden = !config.server;
void attempt("Loading …", open);
