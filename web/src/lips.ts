/** Contacts of the lips, which motion does not carry along, as they show in its channels. */

import { channel } from "./motion";

/** What `motion/coarticulation.py` rolls the lips by, at the teeth and on each other. */
export const ROLLED_AT_TEETH = 0.3;
export const ROLLED_SHUT = { lower: 0.1, upper: 0.08 };

const LOWER = channel("mouthRollLower");
const UPPER = channel("mouthRollUpper");

/** Contact in [0, 1] of the lower lip with the teeth, and of the lips with each other. */
export function contacts(dyn: Float32Array): { teeth: number; shut: number } {
  const shut = Math.min(dyn[UPPER]! / ROLLED_SHUT.upper, 1);
  // Lips that shut take the lower one from the teeth.
  const apart = 1 - shut;
  const rolled = apart > 0 ? (dyn[LOWER]! - ROLLED_SHUT.lower * shut) / apart : 0;
  return { teeth: Math.min(Math.max(rolled / ROLLED_AT_TEETH, 0), apart), shut };
}
