"""``vasa3d train``: rebuild what the package ships."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from vasa3d.cli.console import Reporter
from vasa3d.cli.options import AsJson, Device, Force, Seed
from vasa3d.files import output_path

if TYPE_CHECKING:
    from vasa3d.training.loop import LoopConfig


class Precision(str, Enum):
    """Numbers that a network is trained with."""

    float32 = "float32"
    bfloat16 = "bfloat16"


DataFolder = Annotated[Path, typer.Option("--data", help="Folder with the source material.")]
Steps = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--steps", min=1, help="Gradient steps; those of the shipped asset if absent."),
]
TrainingDevice = Annotated[Device, typer.Option("--device", help="What trains.")]
TrainingPrecision = Annotated[
    Precision, typer.Option("--precision", help="bfloat16 is quicker on a GPU.")
]

app = typer.Typer(help="Rebuild a shipped asset from its sources.", rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Rebuild a shipped asset from its sources."""


@app.command()
def head(
    data: DataFolder,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Asset to write; its manifest lies beside it.")
    ] = Path("head.safetensors"),
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Build the head model from the statistics of scanned heads.

    DIR holds head/ict-facekit; docs/model-card.md tells where that comes from and what is in it.

    \b
    Examples:
      vasa3d train head --data DIR -o head.safetensors
    """
    from vasa3d.training.head import train_head

    reporter = Reporter(as_json)
    target = _asset_path(output, force)
    figures = train_head(data, target, seed)
    reporter.finish({"output": str(target), **figures}, _sentence(target, figures))


@app.command()
def speech(
    data: DataFolder,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Asset to write; its manifest lies beside it.")
    ] = Path("speech.safetensors"),
    work: Annotated[
        Path, typer.Option("--work", help="Folder for generated speech; reruns continue there.")
    ] = Path("speech-work"),
    start: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", help="Asset of an earlier training to go on from."),
    ] = None,
    steps: Steps = None,
    device: TrainingDevice = Device.cpu,
    precision: TrainingPrecision = Precision.float32,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train the speech encoder on generated and recorded speech.

    DIR holds speech; the voices espeak-ng, flite and festival must be installed. Takes about two hours on one processor
    core. A run that is stopped goes on from its work folder.

    \b
    Examples:
      vasa3d train speech --data DIR --work speech-work -o speech.safetensors
      vasa3d train speech --data DIR --from speech.safetensors -o further.safetensors
      torchrun --nproc-per-node 4 -m vasa3d train speech --data DIR --device cuda --precision bfloat16
    """
    from vasa3d.training.speech import CONTINUED, SpeechTrainingConfig, read_network, train_speech

    reporter = Reporter(as_json)
    target = _asset_path(output, force)
    network = None if start is None else read_network(start)
    config = SpeechTrainingConfig() if network is None else CONTINUED
    config = replace(config, loop=_loop(config.loop, steps, device, precision))
    events = train_speech(data, target, work, seed=seed, config=config, start=network)
    figures = reporter.follow(events, "speech encoder")
    reporter.finish({"output": str(target), **figures}, _sentence(target, figures))


@app.command()
def pronunciation(
    dictionary: Annotated[
        Path,
        typer.Option("--dictionary", help="Pronouncing dictionary: a word and its phones a line."),
    ],
    words: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--words", help="Text whose commonest words must come out right."),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Asset to write; its manifest lies beside it.")
    ] = Path("pronunciation.safetensors"),
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Learn how English words sound from a dictionary such as CMU's; takes a few minutes.

    \b
    Examples:
      vasa3d train pronunciation --dictionary cmudict.dict --words speech-work/sentences.txt
    """
    from vasa3d.training.pronunciation import frequent_words, train_pronunciation

    reporter = Reporter(as_json)
    target = _asset_path(output, force)
    frequent = frequent_words(words) if words is not None else []
    figures = reporter.follow(train_pronunciation(dictionary, target, frequent), "pronunciation")
    reporter.finish({"output": str(target), **figures}, _sentence(target, figures))


@app.command()
def creases(
    data: DataFolder,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Asset to write; its manifest lies beside it.")
    ] = Path("creases.safetensors"),
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Learn how smiles fold the skin from pairs of photos, neutral and smiling; takes a few minutes.

    DIR holds portraits/london-pairs. Nothing of it is random.

    \b
    Examples:
      vasa3d train creases --data DIR -o creases.safetensors
    """
    from vasa3d.training.creases import train_creases

    reporter = Reporter(as_json)
    target = _asset_path(output, force)
    figures = reporter.follow(train_creases(data, target), "creases")
    reporter.finish({"output": str(target), **figures}, _sentence(target, figures))


