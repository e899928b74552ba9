"""Words that are known: how they sound, when they are said, and what becomes of ones that are not."""

import json
from pathlib import Path

import numpy as np
import pytest

from vasa3d.audio.clips import load_audio
from vasa3d.audio.features import log_mel
from vasa3d.audio.textgrid import phone_tier, read_textgrid
from vasa3d.cli import main
from vasa3d.errors import InputError
from vasa3d.evaluation.lipshape import lip_gap
from vasa3d.evaluation.lipsync import evaluate_lipsync
from vasa3d.motion import alignment
from vasa3d.motion.alignment import Follower, align
from vasa3d.motion.generator import MotionStream, speak
from vasa3d.motion.phones import arpabet_parts
from vasa3d.motion.pronunciation import language_of, sounds_of, words_in
from vasa3d.motion.speech import SOUND_INDEX, SOUNDS, VISEME_INDEX, concatenate, encode, hear_sounds
from vasa3d.motion.spelling import spell_number
from vasa3d.motion.transcript import (
    TranscriptEncoder,
    fit_transcript,
    mouth_of_sounds,
    read_transcript,
    timed_activity,
)
from vasa3d.types import ARKIT_INDEX, SAMPLE_RATE, AudioClip
from vasa3d.weights import assets_dir

GRID = Path(__file__).parent / "data" / "demo.TextGrid"


def names(sounds: list[int] | tuple[int, ...]) -> str:
    return " ".join(SOUNDS[s] for s in sounds)


@pytest.mark.parametrize(
    ("word", "said"),
    [("lips", "L I PB SZ"), ("of", "AH FV"), ("whole", "H O U L"), ("Mouth", "M A U TH"), ("the", "TH AH"),
     ("through", "TH R U"), ("I’m", "A I M"), ("23", "TD W E N TD I TH R I")],
)  # fmt: skip
def test_english_words(word: str, said: str) -> None:
    assert names(sounds_of(word)) == said


@pytest.mark.parametrize(
    ("language", "word", "said"),
    [("de", "sprechen", "SZ PB TD E KG E N"), ("es", "vivir", "PB I PB I TD"), ("ru", "хорошо", "KG O TD O CH O"),
     ("fr", "beaucoup", "PB O KG U PB"), ("ja", "コンニチハ", "KG O N N I CH I H A"), ("el", "μπορώ", "PB O TD O"),
     ("sv", "ångström", "O NG SZ TD TD U M")],
)  # fmt: skip
def test_words_of_other_languages(language: str, word: str, said: str) -> None:
    assert names(sounds_of(word, language)) == said


def test_words_and_languages_of_texts() -> None:
    assert words_in("Don't stop - it's 5 o'clock!") == ["Don't", "stop", "it's", "5", "o'clock"]
    assert language_of("Так мало") == "ru"
    assert language_of("Μια λεύκα") == "el"
    assert language_of("Elles avaient") == "en"
    assert spell_number(1984) == ["nineteen", "eighty", "four"]
    assert " ".join(spell_number(2_000_305)) == "two million three hundred five"
    assert sounds_of("漢字") == []


@pytest.fixture(scope="module")
def demo() -> AudioClip:
    return load_audio(assets_dir() / "demo.flac")


@pytest.fixture(scope="module")
def said() -> str:
    return (
        "Hello. A moment ago I was only a photograph. Now my lips, my eyes, and my whole face "
        "move with every word. Please bring me a picture of your own."
    )


def test_text_finds_its_times(demo: AudioClip, said: str) -> None:
    fitted, notes = fit_transcript(demo, said)
    assert notes == []
    assert fitted is not None
    assert fitted.segments is not None
    truth = [p for p in phone_tier(read_textgrid(GRID)) if p.label.rstrip("012") in ("P", "B", "M")]
    found = [
        0.5 * (start + end)
        for start, end, parts in fitted.segments
        if parts and parts[0][0] in ("PB", "M")
    ]
    near = [min(abs(p.centre - f) for f in found) < 0.06 for p in truth]
    assert np.mean(near) > 0.85


def test_text_that_is_not_said_is_noticed(demo: AudioClip) -> None:
    fitted, notes = fit_transcript(demo, "an entirely different story about boats on the river")
    assert fitted is None
    assert "does not fit" in notes[0]
    with pytest.warns(UserWarning, match="does not fit"):
        motion = speak(demo, transcript="an entirely different story about boats on the river")
    np.testing.assert_array_equal(motion.dyn, speak(demo).dyn)


