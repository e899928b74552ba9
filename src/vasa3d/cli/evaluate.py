"""``vasa3d evaluate``: protocols that measure the product."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from vasa3d.cli import motions, protocols
from vasa3d.cli.console import Reporter
from vasa3d.cli.options import AsJson, Fps, Seed
from vasa3d.cli.shots import avatar_or_default, warn_all
from vasa3d.errors import InputError

app = typer.Typer(help="Measure the product.", no_args_is_help=False, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Measure the product."""


app.command()(protocols.reenact)
app.command()(protocols.pair)
app.command("novel-view")(protocols.novel_view)
app.command()(motions.motion)
app.command()(protocols.source)


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
    rendered: Annotated[
        bool,
        typer.Option("--rendered", help="Read the lips from drawn frames by a face tracker too."),
    ] = False,
    transcript: Annotated[
        bool,
        typer.Option(
            "--transcript", help="Let the lips know the words, too: the TextGrid's tier of words."
        ),
    ] = False,
    fps: Fps = 25.0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Do the lips follow the sounds? Speak, read the lips from the mesh, score.

    Each TextGrid holds a tier of ARPAbet phones. Reported are the shares of p, b, m with closed
    lips, of AA, AE, AO, AY, AW with closed ones, of f, v at the teeth, of rounded UW, OW, W, the
    lag of the mouth, and figures for each class of phones and each phone; beside a face held
    still and the true phones at their true times.

    \b
    Examples:
      vasa3d evaluate lipsync sentence.flac sentence.TextGrid
      vasa3d evaluate lipsync a.wav a.TextGrid b.wav b.TextGrid --avatar me.vasa3d --json
      vasa3d evaluate lipsync sentence.flac sentence.TextGrid --transcript
      vasa3d evaluate lipsync sentence.flac sentence.TextGrid --rendered
    """
    from vasa3d.audio.clips import load_audio
    from vasa3d.audio.textgrid import phone_tier, read_textgrid, spoken_words
    from vasa3d.evaluation.lipsync import Sentence, lipsync_events
    from vasa3d.video import check_rate

    if len(files) % 2:
        raise InputError(
            f"{files[-1]} has no partner.", hint="give pairs: AUDIO TEXTGRID AUDIO TEXTGRID"
        )
    reporter = Reporter(as_json)
    check_rate(fps)
    sentences = []
    for audio, grid in zip(files[::2], files[1::2], strict=True):
        tiers = read_textgrid(grid)
        said = spoken_words(tiers) if transcript else ""
        sentences.append(Sentence(audio.name, load_audio(audio), phone_tier(tiers), said))
    for sentence in sentences:
        warn_all(reporter, sentence.clip.warnings)
    person = avatar_or_default(reporter, avatar, seed)
    events = lipsync_events(person, sentences, fps=fps, seed=seed, rendered=rendered)
    figures = reporter.follow(events, "lips")
    reporter.finish({**figures, "sentences": len(sentences)}, _table(figures))


@app.command()
def mouth(
    recordings: Annotated[
        list[Path], typer.Argument(metavar="AUDIO...", help="Recordings, of speech or not.")
    ],
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """How does the mouth move, whatever the recording: frozen, flapping, shut where nobody speaks?

    \b
    Examples:
      vasa3d evaluate mouth whispered.wav music.mp3 --json
    """
    from vasa3d.audio.clips import load_audio
    from vasa3d.evaluation.mouth import mouth_events

    reporter = Reporter(as_json)
    clips = [(path.name, load_audio(path)) for path in recordings]
    table = reporter.follow(mouth_events(clips, seed=seed), "mouth")["clips"]
    lines = [f"{'':32} openings/s   open   shut  widest mm"]
    lines += [
        f"{name:32} {row['openings_per_second']:10.2f} {row['open']:6.0%} {row['shut']:6.0%}"
        f" {1000 * row['widest_metres']:10.1f}"
        for name, row in table.items()
    ]
    reporter.finish({"clips": table}, "\n".join(lines))


@app.command()
def capture(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="AUDIO TAKE...", help="Recordings, each with its captured take."),
    ],
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Does the jaw move as a real one did? Speak recordings of captured takes and compare.

    A take is an .npz with weights and fps; bs_names.txt beside it names its columns.

    \b
    Examples:
      vasa3d evaluate capture take.flac bs_value_take.npz --json
    """
    from vasa3d.audio.clips import load_audio
    from vasa3d.evaluation.capture import capture_figures, read_jaw

    if len(files) % 2:
        raise InputError(f"{files[-1]} has no partner.", hint="give pairs: AUDIO TAKE AUDIO TAKE")
    reporter = Reporter(as_json)
    takes = {
        audio.name: capture_figures(load_audio(audio), *read_jaw(take), seed=seed)
        for audio, take in zip(files[::2], files[1::2], strict=True)
    }
    lines = [f"{'':24}    jaw   best  lag, ms  energy"]
    lines += [
        f"{name:24} {row['jaw_correlation']:6.2f} {row['best_correlation']:6.2f}"
        f" {row['lag_ms']:8.0f} {row['energy_correlation']:7.2f}"
        for name, row in takes.items()
    ]
    reporter.finish({"takes": takes}, "\n".join(lines))


