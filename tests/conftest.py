"""One avatar for the whole run: building it is the longest step of the tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from vasa3d import pipeline
from vasa3d.avatar.avatar import Avatar
from vasa3d.pipeline import CreateResult, create_events
from vasa3d.portrait.analysis import Analysis
from vasa3d.types import Event


@dataclass(frozen=True)
class Made:
    """An avatar and what its making said.

    Attributes:
        photo: Portrait file.
        analysis: Its analysis.
        events: All events of ``create_events``.
        result: The last event's result.
    """

    photo: Path
    analysis: Analysis
    events: tuple[Event, ...]
    result: CreateResult


@pytest.fixture(scope="session")
def astronaut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Portrait photo of 512 x 512 pixels in the public domain."""
    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return path


@pytest.fixture(scope="session")
def made(astronaut: Path) -> Made:
    """The astronaut's avatar, made once with the default settings."""
    seen: list[Analysis] = []

    def analyse_and_keep(*args, **options) -> Analysis:
        seen.append(analyse(*args, **options))
        return seen[-1]

    analyse = pipeline.analyse
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "analyse", analyse_and_keep)
        events = tuple(create_events(astronaut, quality="draft"))
    return Made(astronaut, seen[0], events, events[-1].data["result"])


@pytest.fixture(scope="session")
def analysis(made: Made) -> Analysis:
    """The astronaut's analysis."""
    return made.analysis


@pytest.fixture(scope="session")
def avatar(made: Made) -> Avatar:
    """The astronaut's avatar."""
    return made.result.avatar
