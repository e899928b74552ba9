/**
 * `<vasa-head src="avatar.safetensors">`: the player as a web component.
 *
 * Attributes: `src`; `server`, the socket of `vasa3d serve` (without it, the page itself turns sound into motion);
 * `life`, "rules" for slow devices; `token`; `background` ("original",
 * "transparent" or "#rrggbb"); `label` for screen readers; `fixed` takes the controls of the view away.
 * `progress` events tell how much of the avatar has come. The player itself is `element.player` once the event
 * `ready` has come; its events bubble up from here.
 */

import { attachControls } from "./controls";
import { Player } from "./player";
import type { Background } from "./renderer";

const STYLE = `
:host { display: block; position: relative; aspect-ratio: 1; }
canvas { width: 100%; height: 100%; display: block; touch-action: none; cursor: grab; }
canvas:active { cursor: grabbing; }
canvas:focus-visible { outline: 3px solid #6ea8fe; outline-offset: -3px; }
`;
const HELP = "Drag or use the arrow keys to turn, plus and minus to zoom, 0 to reset.";
const EVENTS = ["start", "end", "interrupt", "error", "view"];

/** "original", "transparent" or "#rrggbb" as the player wants it. */
export function parseBackground(text: string | null): Background {
  if (text === "transparent") return text;
  const digits = /^#([0-9a-f]{6})$/i.exec(text ?? "")?.[1];
  if (!digits) return "original";
  const value = parseInt(digits, 16);
  return [(value >> 16) / 255, ((value >> 8) & 255) / 255, (value & 255) / 255];
}

export class VasaHead extends HTMLElement {
  static readonly observedAttributes = ["src", "background", "label", "server"];
  player: Player | null = null;
  private canvas: HTMLCanvasElement | null = null;
  private detach: (() => void) | null = null;
  private loading = 0;

  connectedCallback(): void {
    void this.open();
  }

  disconnectedCallback(): void {
    this.shut();
  }

  attributeChangedCallback(name: string, before: string | null, after: string | null): void {
    if (!this.isConnected || before === after) return;
    if (name === "src") void this.open();
    else if (name === "server") this.player?.setServer(after);
    else if (name === "label") this.canvas?.setAttribute("aria-label", this.describe());
    else this.player?.setBackground(parseBackground(after));
  }

  private describe(): string {
    const label = this.getAttribute("label") ?? "Talking head";
    return this.hasAttribute("fixed") ? label : `${label}. ${HELP}`;
  }

  private async open(): Promise<void> {
    this.shut();
    const src = this.getAttribute("src");
    if (!src) return;
    const turn = this.loading;
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    // A canvas whose context is gone cannot have another, so each avatar gets a new one.
    const canvas = document.createElement("canvas");
    const style = document.createElement("style");
    style.textContent = STYLE;
    // Screen readers leave the arrow keys to what is an application.
    canvas.setAttribute("role", this.hasAttribute("fixed") ? "img" : "application");
    canvas.setAttribute("aria-roledescription", "3D portrait");
    canvas.setAttribute("aria-label", this.describe());
    root.replaceChildren(style, canvas);
    this.canvas = canvas;
    try {
      const player = await Player.load(canvas, src, {
        background: parseBackground(this.getAttribute("background")),
        server: this.getAttribute("server"),
        life: this.getAttribute("life") === "rules" ? "rules" : "diffusion",
        token: this.getAttribute("token") ?? undefined,
        onProgress: (loaded, total) => {
          const told = { lengthComputable: true, loaded, total };
          if (turn === this.loading) this.dispatchEvent(new ProgressEvent("progress", told));
        },
      });
      if (turn !== this.loading) {
        player.close();
        return;
      }
      this.adopt(player, canvas);
    } catch (error) {
      if (turn !== this.loading) return;
      const message = error instanceof Error ? error.message : String(error);
      this.dispatchEvent(new ErrorEvent("error", { message, error, bubbles: true }));
    }
  }

  private adopt(player: Player, canvas: HTMLCanvasElement): void {
    this.player = player;
    player.setServer(this.getAttribute("server"));
    if (!this.hasAttribute("fixed")) {
      canvas.tabIndex = 0;
      this.detach = attachControls(canvas, player);
    }
    for (const name of EVENTS) {
      player.addEventListener(name, (event) => {
        const message = event instanceof ErrorEvent ? event.message : "";
        const copy = message
          ? new ErrorEvent(name, { message, bubbles: true })
          : new Event(name, { bubbles: true });
        this.dispatchEvent(copy);
      });
    }
    this.dispatchEvent(new Event("ready", { bubbles: true }));
  }

  private shut(): void {
    this.loading++;
    this.detach?.();
    this.detach = null;
    this.player?.close();
    this.player = null;
  }
}
