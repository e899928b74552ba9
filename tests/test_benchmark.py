"""The benchmarks measure what they say; no figure is checked against a clock."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from vasa3d.avatar.live import STAGES
from vasa3d.cli.app import main
from vasa3d.evaluation import benchmark
from vasa3d.evaluation.benchmark import resample, with_residual
from vasa3d.exchange import read_camera, read_ply
from vasa3d.renderer import render_cloud
from vasa3d.weights import assets_dir


@pytest.fixture(scope="module")
def avatar_file(avatar, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "me.vasa3d"
    avatar.save(path)
    return str(path)


def run(capsys, *words: str) -> dict:
    assert main(["bench", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_render_reports_and_saves_its_scene(avatar, avatar_file, tmp_path, capsys) -> None:
    folder = tmp_path / "scene"
    result = run(
        capsys, "render", "--avatar", avatar_file, "--size", "128", "--frames", "3",
        "--threads", "1", "--save-scene", str(folder),
    )  # fmt: skip
    assert result["gaussians"] == len(avatar.gaussians)
    assert (result["size"], result["threads"]) == (128, 1)
    assert result["peak_mb"] > 0
    assert set(result["stages_ms"]) == {"project", "lists", "composite"}
    assert 0 < result["frame_ms"]["median"] <= result["frame_ms"]["p95"]
    assert result["fps"] == pytest.approx(1000 / result["frame_ms"]["median"], rel=0.02)
    camera = read_camera(folder / "camera.json")
    read = render_cloud(read_ply(folder / "cloud.ply").seen_from(camera), camera)
    wanted = render_cloud(avatar.pose(avatar.photo_latents), camera)
    assert np.quantile(np.abs(read.rgb - wanted.rgb), 0.999) < 1.0 / 255.0


def test_animate_reports_every_stage(avatar_file, capsys) -> None:
    result = run(
        capsys, "animate", "--avatar", avatar_file, "--size", "64", "--frames", "2",
        "--gaussians", "5000",
    )  # fmt: skip
    assert tuple(result["stages_ms"]) == STAGES
    assert result["gaussians"] == 5000 and result["rank"] == 0


def test_animate_takes_a_residual_of_any_rank(avatar, avatar_file, tmp_path, capsys) -> None:
    size = "--size", "64", "--frames", "1"
    assert run(capsys, "animate", "--avatar", avatar_file, "--rank", "3", *size)["rank"] == 3
    with_residual(avatar, 2).save(tmp_path / "two.vasa3d")
    own = "animate", "--avatar", str(tmp_path / "two.vasa3d"), *size
    assert run(capsys, *own)["rank"] == 2
    assert run(capsys, *own, "--rank", "0")["rank"] == 0


def test_create_reports_a_step_of_optimisation(avatar_file, capsys) -> None:
    result = run(capsys, "create", "--avatar", avatar_file, "--size", "64", "--frames", "2")
    assert result["render_backward_ms"] > 0 and result["iteration_ms"] > 0
    assert tuple(result["stages_ms"]) == ("pose", "render", "loss", "backward", "step")


@pytest.mark.parametrize("share", [0.2, 0.9, 1.0, 1.7, 2.6])
def test_resampling_keeps_the_head_and_its_binding(avatar, share) -> None:
    count = int(share * len(avatar.gaussians))
    other = resample(avatar, count)
    assert len(other.gaussians) == count
    bound = other.gaussians.num_surface / count
    assert bound == pytest.approx(avatar.gaussians.num_surface / len(avatar.gaussians), abs=0.02)
    camera = avatar.camera.resized(96, 96)
    pictures = [render_cloud(a.pose(avatar.photo_latents), camera) for a in (avatar, other)]
    assert np.abs(pictures[0].rgb - pictures[1].rgb).mean() < 0.03
    assert np.abs(pictures[0].alpha - pictures[1].alpha).mean() < 0.03


def test_bad_options_are_refused(capsys, tmp_path) -> None:
    assert main(["bench", "render", "--size", "63"]) == 2
    assert main(["bench", "animate", "--gaussians", "10"]) == 2
    assert main(["bench", "render", "--avatar", str(tmp_path / "none.vasa3d")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_scenes_that_cannot_be_saved_are_refused_first(capsys, tmp_path, monkeypatch) -> None:
    def begin(*args) -> None:
        raise AssertionError("the work was begun")

    monkeypatch.setattr(benchmark, "default_avatar_events", begin)
    (tmp_path / "cloud.ply").write_text("mine")
    for folder in (tmp_path, tmp_path / "cloud.ply", tmp_path / "no" / "folder"):
        assert main(["bench", "render", "--save-scene", str(folder)]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert (tmp_path / "cloud.ply").read_text() == "mine"


def test_without_the_portrait_an_avatar_is_asked_for(capsys, monkeypatch) -> None:
    def fail() -> None:
        raise FileNotFoundError("no picture")

    monkeypatch.setattr(skimage.data, "astronaut", fail)
    said = Path(__file__).parent / "data" / "demo.TextGrid"
    words = ["evaluate", "lipsync", str(assets_dir() / "demo.flac"), str(said)]
    for command in (["bench", "render"], words):
        assert main(command) == 2
        assert "--avatar" in capsys.readouterr().err
