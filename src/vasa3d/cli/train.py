"""``vasa3d train``: rebuild what the package ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from vasa3d.cli.console import Reporter
from vasa3d.cli.options import AsJson, Force, Seed

DataFolder = Annotated[Path, typer.Option("--data", help="Folder with the source material.")]

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

    DIR holds head/ict-facekit, see docs/model-card.md for where that comes from.

    \b
    Examples:
      vasa3d train head --data DIR -o head.safetensors
    """
    from vasa3d.files import output_path
    from vasa3d.training.head import train_head

    reporter = Reporter(as_json)
    target = output_path(output, force)
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
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train the speech encoder on generated and recorded speech; takes about an hour.

    The voices espeak-ng, flite and festival must be installed. A run that is stopped goes on from
    its work folder.

    \b
    Examples:
      vasa3d train speech --data DIR --work speech-work -o speech.safetensors
      vasa3d train speech --data DIR --from speech.safetensors -o further.safetensors
    """
    from vasa3d.files import output_path
    from vasa3d.training.speech import read_network, train_speech

    reporter = Reporter(as_json)
    target = output_path(output, force)
    network = None if start is None else read_network(start)
    events = train_speech(data, target, work, seed=seed, start=network)
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
    from vasa3d.files import output_path
    from vasa3d.training.pronunciation import frequent_words, train_pronunciation

    reporter = Reporter(as_json)
    target = output_path(output, force)
    frequent = frequent_words(words) if words is not None else []
    figures = reporter.follow(train_pronunciation(dictionary, target, frequent), "pronunciation")
    reporter.finish({"output": str(target), **figures}, _sentence(target, figures))


def _sentence(target: Path, figures: dict[str, Any]) -> str:
    lines = [str(target)]
    lines += [f"  {key}: {value}" for key, value in figures.items()]
    return "\n".join(lines)
