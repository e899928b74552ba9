"""``vasa3d evaluate motion``: do head, eyes and brows move as those of people do?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vasa3d.cli.console import Reporter
from vasa3d.cli.options import AsJson
from vasa3d.cli.shots import warn_all

_ROWS = (
    ("head_std", "spread of the head, degrees"),
    ("head_speed", "speed, degrees a second"),
    ("head_acceleration_p99", "acceleration, 99th percentile"),
    ("in_range", "these within the real takes"),
    ("spectrum_db", "spectrum off the real takes, dB"),
    ("blinks_per_minute", "blinks a minute"),
    ("blink_ms", "length of a blink, ms"),
    ("gaze_hold", "eyes at rest, share"),
    ("diversity", "difference between seeds"),
    ("beat", "nods on the beat"),
    ("beat_shuffled", "the same, beats moved"),
    ("pbm_closed", "p, b, m closed"),
    ("vowels_closed", "open vowels closed"),
    ("fv_labiodental", "f, v on the lip"),
    ("rounding", "rounded vowels round"),
    ("silence_closed", "closed in pauses"),
)


def motion(
    audio: Annotated[list[Path], typer.Argument(metavar="AUDIO...", help="Recordings.")],
    takes: Annotated[
        Path,
        typer.Option("--takes", help="Folder of real head motion: .csv or .npz motion files."),
    ],
    seeds: Annotated[int, typer.Option(min=1, max=50, help="Motions of each recording.")] = 3,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Measure the controls too.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Does the head move as heads do? Motion by diffusion, by rules, and held still, beside real takes.

    Where a TextGrid of phones lies beside a recording, under its name, the lips are scored too, beside those of the
    true phones at their true times.

    \b
    Examples:
      vasa3d evaluate motion speech.wav --takes real-heads/
      vasa3d evaluate motion a.wav b.wav --takes real-heads/ --seeds 5 --json
    """
    from vasa3d.audio.clips import load_audio
    from vasa3d.audio.textgrid import phone_tier, read_textgrid
    from vasa3d.evaluation.lipsync import Sentence
    from vasa3d.evaluation.motion import motion_events, real_heads

    reporter = Reporter(as_json)
    real = real_heads(takes)
    sentences = []
    for path in audio:
        grid = path.with_suffix(".TextGrid")
        phones = phone_tier(read_textgrid(grid)) if grid.is_file() else []
        sentences.append(Sentence(path.name, load_audio(path), phones))
        warn_all(reporter, sentences[-1].clip.warnings)
    events = motion_events(sentences, real, seeds=seeds, controls=controls)
    figures = reporter.follow(events, "motion")
    reporter.finish(figures, _table(figures))


def _table(figures: dict[str, Any]) -> str:
    from vasa3d.evaluation.motion import KINDS, TRUTH

    kinds = [kind for kind in ("real", *KINDS, TRUTH, "held_still") if kind in figures]
    lines = [f"{'':34}" + "".join(f"{kind:>16}" for kind in kinds)]
    for key, label in _ROWS:
        cells = [figures[kind].get(key, "-") for kind in kinds]
        lines.append(f"{label:34}" + "".join(f"{cell!s:>16}" for cell in cells))
    for kind, row in figures.get("controls", {}).items():
        lines += ["", f"controls, {kind}"]
        lines += [f"  {key:32}{value!s:>12}" for key, value in row.items()]
    for emotion, row in figures.get("emotion_lips", {}).items():
        lines += ["", f"lips, {emotion} in full strength"]
        lines += [f"  {key:32}{value!s:>12}" for key, value in row.items()]
    return "\n".join(lines)
