"""The dynamics code: what goes in comes out, people and poses do not matter."""

from pathlib import Path

import numpy as np
import pytest

from vasa3d.motion.latents import LATENT_SIZE, load_codec
from vasa3d.training.latent import measure_codec
from vasa3d.training.latent_data import random_states, tracked_people
from vasa3d.types import ARKIT_INDEX, NUM_CHANNELS

EXPRESSIONS = (
    ("jawOpen",), ("mouthPucker",), ("mouthSmile", "cheekSquint"), ("browInnerUp", "browOuterUp"),
    ("eyeBlink",), ("browDown", "noseSneer"), ("mouthFrown",), ("jawOpen", "mouthFunnel"),
)  # fmt: skip


def states(count: int = 400) -> np.ndarray:
    return random_states(count, np.random.default_rng(3))


def test_codes_keep_expressions() -> None:
    channels = states()
    codec = load_codec()
    codes = codec.encode(channels)
    assert codes.shape == (400, LATENT_SIZE)
    back = codec.decode(codes)
    assert np.abs(back - channels).mean() < 0.03
    for name in ("jawOpen", "mouthPucker", "mouthSmileLeft", "browInnerUp", "eyeBlinkLeft"):
        column = ARKIT_INDEX[name]
        assert np.corrcoef(back[:, column], channels[:, column])[0, 1] > 0.97, name


def test_rest_stays_rest_and_codes_are_of_one_size() -> None:
    codec = load_codec()
    rest = codec.decode(codec.encode(np.zeros((1, NUM_CHANNELS), np.float32)))
    assert rest.max() < 0.05
    spread = codec.encode(states()).std(axis=0)
    assert spread.min() > 0.4 and spread.max() < 3.0


def test_people_and_poses_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    shown = np.zeros((8, NUM_CHANNELS), np.float32)
    for state, names in zip(shown, EXPRESSIONS, strict=True):
        for name in names:
            for side in ("",) if name in ARKIT_INDEX else ("Left", "Right"):
                state[ARKIT_INDEX[name + side]] = rng.uniform(0.4, 0.8)
    people = tracked_people(shown, tmp_path, 3, 8, 0, "few")
    figures = measure_codec(load_codec(), people, {"random": states(50)})
    assert figures["separation"] > 3.0
    assert figures["separation"] > 1.5 * figures["separation_channels"]


def test_small_changes_of_a_code_are_small_changes_of_the_face() -> None:
    codec = load_codec()
    codes = codec.encode(states())
    noise = 0.05 * np.random.default_rng(1).standard_normal(codes.shape).astype(np.float32)
    assert np.abs(codec.decode(codes + noise) - codec.decode(codes)).mean() < 0.02


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="channels"):
        load_codec().encode(np.zeros((3, 51), np.float32))
    with pytest.raises(ValueError, match="codes"):
        load_codec().decode(np.zeros((3, 5), np.float32))
