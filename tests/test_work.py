"""A work folder: what was made from one thing is never taken for another, and broken clips stop nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vasa3d.errors import AudioError, FaceError, InputError
from vasa3d.training import capture, motion_data
from vasa3d.training.loop import Loop, LoopConfig
from vasa3d.training.motion import EncodedScenes, MotionTrainingConfig, Units, batches
from vasa3d.training.motion_data import MotionDataConfig, build_scenes
from vasa3d.training.work import identity, kept_arrays, read_checkpoint, write_checkpoint
from vasa3d.types import AudioClip, MotionLatents


def test_identities_tell_apart_what_differs(tmp_path: Path) -> None:
    for folder, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.mp4").write_bytes(content)
    numbers = np.arange(6, dtype=np.float32)
    different = [
        identity(), identity(None), identity(0), identity(False), identity("0"), identity(0, ""), identity([0]),
        identity([[]], 0), identity([], [0]), identity({"a": 0}), identity(numbers), identity(numbers[::-1]),
        identity(numbers.astype(np.float64)), identity(numbers.reshape(2, 3)), identity(MotionDataConfig()),
        identity(MotionDataConfig(lives=2)), identity(tmp_path / "a" / "x.mp4"), identity(tmp_path / "b" / "x.mp4"),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert identity(tmp_path / "a" / "x.mp4") == identity(tmp_path / "c" / "x.mp4")
    assert identity(MotionDataConfig()) == identity(MotionDataConfig())
    with pytest.raises(TypeError):
        identity(object())


def test_arrays_are_kept_for_the_same_settings_only(tmp_path: Path) -> None:
    def kept(key: str, value: float) -> float:
        return float(kept_arrays(tmp_path, "made", key, lambda: {"x": np.float64(value)})["x"])

    assert [kept("a", 1.0), kept("a", 2.0), kept("b", 3.0), kept("a", 4.0)] == [1.0, 1.0, 3.0, 1.0]
    (tmp_path / "made-a.npz").write_bytes((tmp_path / "made-a.npz").read_bytes()[:50])
    with pytest.raises(InputError, match="damaged"):
        kept("a", 5.0)


def test_checkpoints_are_whole_and_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    assert read_checkpoint(path, "a") is None
    write_checkpoint(path, {"x": torch.arange(3)}, "a")
    kept = read_checkpoint(path, "a")
    assert kept is not None and kept["x"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="other settings") as caught:
        read_checkpoint(path, "b")
    assert str(path) in caught.value.message
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(path, "a")
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]


class Line(torch.nn.Module):
    """A loss."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(size))

    def forward(self, target: torch.Tensor) -> torch.Tensor:
        return ((self.place - target) ** 2).mean()


def batch(rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    return (torch.from_numpy(rng.standard_normal(1).astype(np.float32)),)


def test_a_training_goes_on_from_its_own_checkpoint_only(tmp_path: Path) -> None:
    path = tmp_path / "loop.safetensors"
    list(Loop(Line(), LoopConfig(steps=3), path, 1, "clips").run(batch))
    same = LoopConfig(steps=3, checkpoint_seconds=1.0)
    assert Loop(Line(), same, path, 1, "clips").step == 3
    for module, config, seed, material in (
        (Line(), LoopConfig(steps=4), 1, "clips"), (Line(), LoopConfig(steps=3), 2, "clips"),
        (Line(3), LoopConfig(steps=3), 1, "clips"), (Line(), LoopConfig(steps=3), 1, "other clips"),
    ):  # fmt: skip
        with pytest.raises(InputError, match="other settings"):
            Loop(module, config, path, seed, material)


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clips that are read by their names: of a face with sound, or without one of them."""
    folder = tmp_path / "films"
    for name in ("a/talk.mp4", "b/talk.mp4", "a_talk.mp4", "mute.mp4", "empty.mp4", "broken.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())

    def sound(path: Path) -> AudioClip:
        if path.stem == "mute":
            raise AudioError(f"{path} holds no sound.", hint="-")
        return AudioClip(np.zeros(16000, np.float32))

    def pictures(path: Path, **options: object) -> tuple[Path, float]:
        if path.stem == "broken":
            raise InputError(f"{path} is damaged.", hint="-")
        return path, 25.0

    class Tracked:
        def __init__(self, path: Path, rate: float) -> None:
            if path.stem == "empty":
                raise FaceError("no face.", hint="-")
            self.motion = MotionLatents.rest(25)
            self.motion.pose[:] = len(path.as_posix()) + path.as_posix().count("b/")

    monkeypatch.setattr(capture, "load_audio", sound)
    monkeypatch.setattr(capture, "read_video", pictures)
    monkeypatch.setattr(capture, "track_frames", Tracked)
    return folder


def test_clips_that_cannot_be_learned_from_are_passed_over(films: Path, tmp_path: Path) -> None:
    for _ in range(2):
        notes: list[str] = []
        takes = list(capture.tracked_clips(films, tmp_path, notes))
        assert [take.name for take in takes] == ["talk.mp4", "a_talk.mp4", "talk.mp4"]
        poses = [float(take.motion.pose[0, 0]) for take in takes]
        assert poses[0] != poses[2]
        assert [Path(note.split()[0]).stem for note in notes] == ["broken", "empty", "mute"]
        assert all(note.endswith("The clip is passed over.") for note in notes)


def test_a_folder_without_usable_clips_is_a_clear_error(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion_data, "_clip_scenes", lambda takes, *rest: iter([scene(30)]))
    for path in films.rglob("*talk.mp4"):
        path.unlink()
    with pytest.raises(InputError, match="no video clip"):
        list(build_scenes(tmp_path, tmp_path, MotionDataConfig(), 0, [], films))
    (films / "new.mp4").write_bytes(b"new")
    for number in (1, 2):
        ((name, scenes),) = build_scenes(tmp_path, tmp_path, MotionDataConfig(), 0, [], films)
        assert (name, scenes.ends.tolist()) == ("clips", [30])
        assert len(list(tmp_path.glob("motion_clips-*.npz"))) == number
        (films / "further.mp4").write_bytes(b"further")


def scene(frames: int) -> tuple[np.ndarray, ...]:
    return tuple(np.zeros((frames, size), np.float32) for size in (4, 52, 6, 3))


def test_sessions_shorter_than_a_crop_are_left_out() -> None:
    config = MotionTrainingConfig()
    ones = np.ones(22, np.float32)

    def source(*ends: int) -> EncodedScenes:
        parts = (np.zeros((ends[-1], size), np.float32) for size in (22, 4, 3))
        return EncodedScenes(*parts, np.array(ends))

    units = Units(ones, ones, ones, ones)
    draw = batches({"clips": source(50, 100), "video": source(10, 90)}, units, config)
    states, _, _ = draw(np.random.default_rng(0))
    assert states.shape == (config.batch, config.crop, 22)
    with pytest.raises(InputError, match="no recording"):
        batches({"clips": source(50, 100)}, units, config)


@pytest.mark.parametrize("wrong", [{"crop": 67}, {"crop": 0}, {"crop": 4}, {"batch": 0}])
def test_impossible_crops_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        MotionTrainingConfig(**wrong)
