"""``vasa3d evaluate reenact|pair|novel-view|source``: avatars beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from vasa3d.cli.console import Reporter
from vasa3d.cli.options import AsJson, Force, Quality, QualityOption, Seed
from vasa3d.errors import ImageError, InputError, OutputError
from vasa3d.files import input_file, output_path

Sheet = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--sheet", help="Picture to write, .png: truth, avatar and their difference."),
]


def reenact(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Videos of one person.")],
    quality: QualityOption = Quality.standard,
    sheet: Sheet = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Does an avatar of a clip's first frame do what the person does in the rest?

    The rest of the clip is tracked, drawn with the avatar and compared with the clip, beside two
    baselines: the first frame held still, and a draft of the avatar.

    \b
    Examples:
      vasa3d evaluate reenact clip.mp4 --quality draft
      vasa3d evaluate reenact a.mp4 b.mp4 --sheet sheet.png --json
    """
    from vasa3d.evaluation.comparison import markdown, mean_rows
    from vasa3d.evaluation.reenactment import reenact_events

    reporter = Reporter(as_json)
    target = _sheet_path(sheet, force)
    for clip in clips:
        input_file(clip, "a video", InputError)
    each, pictures = {}, []
    for clip in clips:
        events = reenact_events(clip, quality=quality.value, seed=seed)
        data = reporter.follow(events, clip.stem)
        pictures.append(data.pop("sheet"))
        each[str(clip)] = data
    ways = ("ours", "draft", "held_still")
    rows = mean_rows([{way: data[way] for way in ways} for data in each.values()])
    _write_sheet(target, pictures, force)
    result = {"quality": quality.value, **rows, "clips": each}
    reporter.finish(result, markdown(rows))


def pair(
    photos: Annotated[
        list[Path], typer.Argument(metavar="NEUTRAL SMILE...", help="Photos of one person each.")
    ],
    quality: QualityOption = Quality.standard,
    sheet: Sheet = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Does an avatar of a neutral photo smile as the person does?

    The avatar is driven by what is tracked in the photo of the smile and compared with it, beside
    two baselines: the neutral photo held still, and a draft of the avatar.

    \b
    Examples:
      vasa3d evaluate pair neutral.jpg smile.jpg --quality draft
      vasa3d evaluate pair a0.jpg a1.jpg b0.jpg b1.jpg --sheet sheet.png --json
    """
    from vasa3d.evaluation.comparison import markdown
    from vasa3d.evaluation.pair import pair_events

    if len(photos) % 2:
        raise InputError(f"{photos[-1]} has no partner.", hint="give pairs: NEUTRAL SMILE ...")
    reporter = Reporter(as_json)
    target = _sheet_path(sheet, force)
    for photo in photos:
        input_file(photo, "an image", ImageError)
    pairs = list(zip(photos[::2], photos[1::2], strict=True))
    data = reporter.follow(pair_events(pairs, quality=quality.value, seed=seed), "pairs")
    _write_sheet(target, [data.pop("sheet")], force)
    rows = {way: data[way] for way in ("ours", "draft", "held_still")}
    reporter.finish({"quality": quality.value, **data}, markdown(rows))


def novel_view(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="Head scan, .obj, facing +z.")],
    texture: Annotated[Path, typer.Argument(metavar="TEXTURE", help="Picture of its colours.")],
    flip: Annotated[
        bool, typer.Option("--flip", help="The scan counts texture rows from the top.")
    ] = False,
    quality: QualityOption = Quality.standard,
    sheet: Sheet = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Is an avatar right from sides that its photo did not show? A head scan tells.

    The scan is drawn from the front; the avatar of that picture is compared with the scan from 0,
    30 and 60 degrees, and its surface with the scan's.

    \b
    Examples:
      vasa3d evaluate novel-view head.obj colours.jpg --quality draft
      vasa3d evaluate novel-view head.obj colours.jpg --sheet sheet.png --json
    """
    from vasa3d.evaluation.comparison import markdown
    from vasa3d.evaluation.novel_view import novel_view_events
    from vasa3d.evaluation.scan import load_scan

    reporter = Reporter(as_json)
    target = _sheet_path(sheet, force)
    surface = load_scan(scan, texture, flip)
    events = novel_view_events(surface, quality=quality.value, seed=seed)
    data = reporter.follow(events, "scan")
    _write_sheet(target, [data.pop("sheet")], force)
    rows = {way: data[way] for way in ("ours", "draft", "held_still")}
    reporter.finish({"quality": quality.value, **data}, markdown(rows, tuple(rows["ours"])))


def source(
    portraits: Annotated[list[Path], typer.Argument(metavar="PORTRAIT...", help="Photos.")],
    quality: QualityOption = Quality.standard,
    sheet: Sheet = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Do avatars give their photos back, and what does making them cost?

    PSNR and SSIM of the source view inside the matte, seconds, size and flicker of each portrait,
    with median and worst; --sheet shows each from -60 to 60 degrees and in several expressions.

    \b
    Examples:
      vasa3d evaluate source portrait.jpg --quality draft
      vasa3d evaluate source portraits/*.jpg --sheet sheet.png --json
    """
    from vasa3d.evaluation.comparison import markdown
    from vasa3d.evaluation.source import MEASURES, source_events

    reporter = Reporter(as_json)
    target = _sheet_path(sheet, force)
    for portrait in portraits:
        input_file(portrait, "an image", ImageError)
    events = source_events(portraits, quality=quality.value, seed=seed)
    data = reporter.follow(events, "portraits")
    picture = data.pop("sheet")
    if picture is not None:
        _write_sheet(target, [picture], force)
    rows = {**data["each"], "median": data["median"], "worst": data["worst"]}
    table = markdown(rows, MEASURES)
    refused = [f"refused {name}: {why}" for name, why in data["refused"].items()]
    reporter.finish({"quality": quality.value, **data}, "\n".join([table, *refused]))


def _sheet_path(sheet: Path | None, force: bool) -> Path | None:
    if sheet is None:
        return None
    if sheet.suffix.lower() != ".png":
        raise OutputError(f"{sheet.name} is no picture.", hint="name the sheet .png")
    return output_path(sheet, force)


def _write_sheet(target: Path | None, pictures: list[Any], force: bool) -> None:
    """Write pictures of one width, one below the other."""
    if target is None:
        return
    import numpy as np

    from vasa3d.types import Frame
    from vasa3d.video import write_picture

    whole = (np.vstack(pictures) / 255.0).astype(np.float32)
    write_picture(target, Frame(whole, np.ones(whole.shape[:2], np.float32)), force=force)
