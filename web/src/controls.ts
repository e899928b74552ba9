/** Turning, zooming and resetting the view by mouse, touch and keyboard. */

import { FRONT } from "./camera";
import type { Player } from "./player";

const DEGREES_PER_SIDE = 120;
const KEY_DEGREES = 5;
const KEY_ZOOM = 1.1;
const WHEEL_ZOOM = 0.0012;

/** Attach the controls to a focusable element; returns how to detach them. */
export function attachControls(element: HTMLElement, player: Player): () => void {
  const pointers = new Map<number, { x: number; y: number }>();
  let spread = 0;

  const turn = (yaw: number, pitch: number, zoom = 1) => {
    const { yawDegrees, pitchDegrees, distance } = player.viewpoint;
    player.viewpoint = {
      yawDegrees: yawDegrees + yaw,
      pitchDegrees: pitchDegrees + pitch,
      distance: distance * zoom,
    };
  };
  const distanceOfPointers = () => {
    const [a, b] = [...pointers.values()];
    return a && b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  };
  const handlers: Partial<{
    [K in keyof HTMLElementEventMap]: (e: HTMLElementEventMap[K]) => void;
  }> = {
    pointerdown: (event) => {
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      element.setPointerCapture(event.pointerId);
      spread = distanceOfPointers();
    },
    pointermove: (event) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const now = { x: event.clientX, y: event.clientY };
      pointers.set(event.pointerId, now);
      if (pointers.size === 1) {
        const scale = DEGREES_PER_SIDE / Math.min(element.clientWidth, element.clientHeight);
        turn(-(now.x - last.x) * scale, (now.y - last.y) * scale);
      } else if (spread > 0) {
        const wider = distanceOfPointers();
        turn(0, 0, spread / Math.max(wider, 1));
        spread = wider;
      }
    },
    pointerup: (event) => pointers.delete(event.pointerId),
    pointercancel: (event) => pointers.delete(event.pointerId),
    wheel: (event) => {
      event.preventDefault();
      turn(0, 0, Math.exp(event.deltaY * WHEEL_ZOOM));
    },
    dblclick: () => (player.viewpoint = { ...FRONT }),
    keydown: (event) => {
      const act = KEYS[event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      if (act === "reset") player.viewpoint = { ...FRONT };
      else turn(...act);
    },
  };
  const entries = Object.entries(handlers) as [string, EventListener][];
  for (const [name, handler] of entries) {
    element.addEventListener(name, handler, { passive: false });
  }
  return () => {
    for (const [name, handler] of entries) element.removeEventListener(name, handler);
  };
}

const KEYS: Record<string, [number, number, number?] | "reset"> = {
  ArrowLeft: [-KEY_DEGREES, 0],
  ArrowRight: [KEY_DEGREES, 0],
  ArrowUp: [0, KEY_DEGREES],
  ArrowDown: [0, -KEY_DEGREES],
  "+": [0, 0, 1 / KEY_ZOOM],
  "=": [0, 0, 1 / KEY_ZOOM],
  "-": [0, 0, KEY_ZOOM],
  "0": "reset",
  Home: "reset",
};
