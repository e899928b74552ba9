"""Where training frames come from: the portrait animator, a clip of the person, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vasa3d.avatar.avatar import Avatar
from vasa3d.customisation.animator import PhotoAnimator
from vasa3d.customisation.clip import clip_events
from vasa3d.customisation.config import CustomisationConfig
from vasa3d.customisation.frames import FrameSynthesizer, GivenFrames, TrainingFrame
from vasa3d.portrait.analysis import Analysis
from vasa3d.types import Event

FrameSource = Callable[[Analysis, Avatar, CustomisationConfig], Iterable[TrainingFrame]]
"""Any function that makes training frames of ``config.size`` pixels, ``config.frames`` of them at most, from
``config.seed``: of a portrait's analysis, its draft, and the configuration."""


@dataclass(frozen=True)
class JoinedFrames:
    """Several synthesizers as one; each fills an equal share, the last one what the others leave.

    Attributes:
        parts: The synthesizers.
    """

    parts: tuple[FrameSynthesizer, ...]

    def frames(self, count: int, seed: int) -> Iterator[TrainingFrame]:
        """``count`` frames in all."""
        left = count
        for number, part in enumerate(self.parts):
            share = -(-left // (len(self.parts) - number))
            for frame in part.frames(share, seed):
                left -= 1
                yield frame


def source_events(
    analysis: Analysis,
    draft: Avatar,
    config: CustomisationConfig,
    video: str | Path | None = None,
    synthesizer: FrameSource | None = None,
) -> Generator[Event, None, FrameSynthesizer]:
    """The synthesizer that a user asks for.

    Args:
        analysis: The portrait.
        draft: Its draft.
        config: Size, number and seed of frames.
        video: Clip of the person, whose frames take half of the place.
        synthesizer: Function that takes the place of the built-in animator.

    Yields:
        Progress of reading the clip; what the tracker warns of.

    Returns:
        The synthesizer.

    Raises:
        InputError: The clip cannot be read.
        FaceError: The clip does not show enough of this person.
    """
    if synthesizer is not None:
        made: FrameSynthesizer = GivenFrames(tuple(synthesizer(analysis, draft, config)))
    else:
        made = PhotoAnimator(analysis, draft, config.size)
    if video is None:
        return made
    clip = None
    for event in clip_events(video, analysis, draft, config.size):
        clip = event.data.get("result", clip)
        yield Event(event.stage, event.done, event.total, event.message, event.warning)
    assert clip is not None
    return JoinedFrames((clip, made))