def _table(result: dict[str, Any]) -> str:
    labels = {
        "pbm_closed": "p, b, m closed", "vowels_closed": "open vowels closed",
        "fv_labiodental": "f, v at the teeth", "rounding": "uw, ow, w rounded",
        "silence_closed": "pauses closed", "lag_ms": "lag, ms", "false_closures": "false closures a minute",
    }  # fmt: skip
    names = [n for n in ("ours", "ours_transcript", "held_still", "phone_timed") if n in result]
    columns = [result[name] for name in names]
    if columns[0]["widest_metres"] != result["widest_metres"]:
        names, columns = ["video", *names], [result, *columns]
    lines = [f"{'':24}" + "".join(f" {name:>15}" for name in names)]
    for key, label in labels.items():
        form = ".1f" if key in ("lag_ms", "false_closures") else ".1%"
        cells = ["-" if isnan(column[key]) else f"{column[key]:{form}}" for column in columns]
        lines.append(f"{label:24}" + "".join(f" {cell:>15}" for cell in cells))
    for kind in ("classes", "phones"):
        lines += ["", f"{kind:18}  count   shut  opened  teeth  round    gap"]
        lines += [
            f"{name:18} {row['count']:6} {row['shut']:6.0%} {row['opened']:7.0%} {row['teeth']:6.0%}"
            f" {row['rounded']:6.0%} {row['gap']:6.2f}"
            for name, row in result[kind].items()
            if row["count"]
        ]
    return "\n".join(lines)


@app.command()
def ablation(
    portraits: Annotated[list[Path], typer.Argument(metavar="PORTRAIT...", help="Photos.")],
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1, max=100_000, help="Steps of each setting; those of standard if absent."
        ),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """What does each part of the customisation add? The paper's Table 1 on made-up frames never trained on.

    \b
    Examples:
      vasa3d evaluate ablation portrait.jpg
      vasa3d evaluate ablation a.jpg b.jpg --steps 300 --json
    """
    from dataclasses import replace

    import numpy as np

    from vasa3d.customisation.config import CustomisationConfig
    from vasa3d.errors import ImageError
    from vasa3d.evaluation.ablation import ablate_events
    from vasa3d.files import input_file

    reporter = Reporter(as_json)
    for portrait in portraits:
        input_file(portrait, "an image", ImageError)
    config = CustomisationConfig(seed=seed)
    config = config if steps is None else replace(config, steps=steps)
    each = {
        str(portrait): reporter.follow(ablate_events(portrait, config), portrait.stem)["result"]
        for portrait in portraits
    }
    tables = list(each.values())
    mean = {
        setting: {key: float(np.mean([table[setting][key] for table in tables])) for key in row}
        for setting, row in tables[0].items()
    }
    lines = ["| setting | PSNR | L1 | SSIM | edges | edges_photo |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {name} | {row['psnr']:.2f} | {row['l1']:.4f} | {row['ssim']:.4f} | {row['edges']:.5f} "
        f"| {row['edges_photo']:.5f} |"
        for name, row in mean.items()
    ]
    reporter.finish({"settings": mean, "portraits": each, "steps": config.steps}, "\n".join(lines))
