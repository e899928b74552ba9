"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from vasa3d.errors import InputError

# Typer reads these annotations at run time, on Python 3.10 too, so they use Optional.

Output = Annotated[Optional[Path], typer.Option("-o", "--output", help="File to write.")]  # noqa: UP045
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed: same seed, same result.")]
Size = Annotated[int, typer.Option("--size", help="Width and height of the video in pixels.")]
Fps = Annotated[float, typer.Option("--fps", help="Frames a second.")]
Face = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--face", min=0, help="Which face, if there are several: 0 is the largest."),
]
View = Annotated[
    str,
    typer.Option("--camera", help="front, orbit, swing, or a JSON file of key frames."),
]
Background = Annotated[
    str,
    typer.Option("--background", help="original, #RRGGBB, transparent, or a picture file."),
]
Distance = Annotated[
    float, typer.Option("--distance", help="Distance of the camera: 1 frames as the photo does.")
]
Antialias = Annotated[
    bool, typer.Option("--antialias", help="Keep small Gaussians from looking too strong.")
]
Supersample = Annotated[
    int, typer.Option("--supersample", help="Draw at a multiple of the size, then average.")
]
Emotion = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--emotion", help="NAME:STRENGTH, as happy:0.6; several may be given."),
]
Gaze = Annotated[
    str, typer.Option("--gaze", help="YAW,PITCH in degrees to the person's left and up.")
]
HeadMotion = Annotated[
    float, typer.Option("--head-motion", help="How much the head moves: 0 still, 1 as people do.")
]
Style = Annotated[
    float,
    typer.Option("--style", help="Speaking style: 0 mumbled, 1 plain, 2 over-articulated."),
]
BlinkRate = Annotated[float, typer.Option("--blink-rate", help="Blinks a minute.")]
HeadDistance = Annotated[
    float,
    typer.Option("--distance", help="Distance of the head: 1 as in the portrait, 0.8 nearer."),
]


TranscriptOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--transcript",
        help="What is said: text, or a .txt, .TextGrid or .json file; makes the lips surer.",
    ),
]


class Quality(str, Enum):
    """How much work goes into an avatar."""

    draft = "draft"
    standard = "standard"
    high = "high"


class Device(str, Enum):
    """What draws."""

    cpu = "cpu"
    cuda = "cuda"


DeviceOption = Annotated[
    Device, typer.Option("--device", help="What draws: the processor, or an NVIDIA GPU.")
]
QualityOption = Annotated[Quality, typer.Option("--quality", help="How much work is spent.")]


def parse_emotion(texts: list[str] | None) -> dict[str, float]:
    """``["happy:0.6,sad:0.1"]`` as a dictionary; no number means full strength.

    Raises:
        InputError: Not of this form.
    """
    strengths: dict[str, float] = {}
    for text in ",".join(texts or []).split(","):
        if not text.strip():
            continue
        name, _, number = text.partition(":")
        try:
            strengths[name.strip().lower()] = float(number) if number else 1.0
        except ValueError as error:
            raise InputError(
                f"{text!r} is no emotion.", hint="write NAME:STRENGTH, as in --emotion happy:0.6"
            ) from error
    return strengths


def parse_gaze(text: str) -> tuple[float, float]:
    """``"10,-5"`` as (yaw, pitch) in degrees.

    Raises:
        InputError: Not two numbers.
    """
    try:
        yaw, pitch = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"{text!r} is no direction of gaze.", hint="write YAW,PITCH, as in --gaze 10,-5"
        ) from error
    return yaw, pitch


def default_output(output: Path | None, source: Path, suffix: str) -> Path:
    """The output named by the user, or the source's name with another ending, right here."""
    return output if output is not None else Path(source.stem + suffix)
