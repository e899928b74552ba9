/** What a page imports from `player.js`: functions, the player's class and `<vasa-head>`. */

import { VasaHead } from "./element";
import { Player, type PlayerOptions } from "./player";

export { CHANNELS, EMOTIONS } from "./generated";
export { restLatents, type Latents } from "./motion";
export { Player, VasaHead };
export type { PlayerOptions };

/** Fetch an avatar and show it on a canvas. */
export function load(
  canvas: HTMLCanvasElement,
  src: string,
  options?: PlayerOptions,
): Promise<Player> {
  return Player.load(canvas, src, options);
}

if (!customElements.get("vasa-head")) customElements.define("vasa-head", VasaHead);