def test_a_transcript_sharpens_the_lips(demo: AudioClip, said: str) -> None:
    motion = speak(demo, transcript=said)
    figures = evaluate_lipsync(lip_gap(motion), motion.fps, GRID)
    alone = evaluate_lipsync(lip_gap(speak(demo)), motion.fps, GRID)
    assert figures["pbm_closed"] >= max(0.9, alone["pbm_closed"])
    assert figures["vowels_closed"] <= 0.1


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("chunk", [640, 5000])
def test_stream_with_transcript_equals_whole(
    demo: AudioClip, said: str, timed: bool, chunk: int
) -> None:
    transcript = fit_transcript(demo, said)[0] if timed else read_transcript(said)
    samples = demo.samples[: 4 * SAMPLE_RATE]
    whole, cut = MotionStream(transcript=transcript), MotionStream(transcript=transcript)
    first = [whole.push(samples), whole.flush()]
    second = [cut.push(samples[i : i + chunk]) for i in range(0, len(samples), chunk)]
    second.append(cut.flush())
    np.testing.assert_allclose(
        np.concatenate([m.dyn for m in first]), np.concatenate([m.dyn for m in second]), atol=1e-4
    )


def test_a_stream_falls_back_where_the_text_is_not_said(demo: AudioClip) -> None:
    other = read_transcript("an entirely different story about boats on the river bank " * 3)
    stream = TranscriptEncoder(other)
    followed = concatenate([stream.push(demo.samples), stream.flush()])
    heard = encode(demo.samples)
    late = slice(300, None)
    same = followed.visemes[late].argmax(axis=1) == heard.visemes[late].argmax(axis=1)
    assert same.mean() > 0.9


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_files_of_all_kinds_say_the_same(tmp_path: Path) -> None:
    words = [
        {"word": "my", "start": 0.1, "end": 0.3},
        {"word": "lips", "start": 0.35, "end": 0.8},
    ]
    plain = write(tmp_path / "a.txt", "My lips.")
    listed = write(tmp_path / "b.json", json.dumps(words))
    mapped = write(tmp_path / "c.json", json.dumps({"words": words}))
    spoken = [read_transcript(source) for source in ("my lips", plain, str(plain), listed, mapped)]
    assert len({one.words for one in spoken}) == 1
    assert spoken[0].segments is None
    segments = spoken[3].segments
    assert segments is not None
    assert segments == spoken[4].segments
    assert (segments[0][0], segments[-1][1]) == (0.1, 0.8)
    assert [parts for _, _, parts in segments][:2] == [(("M", 1.0),), (("A", 1.0),)]


def test_phones_with_times(tmp_path: Path) -> None:
    phones = [
        {"phone": "M", "start": 0.0, "end": 0.1},
        {"phone": "aɪ", "start": 0.1, "end": 0.3},
    ]
    read = read_transcript(write(tmp_path / "p.json", json.dumps(phones)))
    assert read.words == (tuple(SOUND_INDEX[s] for s in ("M", "A", "I")),)
    from_grid = read_transcript(GRID)
    assert from_grid.segments is not None
    assert len(from_grid.segments) == len(phone_tier(read_textgrid(GRID)))


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '[{"word": "a"}]', '[{"word": "a", "start": "x", "end": 1}]', "7", '["a"]',
     '[{"word": "my", "start": 2, "end": 1}]',
     '[{"word": "my", "start": 2, "end": 3}, {"word": "lips", "start": 1, "end": 2}]',
     '[{"word": "my", "start": NaN, "end": 1}]', '[{"word": "my", "start": 0, "end": 1e999}]',
     '[{"phone": "M", "start": 0, "end": NaN}]', '[{"phone": "M", "start": -Infinity, "end": 1}]',
     '[{"word": "my", "start": 0, "end": 1' + "0" * 400 + "}]", "[" * 100_000],
)  # fmt: skip
def test_damaged_json_is_a_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_transcript(write(tmp_path / "bad.json", text))
    assert caught.value.message.endswith(".")


def grid_text(*values: object) -> bytes:
    body = ('"' + v + '"' if isinstance(v, str) and v.isalpha() else str(v) for v in values)
    return ('File type = "ooTextFile"\nObject class = "TextGrid"\n' + "\n".join(body)).encode()


