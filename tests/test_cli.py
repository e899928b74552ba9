"""The commands: what they print, what they write, how they fail, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import vasa3d.avatar.avatar
import vasa3d.evaluation.sheet
import vasa3d.motion.generator
import vasa3d.pipeline
from vasa3d import __version__, weights
from vasa3d.cli import main
from vasa3d.cli.options import parse_emotion, parse_gaze
from vasa3d.errors import FaceError, InputError, OutputError
from vasa3d.exchange import read_ply, write_camera, write_ply
from vasa3d.geometry.cameras import intrinsics, look_at
from vasa3d.types import (
    DEFAULT_FPS,
    SAMPLE_RATE,
    Camera,
    Event,
    Frame,
    GaussianCloud,
    MotionLatents,
)
from vasa3d.video import write_video

COMMANDS = ["talk", "create", "animate", "motion", "render", "export", "serve", "doctor"]
GROUPS = [
    "evaluate lipsync", "evaluate reenact", "evaluate pair", "evaluate novel-view", "train head", "train speech",
]  # fmt: skip


class FakeAvatar:
    """Stands in for a real avatar, which takes long to make."""

    def save(self, path: Path, *, force: bool = False) -> None:
        Path(path).write_bytes(b"avatar")

    @staticmethod
    def load(path: Path) -> FakeAvatar:
        return FakeAvatar()

    @property
    def photo_latents(self) -> MotionLatents:
        return MotionLatents.rest(1)

    def pose(self, latents: MotionLatents, frame: int = 0) -> GaussianCloud:
        """Balls whose number tells which frame they show, red on the left of green."""
        count = 40 + frame
        spread = np.linspace(-0.1, 0.1, count)
        means = np.stack([spread, 0.01 * np.cos(99.0 * spread), 0.0 * spread], 1)
        covariances = np.tile(np.array([1, 0, 0, 1, 0, 1], np.float32) * 6e-5, (count, 1))
        colors = np.where(spread[:, None] < 0.0, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
        return GaussianCloud(
            means.astype(np.float32), covariances, np.full(count, 0.9, np.float32),
            colors.astype(np.float32),
        )  # fmt: skip


@pytest.fixture
def stage(tmp_path, monkeypatch) -> SimpleNamespace:
    """A folder with a photo and a recording, and a pipeline whose slow steps are replaced."""
    calls: dict[str, object] = {}

    def create_events(
        path,
        *,
        face=None,
        seed=0,
        quality="standard",
        checkpoint=None,
        video=None,
        sds=None,
        device="cpu",
    ):
        calls["create"] = {"path": Path(path), "face": face, "seed": seed}
        calls["optimised on"] = device
        calls["quality"], calls["checkpoint"] = quality, checkpoint
        calls["video"], calls["sds"] = video, sds
        if not Path(path).exists():
            raise FaceError("no face was found.", hint="use another photo")
        if checkpoint is not None:
            calls["found"] = checkpoint.exists()
            checkpoint.write_bytes(b"state")
        yield Event("analyse", 1, 2, "the picture is dark.", warning=True)
        report = {"landmark_error": 0.01, "psnr_source": 31.5, "gaussians": 50_000, "seconds": 1.0}
        report["warnings"] = ["the picture is dark."]
        result = SimpleNamespace(avatar=FakeAvatar(), report=report)
        yield Event("done", 2, 2, data={"result": result})

    def speak(clip, *, fps=DEFAULT_FPS, seed=0, controls=None, transcript=None):
        calls["speak"] = {"seed": seed, "controls": controls}
        return MotionLatents.rest(max(1, int(np.ceil(clip.duration_seconds * fps))), fps)

    def camera_path(avatar, spec, count, fps, size):
        calls["camera"] = spec
        return [
            Camera(np.eye(4, dtype=np.float32), np.eye(3, dtype=np.float32), size, size)
        ] * count

    def render(avatar, latents, cameras, *, size=512, background=None, config=None, device="cpu"):
        calls["background"] = background
        calls["config"], calls["device"] = config, device
        for index in range(len(latents)):
            if "stop" in calls:
                calls["stop"](index)
            yield Frame(
                np.full((size, size, 3), 0.5, np.float32), np.ones((size, size), np.float32)
            )

    monkeypatch.setattr(vasa3d.pipeline, "create_events", create_events)
    monkeypatch.setattr(
        vasa3d.evaluation.sheet, "contact_sheet", lambda avatar: np.zeros((8, 8, 3), np.uint8)
    )
    monkeypatch.setattr(vasa3d.pipeline, "camera_path", camera_path)
    monkeypatch.setattr(vasa3d.pipeline, "render", render)
    monkeypatch.setattr(vasa3d.pipeline, "resolve_background", lambda avatar, spec, size: spec)
    monkeypatch.setattr(vasa3d.pipeline, "turning_point", lambda avatar: np.zeros(3, np.float32))
    monkeypatch.setattr(vasa3d.motion.generator, "speak", speak)
    monkeypatch.setattr(vasa3d.avatar.avatar, "Avatar", FakeAvatar)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me.png").write_bytes(b"photo")
    (tmp_path / "me.vasa3d").write_bytes(b"avatar")
    tone = 0.3 * np.sin(np.arange(SAMPLE_RATE) * 0.05)
    soundfile.write(tmp_path / "say.wav", tone, SAMPLE_RATE)
    return SimpleNamespace(folder=tmp_path, calls=calls)


def run(words: str) -> int:
    return main(words.split())


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("command", ["", *COMMANDS, *GROUPS])
def test_help_explains_with_examples(command, capsys) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: vasa3d" in text
    if command:
        assert f"  vasa3d {command}" in text.partition("Examples:")[2]
        assert "--json" in text
    else:
        assert all(name in text for name in COMMANDS)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from vasa3d.cli import main; main(['--help']); "
        "heavy = {'numpy', 'torch', 'numba', 'mediapipe', 'av', 'cv2', 'rich'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_command_and_version(capsys) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vasa3d {__version__}\n"


def test_talk_writes_a_video_and_reports(stage, capsys) -> None:
    words = "talk me.png say.wav -o out.mp4 --size 64 --seed 7 --face 1 --json"
    assert run(words + " --emotion happy:0.4 --gaze 5,-2") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["frames"] == 25
    assert result["duration_seconds"] == 1.0
    assert result["output"] == "out.mp4"
    assert result["warnings"] == ["the picture is dark."]
    assert result["avatar"]["psnr_source"] == 31.5
    assert printed.err == "warning: the picture is dark.\n"
    assert stage.calls["create"] == {"path": Path("me.png"), "face": 1, "seed": 7}
    assert stage.calls["speak"]["seed"] == 7
    assert stage.calls["speak"]["controls"].emotion == {"happy": 0.4}
    assert stage.calls["speak"]["controls"].gaze == (5.0, -2.0)
    assert stage.calls["background"] == "original"
    assert (stage.folder / "out.mp4").stat().st_size > 1000


def test_output_is_named_after_the_input(stage, capsys) -> None:
    assert run("talk me.png say.wav --size 64") == 0
    assert "me.mp4: 1.0 s, 25 frames of 64x64" in capsys.readouterr().out
    assert run("motion say.wav") == 0
    assert names(stage.folder) >= {"me.mp4", "say.csv"}


def test_create_can_learn_from_a_clip_and_a_model(stage, capsys) -> None:
    assert run("create me.png -o out.vasa3d --video clip.mp4 --sds model --json") == 0
    assert stage.calls["video"] == Path("clip.mp4") and stage.calls["sds"] == Path("model")
    capsys.readouterr()


def test_create_reports(stage, capsys) -> None:
    assert run("create me.png -o new.vasa3d --json") == 0
    result = json.loads(capsys.readouterr().out)
    keys = {"landmark_error", "psnr_source", "gaussians", "seconds", "peak_mb", "warnings"}
    assert keys <= set(result)
    assert result["bytes"] == 6 and not stage.calls["checkpoint"].exists()
    assert (stage.folder / "new.vasa3d").exists() and stage.calls["optimised on"] == "cpu"


@pytest.mark.parametrize("output", ["out.mp4", "frames", "there", "p_%02d.png", "."])
def test_a_stopped_talk_goes_on_from_its_checkpoint(stage, output, capsys) -> None:
    def stop(index: int) -> None:
        if index == 3:
            raise KeyboardInterrupt

    (stage.folder / "there").mkdir()
    stage.calls["stop"] = stop
    assert run(f"talk me.png say.wav -o {output} --size 64") == 130
    checkpoint = stage.calls["checkpoint"]
    assert checkpoint.exists() and checkpoint.name.startswith(".") and not stage.calls["found"]
    del stage.calls["stop"]
    assert run(f"talk me.png say.wav -o {output} --size 64") == 0
    assert stage.calls["checkpoint"] == checkpoint and stage.calls["found"]
    assert not checkpoint.exists() and not list(stage.folder.rglob("*.checkpoint"))


def test_create_keeps_its_checkpoint_until_all_is_written(stage, monkeypatch, capsys) -> None:
    def fail(*args, **options) -> None:
        raise OutputError("the disk is full.", hint="free some space")

    with monkeypatch.context() as patch:
        patch.setattr(vasa3d.evaluation.sheet, "write_sheet", fail)
        assert run("create me.png -o new.vasa3d") == 2
    assert stage.calls["checkpoint"].exists()
    assert run("create me.png -o new.vasa3d --force") == 0
    assert stage.calls["found"] and not stage.calls["checkpoint"].exists()


@pytest.mark.parametrize("command", ["talk me.png say.wav", "animate me.vasa3d say.wav"])
@pytest.mark.parametrize(
    "wish",
    [
        "--background nope.png",
        "--background say.wav",
        "--background #12345",
        "--camera missing.json",
        "--camera bad.json",
        "--transcript missing.txt",
        "--transcript bad.json",
    ],
)
def test_wishes_are_checked_before_the_work(stage, monkeypatch, capsys, command, wish) -> None:
    def load(path: Path) -> FakeAvatar:
        raise AssertionError("the avatar was opened")

    monkeypatch.setattr(FakeAvatar, "load", load)
    (stage.folder / "bad.json").write_text("[{]")
    before = names(stage.folder)
    assert run(f"{command} -o out.mp4 {wish}") == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert names(stage.folder) == before and "create" not in stage.calls


def test_names_beyond_the_encoding_of_the_terminal_are_told(stage, monkeypatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    for name in ("caf\u00e9.npz", "odd\udcff.npz"):
        assert main(["motion", "say.wav", "-o", name]) == 0
    told = terminal.buffer.getvalue()
    assert b"caf\\xe9.npz" in told and b"odd\\udcff.npz" in told


def test_animate_and_render(stage, capsys) -> None:
    words = "animate me.vasa3d say.wav -o a.mov --size 64 --background transparent --distance 1.5"
    assert run(words) == 0
    capsys.readouterr()
    assert run("motion say.wav -o m.npz --fps 50 --json") == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 50
    assert run("render me.vasa3d m.npz -o frames --size 64 --audio say.wav") == 0
    assert len(names(stage.folder / "frames")) == 50


def test_options_of_drawing_reach_the_renderer(stage, capsys) -> None:
    assert run("motion say.wav -o m.npz --fps 10") == 0
    words = "render me.vasa3d m.npz -o frames --size 64"
    assert run(f"{words} --antialias --supersample 3 --device cpu") == 0
    config = stage.calls["config"]
    assert config.antialias and config.supersample == 3 and stage.calls["device"] == "cpu"
    assert run(f"{words} --force --supersample 129") == 2
    assert "--supersample between 1 and 128" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "talk me.png say.wav -o out.mp4 --device cuda",
        "animate me.vasa3d say.wav -o out.mp4 --device cuda",
        "render me.vasa3d m.csv -o out.mp4 --device cuda",
        "render s.ply -o out.png --device cuda",
    ],
)
def test_without_a_gpu_nothing_is_begun(stage, capsys, monkeypatch, words) -> None:
    assert run("export me.vasa3d -o s.ply") == 0
    assert run("motion say.wav -o m.csv") == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = names(stage.folder)
    capsys.readouterr()
    assert run(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no GPU") and error.count("\n") == 1
    assert "--device cpu" in error
    assert names(stage.folder) == before and "create" not in stage.calls


@pytest.fixture
def clip(stage) -> Path:
    """A video of grey pictures with sound, in which a tracker would find no face."""
    grey = Frame(np.full((96, 96, 3), 0.5, np.float32), np.ones((96, 96), np.float32))
    write_video(stage.folder / "clip.mp4", [grey] * 10, stage.folder / "say.wav", fps=25.0)
    return stage.folder / "clip.mp4"


def test_motion_of_a_video_is_tracked_unless_its_sound_is_asked_for(
    stage, clip, monkeypatch, capsys
) -> None:
    def track_events(path, *, fps=None):
        stage.calls["track"] = (Path(path).name, fps)
        tracked = SimpleNamespace(motion=MotionLatents.rest(7, fps or 25.0), warnings=("a gap",))
        yield Event("done", data={"result": tracked})

    monkeypatch.setattr(vasa3d.pipeline, "track_events", track_events)
    assert run("motion clip.mp4 -o a.npz --fps 50 --json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["from"], result["frames"], result["fps"]) == ("video", 7, 50.0)
    assert result["warnings"] == ["a gap"] and stage.calls["track"] == ("clip.mp4", 50.0)
    assert run("motion clip.mp4 --from audio --emotion happy:0.5 -o b.npz --json") == 0
    assert json.loads(capsys.readouterr().out)["from"] == "audio"
    assert stage.calls["speak"]["controls"].emotion == {"happy": 0.5}
    assert run("motion say.wav -o c.npz --json") == 0
    assert json.loads(capsys.readouterr().out)["from"] == "audio"
    assert run("motion clip.mp4 --emotion happy -o d.npz") == 2
    assert "--from audio" in capsys.readouterr().err


def test_a_video_without_a_face_is_refused(clip, capsys) -> None:
    assert run("motion clip.mp4 -o a.csv") == 2
    line = capsys.readouterr().err
    assert "no face" in line and "hint:" in line and len(line.splitlines()) == 1


def test_protocols_report_every_way_and_write_a_sheet(stage, clip, monkeypatch, capsys) -> None:
    import vasa3d.evaluation.reenactment as reenactment
    from vasa3d.evaluation.comparison import MEASURES

    def reenact_events(path, *, quality, seed):
        stage.calls["reenact"] = (Path(path).name, quality, seed)
        row = dict.fromkeys(MEASURES, 0.5)
        rows = {way: dict(row) for way in ("ours", "draft", "held_still")}
        rows["held_still"]["aperture_correlation"] = float("nan")
        sheet = np.zeros((8, 24, 3), np.uint8)
        yield Event("done", data={"frames": 10, "found": 1.0, **rows, "sheet": sheet})

    monkeypatch.setattr(reenactment, "reenact_events", reenact_events)
    words = "evaluate reenact clip.mp4 clip.mp4 --quality draft --seed 3"
    assert run(words + " --sheet sheet.png --json") == 0
    result = json.loads(capsys.readouterr().out)
    assert stage.calls["reenact"] == ("clip.mp4", "draft", 3) and result["quality"] == "draft"
    for way in ("ours", "draft", "held_still"):
        assert result[way]["psnr_face"] == 0.5 and set(result[way]) == set(MEASURES)
    assert result["held_still"]["aperture_correlation"] is None
    assert Image.open(stage.folder / "sheet.png").size == (24, 16)
    assert run(words) == 0
    table = capsys.readouterr().out
    assert table.startswith("| | psnr |") and "| held_still |" in table


@pytest.mark.parametrize(
    "words",
    [
        "evaluate reenact missing.mp4",
        "evaluate reenact clip.mp4 --sheet sheet.jpg",
        "evaluate pair me.png",
        "evaluate pair me.png missing.png",
        "evaluate novel-view missing.obj me.png",
    ],
)
def test_protocols_refuse_in_one_line(clip, words, capsys) -> None:
    assert run(words) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and "hint:" in line and len(line.splitlines()) == 1


def test_export_writes_a_frame_of_motion(stage, capsys) -> None:
    assert run("motion say.wav -o m.csv --fps 10") == 0
    capsys.readouterr()
    assert run("export me.vasa3d --json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["gaussians"] == 40 and result["output"].endswith("me.ply")
    assert result["bytes"] == (stage.folder / "me.ply").stat().st_size
    assert len(read_ply(stage.folder / "me.ply")) == 40
    assert run("export me.vasa3d -o me.ply") == 2
    assert "--force" in capsys.readouterr().err
    assert run("export me.vasa3d -o me.ply --frame m.csv:7 --force") == 0
    assert len(read_ply(stage.folder / "me.ply")) == 47
    assert run("export me.vasa3d -o late.ply --frame m.csv:10") == 2
    assert "from 0 to 9" in capsys.readouterr().err
    assert "late.ply" not in names(stage.folder)


def test_render_draws_a_picture_of_a_scene(stage, capsys) -> None:
    assert run("export me.vasa3d -o s.ply") == 0
    capsys.readouterr()
    assert run("render s.ply --json --size 100") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["width"], result["height"], result["gaussians"]) == (100, 100, 40)
    picture = np.asarray(Image.open(stage.folder / "s.png")).astype(int)
    assert picture.shape == (100, 100, 3) and (picture[0] == 0).all()
    assert picture[50, 35, 0] > 100 > 50 > picture[50, 35, 1]
    assert picture[50, 65, 1] > 100 > 50 > picture[50, 65, 0]
    assert run("render s.ply -o s.png") == 2
    assert "--force" in capsys.readouterr().err
    assert run("export me.vasa3d -o s.spz") == 0 and run("render s.spz -o z.png --size 100") == 0
    packed = np.asarray(Image.open(stage.folder / "z.png")).astype(int)
    assert np.abs(packed - picture).mean() < 3.0

    view = Camera(look_at((0, 0, -0.5), (0, 0, 0)), intrinsics(200.0, 333, 77), 333, 77)
    write_camera(stage.folder / "behind.json", view)
    words = "render s.ply -o t.png --camera behind.json --background transparent --supersample 2"
    assert run(f"{words} --antialias") == 0
    picture = np.asarray(Image.open(stage.folder / "t.png")).astype(int)
    assert picture.shape == (77, 333, 4) and (picture[0, :, 3] == 0).all()
    assert picture[38, 150, 1] > 200 and picture[38, 150, 3] > 200  # green is left from behind

    (stage.folder / "keys.json").write_text('[{"time": 0, "yaw": 180, "distance": 2}]')
    assert run("render s.ply -o u.png --camera keys.json --background #0000ff --size 100") == 0
    picture = np.asarray(Image.open(stage.folder / "u.png")).astype(int)
    assert (picture[0, 0] == [0, 0, 255]).all() and picture[50, 45, 1] > 100


@pytest.mark.parametrize(
    "words",
    [
        "render s.ply m.npz -o out.png",
        "render s.ply -o out.mp4",
        "render s.ply -o out.png --audio say.wav",
        "render s.ply -o out.png --camera orbit",
        "render s.ply -o out.png --camera missing.json",
        "render s.ply -o out.png --camera bad.json",
        "render s.ply -o out.png --camera large.json",
        "render s.ply -o out.png --background picture.png",
        "render s.ply -o out.png --size 10",
        "render s.ply -o out.png --supersample 0",
        "render bad.ply -o out.png",
        "render bad.spz -o out.png",
        "render far.ply -o out.png",
    ],
)
def test_bad_wishes_for_a_scene_are_one_line(stage, capsys, words) -> None:
    assert run("export me.vasa3d -o s.ply") == 0
    (stage.folder / "bad.json").write_text('{"viewmat": 3}')
    (stage.folder / "bad.ply").write_bytes(b"ply\nformat ascii 1.0\n")
    (stage.folder / "bad.spz").write_bytes(b"no gzip")
    far = read_ply(stage.folder / "s.ply")
    one = GaussianCloud(far.means * 1e30, far.covariances, far.opacities, far.means)
    write_ply(stage.folder / "far.ply", one)
    view = Camera(look_at((0, 0, -0.5), (0, 0, 0)), intrinsics(200.0, 64, 4096), 64, 4096)
    write_camera(stage.folder / "large.json", view)
    before = names(stage.folder)
    capsys.readouterr()
    assert run(words) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and ". hint: " in printed.err and printed.out == ""
    assert names(stage.folder) == before


@pytest.mark.parametrize(
    "words",
    [
        "talk me.png missing.wav -o out.mp4",
        "talk missing.png say.wav -o out.mp4",
        "talk me.png say.wav -o no/out.mp4",
        "talk me.png say.wav -o out.avi",
        "talk me.png say.wav -o out.mp4 --background transparent",
        "talk me.png say.wav -o out.mp4 --fps 0",
        "talk me.png say.wav -o out.mp4 --distance 100",
        "talk me.png say.wav -o out.mp4 --emotion joyful",
        "talk me.png say.wav -o out.mp4 --emotion happy:much",
        "talk me.png say.wav -o out.mp4 --gaze up",
        "talk me.png say.wav -o out.mp4 --size large",
        "talk me.png say.wav -o out.mp4 --size 63",
        "talk me.png say.wav -o out.mp4 --size 2049",
        "talk me.png say.wav -o out.mp4 --device tpu",
        "render me.vasa3d -o out.mp4",
        "export me.vasa3d -o out.obj",
        "export missing.vasa3d -o out.ply",
        "export me.vasa3d -o out.ply --frame motion.csv",
        "export me.vasa3d -o out.ply --frame missing.csv:0",
        "export me.vasa3d -o out.ply --frame say.wav:first",
        "render scene.ply -o out.png",
        "talk me.png say.wav -o out.mp4 --quality excellent",
        "talk me.png say.wav -o out.mp4 --seed -1",
        "talk me.png -o out.mp4",
        "talk me.png say.wav -o out.mp4 --nonsense",
        "motion say.wav -o out.txt",
        "render me.vasa3d missing.csv -o out.mp4",
        "evaluate lipsync say.wav",
        "evaluate",
        "train head --data missing -o head.safetensors",
        "nonsense",
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(stage, capsys, words) -> None:
    before = names(stage.folder)
    assert run(words) == 2
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if not line.startswith("warning:")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert ". hint: " in errors[0]
    assert printed.out == ""
    assert names(stage.folder) == before


def test_existing_output_stays_unless_forced(stage, capsys) -> None:
    (stage.folder / "out.mp4").write_bytes(b"old")
    assert run("talk me.png say.wav -o out.mp4 --size 64") == 2
    assert "--force" in capsys.readouterr().err
    assert (stage.folder / "out.mp4").read_bytes() == b"old"
    assert "create" not in stage.calls
    assert run("talk me.png say.wav -o out.mp4 --size 64 --force") == 0
    assert (stage.folder / "out.mp4").stat().st_size > 1000


def test_interruption_leaves_nothing(stage, capsys) -> None:
    def stop(index: int) -> None:
        if index == 3:
            raise KeyboardInterrupt

    stage.calls["stop"] = stop
    before = names(stage.folder)
    assert run("animate me.vasa3d say.wav -o out.mp4 --size 64") == 130
    assert "interrupted" in capsys.readouterr().err
    assert names(stage.folder) == before


@pytest.mark.skipif(os.name != "posix", reason="signals of this kind exist on POSIX systems only")
def test_termination_leaves_nothing(stage) -> None:
    def stop(index: int) -> None:
        if index == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    stage.calls["stop"] = stop
    before = names(stage.folder)
    with pytest.raises(SystemExit) as caught:
        run("animate me.vasa3d say.wav -o out.mp4 --size 64")
    assert caught.value.code == 143
    assert names(stage.folder) == before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_bug_is_told_in_one_line_and_in_full_with_debug(stage, capsys) -> None:
    def stop(index: int) -> None:
        raise ZeroDivisionError("division\nby zero")

    stage.calls["stop"] = stop
    words = "animate me.vasa3d say.wav -o out.mp4 --size 64"
    assert run(words) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("error: unexpected ZeroDivisionError: division by zero.")
    assert "--debug" in line
    with pytest.raises(ZeroDivisionError):
        run(words + " --debug")


def test_native_chatter_stays_off_the_screen() -> None:
    code = (
        "import os, sys, vasa3d.cli.doctor as d\n"
        "d._package = lambda name: (os.write(2, b'native noise'), d.Check(name, True, ''))[1]\n"
        "d._asset = lambda name: d.Check(name, True, '')\n"
        "d._kernels = lambda reporter: d.Check('kernels', True, '')\n"
        "from vasa3d.cli import main\n"
        "code = main(['doctor', '--json'])\n"
        "os.write(2, b'after')\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == "after"
    assert json.loads(done.stdout)["ok"]


def test_doctor_tells_what_is_missing(monkeypatch, capsys) -> None:
    from vasa3d.cli import doctor

    monkeypatch.setitem(doctor.MODULES, "numba", "no_such_module")
    monkeypatch.setattr(doctor, "requirements", lambda: ["av", "numba"])
    monkeypatch.setattr(doctor, "ASSETS", ("head", "no_such_asset"))
    assert main(["doctor", "--json"]) == 2
    result = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in result["checks"]}
    assert not checks["numba"]["ok"]
    assert checks["numba"]["hint"] == "pip install numba"
    assert not checks["asset no_such_asset"]["ok"]
    assert checks["av"]["ok"]
    assert "device cuda" in checks and not checks["device cuda"]["needed"]
    assert not result["ok"]
    assert not result["runs"]["render"]
    assert main(["doctor"]) == 2
    assert "!!  numba" in capsys.readouterr().out


def test_doctor_looks_at_every_asset(monkeypatch, capsys, tmp_path) -> None:
    from vasa3d.cli import doctor

    shipped = weights.assets_dir()
    assert set(doctor.ASSETS) == set(weights.manifest())
    for file in shipped.glob("*.safetensors"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "motion.safetensors").unlink()
    (tmp_path / "motion.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(weights, "assets_dir", lambda: tmp_path)
    monkeypatch.setattr(doctor, "requirements", lambda: [])
    assert main(["doctor", "--json"]) == 2
    result = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in result["checks"]}
    assert [name for name, check in checks.items() if check["needed"] and not check["ok"]] == [
        "asset motion"
    ]
    assert "damaged" in checks["asset motion"]["detail"]
    assert "sources" in checks["asset motion"]["hint"] and "kernels" not in checks
    stopped = {command for command, ok in result["runs"].items() if not ok}
    assert {"talk", "animate", "motion", "export", "serve"} <= stopped
    assert not {"create", "render", "motion of a video"} & stopped


def test_doctor_asks_for_what_this_system_needs(monkeypatch) -> None:
    from vasa3d.cli import doctor

    lines = ["av>=14", 'uvloop>=0.21; sys_platform != "win32"', 'ruff>=0.11; extra == "dev"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    for system, wanted in (("linux", ["av", "uvloop"]), ("win32", ["av"])):
        monkeypatch.setattr(sys, "platform", system)
        assert doctor.requirements() == wanted


@pytest.mark.parametrize("text", ["[]", "{", '{"head": 3}', '{"head": {"file": "x"}}'])
def test_training_refuses_a_strange_manifest_first(stage, capsys, text) -> None:
    (stage.folder / "manifest.json").write_text(text)
    for words in ("head --data none", "speech --data none", "pronunciation --dictionary none"):
        assert run(f"train {words} -o a.safetensors") == 2
        assert "manifest.json is no list of assets" in capsys.readouterr().err
    assert (stage.folder / "manifest.json").read_text() == text


def test_emotions_and_gaze_are_read() -> None:
    assert parse_emotion(["happy:0.5, sad:0.25", "Angry"]) == {
        "happy": 0.5, "sad": 0.25, "angry": 1.0,
    }  # fmt: skip
    assert parse_emotion(None) == {}
    assert parse_gaze("10,-5.5") == (10.0, -5.5)
    for text in ("", "1", "1,2,3", "a,b"):
        with pytest.raises(InputError):
            parse_gaze(text)
