"""What the page's own speech takes from the Python package: names, tables and times, as TypeScript.

``scripts/make_web_types.py`` writes ``web/src/speech/tables.ts`` with it; a test checks that.
"""

from __future__ import annotations

import json

from vasa3d.audio.features import FRAME_RATE
from vasa3d.head.gaze import PITCH_DEGREES, YAW_DEGREES
from vasa3d.motion import coarticulation
from vasa3d.motion.conditions import CONDITION_SIZE
from vasa3d.motion.denoiser import BLOCK, HEARD, STATE_SIZE
from vasa3d.motion.prosody import FRAMES_AHEAD
from vasa3d.motion.speech import VISEMES


def speech_tables() -> str:
    """The text of ``web/src/speech/tables.ts``."""
    tables = coarticulation.page_tables()
    late = max(0, FRAMES_AHEAD - coarticulation.FRAMES_AHEAD) / FRAME_RATE
    lines = [
        "/** Made by scripts/make_web_types.py from the Python package; do not edit. */",
        "",
        f"export const VISEMES = {json.dumps(VISEMES)} as const;",
        f"export const FRAMES_BEHIND = {tables['framesBehind']};",
        f"export const FRAMES_AHEAD = {tables['framesAhead']};",
        "/** Of a block of the diffusion transformer: frames, and those of them that are heard. */",
        f"export const BLOCK = {BLOCK};",
        f"export const HEARD = {HEARD};",
        "/** Numbers of a state, and of wishes, of the transformer. */",
        f"export const STATE_SIZE = {STATE_SIZE};",
        f"export const WISHES = {CONDITION_SIZE};",
        "/** How long after a stress the face answers. */",
        f"export const STRESS_SECONDS = {late};",
        "/** What a full look to the side, or up and down, turns the eyes by. */",
        f"export const GAZE_DEGREES = {json.dumps([YAW_DEGREES, PITCH_DEGREES])} as const;",
        "",
        "export interface Group {",
        "  channels: number[];",
        "  /** (channel, viseme) */",
        "  targets: number[][];",
        "  dominances: number[];",
        "  kernel: number[];",
        "}",
        "",
        f"export const GROUPS: Group[] = {json.dumps(list(tables['groups'].values()))};",
    ]
    return "\n".join(lines) + "\n"
