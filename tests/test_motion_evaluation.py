"""Measures of motion: known motion gives known figures, and what is no motion is refused."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vasa3d.audio.clips import load_audio
from vasa3d.audio.textgrid import phone_tier, read_textgrid
from vasa3d.errors import InputError
from vasa3d.evaluation.lipsync import Sentence
from vasa3d.evaluation.motion import (
    _beats,
    _diversity,
    blink_figures,
    head_figures,
    line_of_sight,
    motion_events,
    real_heads,
)
from vasa3d.motion.controls import EMOTIONS
from vasa3d.motion.formats import write_motion
from vasa3d.motion.generator import GeneratorConfig
from vasa3d.types import ARKIT_INDEX, MotionLatents
from vasa3d.weights import assets_dir

GRID = Path(__file__).parent / "data" / "demo.TextGrid"


def nodding(seconds: float = 10.0, hertz: float = 1.0, degrees: float = 3.0) -> MotionLatents:
    motion = MotionLatents.rest(int(25 * seconds))
    t = np.arange(len(motion)) / 25.0
    motion.pose[:, 0] = np.radians(degrees) * np.sin(2 * np.pi * hertz * t)
    return motion


def test_figures_of_a_sine() -> None:
    figures = head_figures(nodding().pose[:, :3])
    assert figures["head_std"] == pytest.approx(3.0 / np.sqrt(2.0), rel=0.02)
    assert figures["head_speed"] == pytest.approx(2 * np.pi * 3.0 / np.sqrt(2.0), rel=0.02)
    assert figures["head_acceleration_p99"] == pytest.approx((2 * np.pi) ** 2 * 3.0, rel=0.03)


def test_blinks_are_counted_and_timed() -> None:
    motion = MotionLatents.rest(1500)
    for start in range(100, 1500, 100):
        motion.dyn[start : start + 4, ARKIT_INDEX["eyeBlinkLeft"]] = 1.0
    assert blink_figures([motion]) == {"blinks_per_minute": 14.0, "blink_ms": 160.0}


def test_nods_on_the_beat_score_above_moved_beats() -> None:
    motion, rng = nodding(hertz=0.4), np.random.default_rng(0)
    at_peaks = (np.arange(4) + 0.25) / 0.4
    on, moved = _beats(motion, at_peaks, rng)
    assert on > 0.95
    assert moved < 0.75


def test_line_of_sight_adds_head_and_eyes() -> None:
    motion = MotionLatents.rest(3)
    motion.pose[:, 1] = np.radians(5.0)
    for name in ("eyeLookOutLeft", "eyeLookInRight"):
        motion.dyn[:, ARKIT_INDEX[name]] = 10.0 / 27.0
    np.testing.assert_allclose(line_of_sight(motion), [[15.0, 0.0]] * 3, atol=1e-4)


def test_equal_seeds_have_no_diversity() -> None:
    same = [nodding(), nodding()]
    assert _diversity(same) == pytest.approx(0.0, abs=1e-6)
    assert _diversity([nodding(), nodding(hertz=0.7)]) > 0.7


def test_real_takes_are_read_from_motion_files(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        real_heads(tmp_path)
    assert caught.value.hint
    write_motion(tmp_path / "one.csv", nodding())
    takes = real_heads(tmp_path)
    assert list(takes) == ["one"]
    turns = Rotation.from_rotvec(nodding().pose[:, :3]).as_matrix()
    np.savez(tmp_path / "talking.npz", R=turns, fps=25.0)
    write_motion(tmp_path / "two.npz", nodding())
    assert set(real_heads(tmp_path)) == {"one", "two", "talking"}
    for name, content in (("cut", b"PK\x03\x04"), ("text", b"hello")):
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(InputError, match=name):
            real_heads(tmp_path)
        (tmp_path / f"{name}.npz").unlink()
    np.savez(tmp_path / "flat.npz", R=turns[0], fps=25.0)
    with pytest.raises(InputError, match="no take of head motion"):
        real_heads(tmp_path)
    (tmp_path / "flat.npz").unlink()
    assert head_figures(takes["one"])["head_std"] == pytest.approx(3.0 / np.sqrt(2.0), rel=0.02)


def test_the_true_phones_stand_beside_what_was_heard(tmp_path: Path) -> None:
    write_motion(tmp_path / "nods.csv", nodding())
    sentence = Sentence(
        "demo", load_audio(assets_dir() / "demo.flac"), phone_tier(read_textgrid(GRID))
    )
    kinds = {"rules": GeneratorConfig(life="rules")}
    *_, last = motion_events(
        [sentence], real_heads(tmp_path), seeds=1, controls=False, configs=kinds
    )
    figures = last.data
    assert set(figures) == {"real", "rules", "phone_timed", "held_still", "real_range"}
    *_, last = motion_events([sentence], real_heads(tmp_path), seeds=1, configs=kinds)
    assert set(last.data["emotion_lips"]) == set(EMOTIONS) - {"neutral"}
    assert all(row["silence_closed"] == 1.0 for row in last.data["emotion_lips"].values())
    truth, heard = figures["phone_timed"], figures["rules"]
    assert truth["pbm_closed"] == truth["fv_labiodental"] == 1.0
    assert truth["rounding"] > 0.9
    assert all(truth[key] >= heard[key] for key in ("pbm_closed", "fv_labiodental", "rounding"))
    # The same voice moves the same head, whatever the lips know.
    assert truth["head_std"] == pytest.approx(heard["head_std"], rel=0.3)
    assert figures["held_still"]["head_std"] == 0.0
    assert "pbm_closed" not in figures["held_still"]
    silent = Sentence("demo", sentence.clip, [])
    *_, last = motion_events([silent], real_heads(tmp_path), seeds=1, controls=False, configs=kinds)
    assert "phone_timed" not in last.data and "pbm_closed" not in last.data["rules"]
