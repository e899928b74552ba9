"""How a mouth moves, told without phone times."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vasa3d.audio.clips import load_audio
from vasa3d.cli import main
from vasa3d.errors import InputError
from vasa3d.evaluation.capture import read_jaw
from vasa3d.evaluation.mouth import mouth_figures
from vasa3d.motion.generator import speak
from vasa3d.motion.pronunciation import WINDOWS, letter_phones, window_of
from vasa3d.training.pronunciation import frequent_words, train_pronunciation
from vasa3d.weights import assets_dir


def test_openings_are_counted_once() -> None:
    gap = np.full(100, 0.0, np.float32)
    gap[10:20] = 0.01
    gap[20:22] = 0.002
    gap[22:30] = 0.01
    gap[60:70] = 0.004
    figures = mouth_figures(gap, 25.0)
    assert figures["openings_per_second"] == pytest.approx(0.5)
    assert figures["open"] == pytest.approx(0.28)
    assert figures["shut"] == pytest.approx(0.70)
    assert figures["widest_metres"] == pytest.approx(0.01)


def test_command_tells_silence_from_speech(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(32000, np.float32), 16000)
    code = main(
        [
            "evaluate",
            "mouth",
            str(tmp_path / "silence.wav"),
            str(assets_dir() / "demo.flac"),
            "--json",
        ]
    )
    assert not code
    clips = json.loads(capsys.readouterr().out)["clips"]
    assert clips["silence.wav"]["shut"] == 1.0
    assert 0.4 < clips["demo.flac"]["open"] < 0.95
    assert 0.5 < clips["demo.flac"]["openings_per_second"] < 3.0


def test_our_own_jaw_fits_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo = assets_dir() / "demo.flac"
    jaw = speak(load_audio(demo), fps=30.0).channel("jawOpen")
    late = np.concatenate([np.zeros(2, np.float32), jaw[:-2]])
    columns = np.stack([np.zeros_like(late), late], axis=1)
    np.savez(tmp_path / "take.npz", weights=columns, fps=30.0)
    (tmp_path / "bs_names.txt").write_text("brow\nmouth_stretch_c\n")
    assert not main(["evaluate", "capture", str(demo), str(tmp_path / "take.npz"), "--json"])
    row = json.loads(capsys.readouterr().out)["takes"]["demo.flac"]
    assert row["lag_ms"] == pytest.approx(-66.7, abs=8.0)
    assert row["best_correlation"] > 0.97 > row["jaw_correlation"] > 0.2
    assert 0.5 < row["speaking"] < 1.0
    assert row["jaw_in_speech"] < row["jaw_correlation"]
    assert row["energy_in_speech"] < row["energy_correlation"]
    with pytest.raises(InputError, match="no file"):
        read_jaw(tmp_path / "none.npz")
    (tmp_path / "bs_names.txt").write_text("brow\nnose\n")
    with pytest.raises(InputError, match="names no jaw"):
        read_jaw(tmp_path / "take.npz")


@pytest.mark.parametrize(
    "arrays",
    [{"weights": np.zeros(9)}, {"weights": np.zeros((9, 3))}, {"weights": np.full((9, 2), np.nan)},
     {"fps": 0.0}, {"fps": np.nan}, {"fps": "x"}, {"weights": np.array([[None, 1]])}, {}],
)  # fmt: skip
def test_what_is_no_captured_take_is_a_clear_error(tmp_path: Path, arrays: dict) -> None:
    (tmp_path / "bs_names.txt").write_text("brow\njawOpen\n")
    take = tmp_path / "take.npz"
    np.savez(take, **({"weights": np.zeros((9, 2)), "fps": 30.0} | arrays))
    if not arrays:
        assert len(read_jaw(take)[0]) == 9
        take.write_bytes(take.read_bytes()[:-40])
    with pytest.raises(InputError) as caught:
        read_jaw(take)
    assert caught.value.message.endswith(".")


def dictionary(path: Path) -> Path:
    """A language in which every consonant is followed by a, and c is said s before i."""
    consonants = {"b": "B", "d": "D", "f": "F", "g": "G", "k": "K", "l": "L", "m": "M", "n": "N"}
    vowels = {"a": "AA1", "i": "IY0", "o": "OW2"}
    said = consonants | {"c": "K"}
    lines = []
    for a in said:
        for x, first in vowels.items():
            for b in said:
                for y, second in vowels.items():
                    before = "S" if (a, x) == ("c", "i") else said[a]
                    after = "S" if (b, y) == ("c", "i") else said[b]
                    lines.append(f"{a}{x}{b}{y} {before} {first} {after} {second}")
                    lines.append(f"{a}{x}{b} {before} {first} {said[b]}")
    path.write_text("\n".join(lines))
    return path


def test_pronunciations_are_learned(tmp_path: Path) -> None:
    source = dictionary(tmp_path / "words.dict")
    *_, last = train_pronunciation(source, tmp_path / "p.safetensors", [])
    assert last.data["words_right"] > 0.95
    assert last.data["phones_right"] > 0.97


def test_the_widest_window_that_is_known_decides() -> None:
    last = len(WINDOWS) - 1
    rules = {window_of("cat", 0, last): ("k",), window_of("cit", 0, last - 1): ("s",)}
    assert letter_phones(rules, "cat", 0) == ("k",)
    assert letter_phones(rules, "cit", 0) == ("s",)
    assert letter_phones(rules, "dog", 0) == ()


def test_no_dictionary_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        next(train_pronunciation(tmp_path / "missing", tmp_path / "p", []))
    (tmp_path / "text").write_text("this is no dictionary")
    with pytest.raises(InputError, match="no pronouncing dictionary"):
        next(train_pronunciation(tmp_path / "text", tmp_path / "p", []))
    assert frequent_words(tmp_path / "text", 2)[0] in ("this", "is", "no", "dictionary")
