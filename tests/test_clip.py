"""Frames of a clip: chosen for variety, laid where the avatar is, refused when they show nobody or somebody else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vasa3d.customisation.clip import ClipConfig, clip_events, spread
from vasa3d.customisation.config import CustomisationConfig
from vasa3d.customisation.frames import GivenFrames
from vasa3d.customisation.sources import JoinedFrames, source_events
from vasa3d.errors import FaceError, InputError, VasaError
from vasa3d.metrics import psnr
from vasa3d.pipeline import create_events, render, resolve_background
from vasa3d.renderer import render_cloud
from vasa3d.types import ARKIT_INDEX, Frame, MotionLatents
from vasa3d.video import write_video

SIZE = 128


def moving(count: int) -> MotionLatents:
    motion, t = MotionLatents.rest(count, 15.0), np.arange(count) / count
    motion.dyn[:, ARKIT_INDEX["jawOpen"]] = 0.6 * np.sin(np.pi * t) ** 2
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        motion.dyn[count // 2, ARKIT_INDEX[name]] = 1.0
    motion.pose[:, 1] = 0.2 * np.sin(2 * np.pi * t)
    return motion


@pytest.fixture(scope="module")
def clip(avatar, tmp_path_factory) -> Path:
    """The avatar itself in motion, smaller than its portrait and elsewhere in the picture."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    behind = resolve_background(avatar, "original", 256)
    frames = []
    for frame in render(avatar, moving(20), size=256, background=behind):
        wide = np.full((300, 400, 3), 0.5, np.float32)
        wide[30:286, 100:356] = frame.rgb
        frames.append(Frame(0.8 * wide, np.ones((300, 400), np.float32)))
    write_video(path, frames, fps=15.0)
    return path


def test_frames_lie_where_the_avatar_is_and_move_as_it_does(made, clip) -> None:
    avatar = made.result.avatar
    config = ClipConfig(frames=6)
    *_, last = clip_events(clip, made.analysis, avatar, SIZE, config)
    kept = last.data["result"].kept
    assert len(kept) == 6 and last.data["likeness"] > 0.7
    shown = np.concatenate([frame.latents.dyn for frame in kept])
    assert shown[:, ARKIT_INDEX["eyeBlinkLeft"]].max() > 0.4
    assert np.ptp(shown[:, ARKIT_INDEX["jawOpen"]]) > 0.24
    turns = np.array([frame.latents.pose[0, 1] for frame in kept])
    assert turns.max() > 0.08 and turns.min() < -0.08
    for frame in kept:
        assert frame.foreign_light and not frame.whole
        sure = frame.confidence > 0.4
        assert 0.03 < sure.mean() < 0.5
        drawn = render_cloud(avatar.pose(frame.latents), frame.camera).rgb
        still = render_cloud(avatar.pose(avatar.photo_latents), frame.camera).rgb
        near, far = (psnr(0.8 * p, frame.rgb, sure) for p in (drawn, still))
        assert near > 22.0 and near > far - 1.0


def test_motion_is_spread(avatar) -> None:
    motion = moving(40)
    chosen = spread(motion, np.arange(40), 5)
    assert chosen == sorted(set(chosen)) and len(chosen) == 5
    assert 20 in chosen  # the blink
    assert len(spread(motion, np.array([3, 9]), 5)) == 2
    assert 20 not in spread(motion, np.arange(10), 5)


def grey(tmp_path: Path, count: int) -> Path:
    blank = Frame(np.full((96, 96, 3), 0.5, np.float32), np.ones((96, 96), np.float32))
    write_video(tmp_path / "grey.mp4", [blank] * count)
    return tmp_path / "grey.mp4"


def test_what_is_no_clip_of_the_person_is_refused(made, clip, tmp_path) -> None:
    avatar = made.result.avatar
    with pytest.raises(FaceError, match="no face"):
        list(clip_events(grey(tmp_path, 8), made.analysis, avatar, SIZE))
    with pytest.raises(FaceError, match="usable"):
        list(clip_events(clip, made.analysis, avatar, SIZE, ClipConfig(seconds=0.3)))
    with pytest.raises(FaceError, match="another person"):
        list(
            clip_events(clip, made.analysis, avatar, SIZE, ClipConfig(frames=2, least_likeness=2.0))
        )
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError):
        list(clip_events(tmp_path / "text.mp4", made.analysis, avatar, SIZE))


def test_a_wrong_request_costs_no_time(astronaut, tmp_path) -> None:
    for options in (
        {"quality": "draft", "video": astronaut},
        {"quality": "draft", "synthesizer": lambda *_: []},
        {"quality": "standard", "video": tmp_path / "none.mp4"},
    ):
        with pytest.raises(VasaError) as caught:
            next(iter(create_events(astronaut, **options)))
        assert caught.value.hint


def test_other_synthesizers_can_be_plugged_in_and_joined(made, animator_frames) -> None:
    config = CustomisationConfig(size=SIZE, frames=4, seed=3)
    asked = []

    def mine(analysis, draft, given):
        asked.append((analysis is made.analysis, draft is made.result.avatar, given))
        return animator_frames

    events = source_events(made.analysis, made.result.avatar, config, None, mine)
    with pytest.raises(StopIteration) as stopped:
        while True:
            next(events)
    assert asked == [(True, True, config)]
    assert list(stopped.value.value.frames(9, 0)) == list(animator_frames)
    other = GivenFrames(tuple(animator_frames[:1]))
    joined = JoinedFrames((other, stopped.value.value))
    assert len(list(joined.frames(3, 0))) == 3 and len(list(joined.frames(9, 0))) == 4


@pytest.fixture(scope="module")
def animator_frames(made):
    from vasa3d.customisation.animator import PhotoAnimator

    return list(PhotoAnimator(made.analysis, made.result.avatar, SIZE).frames(3, 0))


def test_a_picture_is_no_clip(made, tmp_path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    with pytest.raises(VasaError):
        list(clip_events(tmp_path / "picture.png", made.analysis, made.result.avatar, SIZE))