@app.command()
def latent(
    data: DataFolder,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Asset to write; its manifest lies beside it.")
    ] = Path("latent.safetensors"),
    work: Annotated[
        Path, typer.Option("--work", help="Folder for gathered faces; reruns continue there.")
    ] = Path("latent-work"),
    steps: Steps = None,
    device: TrainingDevice = Device.cpu,
    precision: TrainingPrecision = Precision.float32,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train the code of facial dynamics on captured, tracked, spoken and random faces.

    DIR holds mocap, video and speech. Takes five to ten minutes on one processor core.

    \b
    Examples:
      vasa3d train latent --data DIR --work latent-work -o latent.safetensors
      torchrun --nproc-per-node 4 -m vasa3d train latent --data DIR --device cuda --precision bfloat16
    """
    from vasa3d.training.latent import LatentTrainingConfig, train_latent

    reporter = Reporter(as_json)
    target = _asset_path(output, force)
    config = LatentTrainingConfig()
    config = replace(config, loop=_loop(config.loop, steps, device, precision))
    figures = reporter.follow(train_latent(data, target, work, seed=seed, config=config), "latent")
    reporter.finish({"output": str(target), **figures}, _sentence(target, figures))


@app.command()
def motion(
    data: DataFolder,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Asset to write; its manifest lies beside it.")
    ] = Path("motion.safetensors"),
    work: Annotated[
        Path, typer.Option("--work", help="Folder for made material; reruns continue there.")
    ] = Path("motion-work"),
    clips: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--clips", help="Folder of your own clips with sound, to learn from instead."),
    ] = None,
    voice_model: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--voice-model", help="Folder of a Wav2Vec2 or HuBERT to hear with."),
    ] = None,
    steps: Steps = None,
    device: TrainingDevice = Device.cpu,
    precision: TrainingPrecision = Precision.float32,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train the diffusion transformer of motion on made and recorded speech with motion.

    DIR holds speech, mocap and video; the voices espeak-ng, flite and festival must be installed. With --clips, the
    faces in your clips are tracked (once) and learned from. Takes about an hour and a half on one processor core.

    \b
    Examples:
      vasa3d train motion --data DIR --work motion-work -o motion.safetensors
      vasa3d train motion --data DIR --clips my-clips/ --steps 20000
      torchrun --nproc-per-node 8 -m vasa3d train motion --data DIR --device cuda --precision bfloat16
    """
    from vasa3d.training.motion import MotionTrainingConfig, train_motion

    reporter = Reporter(as_json)
    target = _asset_path(output, force)
    config = MotionTrainingConfig()
    config = replace(config, loop=_loop(config.loop, steps, device, precision))
    events = train_motion(
        data, target, work, seed=seed, clips=clips, voice_model=voice_model, config=config
    )
    figures = reporter.follow(events, "motion")
    reporter.finish({"output": str(target), **figures}, _sentence(target, figures))


def _asset_path(output: Path, force: bool) -> Path:
    """Where an asset goes, refused before any work is done."""
    from vasa3d.weights import registered

    target = output_path(output, force)
    registered(target.parent)
    return target


def _loop(
    config: LoopConfig, steps: int | None, device: Device, precision: Precision
) -> LoopConfig:
    """The recipe's own loop with what the user asked for."""
    return replace(
        config, steps=steps or config.steps, device=device.value, precision=precision.value
    )


def _sentence(target: Path, figures: dict[str, Any]) -> str:
    lines = [str(target)]
    lines += [f"  {key}: {value}" for key, value in figures.items()]
    return "\n".join(lines)
