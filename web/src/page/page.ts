/**
 * The page around the head, as `vasa3d serve` and `vasa3d export` show it. What it offers is in the JSON
 * of its `config` element. In the address: `?bare` leaves the head alone on a transparent ground, for
 * OBS; `?background=` sets another ground; `#token=` opens servers that ask for one.
 */

import { EMOTIONS, VasaHead } from "../index";

interface Config {
  avatars?: { name: string; src: string }[];
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
const avatar = find<HTMLSelectElement>("avatar");
const emotion = find<HTMLSelectElement>("emotion");
const background = find<HTMLSelectElement>("background");
let head = new VasaHead();

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
  head = new VasaHead();
  head.setAttribute("src", src);
  head.setAttribute("label", "Talking head");
  head.setAttribute("background", background.value);
  if (config.server) head.setAttribute("server", config.server);
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

function applyEmotion(): void {
  head.player?.setEmotion(emotion.value === "neutral" ? {} : { [emotion.value]: 0.8 });
}

/** Run something that may fail, and say so. */
async function attempt(what: string, action: () => Promise<void>): Promise<void> {
  say(what);
  try {
    await action();
    say("Ready.");
  } catch (error) {
    say(error instanceof Error ? error.message : String(error), true);
  }
  update();
}

async function listen(): Promise<void> {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  microphone.setAttribute("aria-pressed", "true");
  try {
    await head.player?.speak(stream);
  } finally {
    for (const track of stream.getTracks()) track.stop();
  }
}

play.addEventListener("click", () => {
  void attempt("Speaking …", async () => head.player?.play(config.motion!, config.audio));
});
microphone.addEventListener("click", () => {
  if (microphone.getAttribute("aria-pressed") === "true") head.player?.interrupt();
  else void attempt("Listening … say something.", listen);
});
file.addEventListener("change", () => {
  const chosen = file.files?.[0];
  file.value = "";
  if (chosen) void attempt("Speaking …", async () => head.player?.speak(chosen));
});
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
const avatars = config.avatars ?? [];
for (const { name, src } of avatars) avatar.append(new Option(name, src));
for (const name of Object.keys(EMOTIONS)) emotion.append(new Option(name, name));
find("avatar-label").hidden = avatars.length < 2;
play.hidden = !config.motion;
microphone.hidden = find("file-label").hidden = !config.server;
stop.hidden = !config.motion && !config.server;
if (avatars[0]) show(avatars[0].src);
else say("There is no avatar here.", true);