@pytest.mark.parametrize(
    "values",
    [(0, 1, 1, "IntervalTier", "words", 0, 1, -3, 0, 1, "my"), (0, 1, "1e999", "IntervalTier"),
     (0, 1, 1, "IntervalTier", "words", 0, 1, 1, 0, "1e999", "my"), (0, 1, 10**15),
     (0, 1, 10**15, "IntervalTier", "words", 0, 1, -2, "TextTier", "b", 0, 1, -2),
     (0, 1, 1, "IntervalTier", "words", 0, 1, 99, 0, 1, "my")],
)  # fmt: skip
def test_damaged_textgrids_are_clear_errors(tmp_path: Path, values: tuple[object, ...]) -> None:
    (tmp_path / "bad.TextGrid").write_bytes(grid_text(*values))
    with pytest.raises(InputError) as caught:
        read_transcript(tmp_path / "bad.TextGrid")
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize("as_text", [True, False])
def test_a_file_of_another_kind_is_not_read_out(tmp_path: Path, as_text: bool) -> None:
    other = write(tmp_path / "words.docx", "my lips")
    with pytest.raises(InputError, match="ends in neither"):
        read_transcript(str(other) if as_text else other)
    with pytest.raises(InputError, match="folder"):
        (tmp_path / "words.txt").mkdir()
        read_transcript(tmp_path / "words.txt")
    assert read_transcript("my lips " * 1000).words


@pytest.mark.parametrize("source", ["", "  ", "漢字", "missing.txt", Path("missing.json")])
def test_nothing_to_say_is_a_clear_error(source: str | Path) -> None:
    with pytest.raises(InputError):
        read_transcript(source)


def test_words_that_cannot_be_read_are_told(demo: AudioClip, said: str) -> None:
    fitted, notes = fit_transcript(demo, said + " 漢字")
    assert fitted is not None
    assert "漢字" in notes[0]


def test_long_chains_are_followed_in_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    words = [rng.integers(1, len(SOUNDS), 3).tolist() for _ in range(60)]
    truth = np.concatenate([np.repeat(sound, 5) for word in words for sound in word])
    logits = rng.normal(0.0, 1.0, (len(truth), len(SOUNDS)))
    logits[np.arange(len(truth)), truth] += 4.0
    posteriors = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    whole = align(posteriors, words)
    monkeypatch.setattr(alignment, "WINDOW_STATES", 60)
    part = align(posteriors, words)
    assert whole is not None
    assert part is not None
    assert (whole.labels == truth).mean() > 0.93
    assert (part.labels == whole.labels).mean() > 0.99


def test_follower_keeps_a_distribution(demo: AudioClip, said: str) -> None:
    posteriors, _, _ = hear_sounds(demo.samples[: 3 * SAMPLE_RATE])
    followed = Follower([list(w) for w in read_transcript(said).words]).push(posteriors)
    np.testing.assert_allclose(followed.sum(axis=1), 1.0, atol=1e-4)
    assert (followed * posteriors).sum(axis=1).mean() > (posteriors**2).sum(axis=1).mean()


def test_known_sounds_move_the_mouth() -> None:
    segments = [
        (0.3, 0.6, arpabet_parts("AA")),
        (0.6, 0.7, arpabet_parts("P")),
        (0.7, 1.0, arpabet_parts("XX")),
    ]
    level = log_mel(np.zeros(int(1.5 * SAMPLE_RATE), np.float32))[1] + 60.0
    activity = timed_activity(segments, level)
    assert activity.visemes[45].argmax() == VISEME_INDEX["A"]
    assert activity.visemes[85].argmax() == VISEME_INDEX["AH"]
    channels = mouth_of_sounds(segments, level)
    assert channels.shape == (150, 52)
    jaw = channels[:, ARKIT_INDEX["jawOpen"]]
    assert jaw[48] > 0.25
    assert jaw[67] < 0.2
    assert jaw[140] < 0.02


def test_command_takes_a_transcript(
    tmp_path: Path, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = str(assets_dir() / "demo.flac")
    assert not main(["motion", demo, "-o", str(tmp_path / "a.csv"), "--transcript", said])
    assert "transcript" not in capsys.readouterr().err
    wrong = write(tmp_path / "wrong.txt", "an entirely different story about boats on the river")
    assert not main(["motion", demo, "-o", str(tmp_path / "b.csv"), "--transcript", str(wrong)])
    assert "does not fit" in capsys.readouterr().err
    missing = str(tmp_path / "missing.txt")
    assert main(["motion", demo, "-o", str(tmp_path / "c.csv"), "--transcript", missing]) == 2
    assert (tmp_path / "a.csv").read_text() != (tmp_path / "b.csv").read_text()
    assert not (tmp_path / "c.csv").exists()
