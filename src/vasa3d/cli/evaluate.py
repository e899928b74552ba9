"""``vasa3d evaluate``: protocols that measure the product."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from vasa3d.cli.console import Reporter
from vasa3d.cli.make import speak_clip
from vasa3d.cli.options import AsJson, Fps, Seed
from vasa3d.errors import InputError

if TYPE_CHECKING:
    from vasa3d.avatar.avatar import Avatar

SIZE = 512

app = typer.Typer(help="Measure the product.", no_args_is_help=False, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Measure the product."""


@app.command()
def lipsync(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="AUDIO TEXTGRID...", help="Recordings, each with its phone times."),
    ],
    avatar: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--avatar", help="Avatar that speaks; default: one of the demo portrait."),
    ] = None,
    fps: Fps = 25.0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Do the lips follow the sounds? Speak, draw, find the lips in the pictures, score.

    Each TextGrid holds a tier of ARPAbet phones. Reported are the share of p, b, m with closed
    lips and of AA, AE, AO, AY, AW with open ones, and figures for each phone.

    \b
    Examples:
      vasa3d evaluate lipsync sentence.flac sentence.TextGrid
      vasa3d evaluate lipsync a.wav a.TextGrid b.wav b.TextGrid --avatar me.vasa3d --json
    """
    from vasa3d.audio.clips import load_audio
    from vasa3d.avatar.avatar import Avatar
    from vasa3d.evaluation.lipsync import evaluate_lipsync, merge
    from vasa3d.evaluation.readback import tracked_lip_gap
    from vasa3d.motion.generator import MotionControls
    from vasa3d.pipeline import render, resolve_background
    from vasa3d.video import check_rate

    if len(files) % 2:
        raise InputError(
            f"{files[-1]} has no partner.", hint="give pairs: AUDIO TEXTGRID AUDIO TEXTGRID"
        )
    reporter = Reporter(as_json)
    check_rate(fps)
    pairs = list(zip(files[::2], files[1::2], strict=True))
    clips = [load_audio(audio) for audio, _ in pairs]
    person = Avatar.load(avatar) if avatar else _demo_avatar(reporter, seed)
    background = resolve_background(person, "original", SIZE)
    results = []
    for clip, (audio, grid) in zip(clips, pairs, strict=True):
        latents = speak_clip(reporter, clip, fps, seed, MotionControls())
        frames = render(person, latents, size=SIZE, background=background)
        gap = tracked_lip_gap(reporter.count(frames, len(latents), audio.name))
        results.append(evaluate_lipsync(gap, fps, grid))
    whole = merge(results)
    reporter.finish({**whole, "sentences": len(pairs)}, _table(whole))


def _demo_avatar(reporter: Reporter, seed: int) -> Avatar:
    """The avatar of the portrait that scikit-image brings along."""
    import skimage.data

    from vasa3d.pipeline import create_events

    portrait = Path(skimage.data.__file__).parent / "astronaut.png"
    return reporter.follow(create_events(portrait, seed=seed), "avatar")["result"].avatar


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"lips closed in p, b, m      {result['pbm_closed']:6.1%}",
        f"lips open in open vowels    {result['vowels_open']:6.1%}",
        "",
        "phone  count   shut  opened    gap",
    ]
    lines += [
        f"{name:5} {row['count']:6} {row['shut']:6.0%} {row['opened']:7.0%} {row['gap']:6.2f}"
        for name, row in result["phones"].items()
    ]
    return "\n".join(lines)
