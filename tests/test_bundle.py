"""The web bundle, and the folder that a static host serves."""

import json
import re

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load

from vasa3d.avatar.bundle import BACKGROUND_FRAMING, encode_bundle, encode_motion
from vasa3d.cli import main
from vasa3d.errors import OutputError
from vasa3d.pipeline import turning_point
from vasa3d.portrait.analysis import FRAMING_SIDE, WINDOW_SIDE
from vasa3d.server.site import SITE_FILES, encode_sound, index_page, site_file, write_site
from web_tools import lively_motion, small_avatar


def header_of(data: bytes) -> dict:
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["vasa3d"])


def config_of(page: str) -> dict:
    return json.loads(re.search(r'id="config">(.*?)</script>', page).group(1))


def test_a_bundle_says_what_it_is_and_holds_no_identity() -> None:
    avatar = small_avatar()
    data = encode_bundle(avatar, turning_point(avatar))
    header, tensors = header_of(data), load(data)
    assert header["format"] == "vasa3d-web" and header["version"] == 1
    assert len(header["channels"]) == 52 and header["joints"][0] == "root"
    assert not {"identity", "offsets", "photo_eyes"} & set(tensors)
    assert len(tensors["means"]) == len(avatar.gaussians)
    assert tensors["triangles"].max() == len(tensors["faces"]) - 1
    assert pytest.approx(FRAMING_SIDE / WINDOW_SIDE) == BACKGROUND_FRAMING


def test_the_head_of_a_bundle_is_the_persons() -> None:
    avatar = small_avatar()
    tensors = load(encode_bundle(avatar, turning_point(avatar)))
    person = avatar.personal_head
    steps = np.repeat(tensors["shape_steps"], np.diff(tensors["shape_starts"]))
    deltas = tensors["shape_deltas"] * steps[:, None]
    assert np.abs(deltas - person.shapes.deltas).max() < 1e-6
    assert np.abs(tensors["skin_weights"] / 65535 - person.weights).max() < 1e-5
    used = avatar.head.faces[np.unique(avatar.gaussians.triangles)]
    assert (
        tensors["faces"][tensors["triangles"]] == avatar.head.faces[avatar.gaussians.triangles]
    ).all()
    assert (tensors["faces"] == used).all()


def test_motion_keeps_its_values() -> None:
    motion = lively_motion(20)
    data = encode_motion(motion)
    tensors = load(data)
    assert header_of(data)["fps"] == motion.fps
    assert np.abs(tensors["dyn"] / 65535 - motion.dyn).max() < 1e-5
    assert (tensors["pose"] == motion.pose).all()


SPEECH = ("speech.js", "onnxruntime.wasm.gz", "speech.onnx", "motion.onnx")
"""Fetched only when somebody is to speak."""


def test_a_site_is_complete_and_small(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((44100, 2), np.float32), 44100)
    size = write_site(
        tmp_path / "page",
        small_avatar(),
        "Ann <b>",
        motion=lively_motion(),
        audio=tmp_path / "a.wav",
    )
    made = {path.name: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    assert set(made) == {*SITE_FILES, "avatar.safetensors", "motion.safetensors", "audio.flac"}
    assert size == sum(map(len, made.values()))
    speech = sum(len(made.pop(name)) for name in SPEECH)
    assert size - speech < 8_000_000 and speech < 12_000_000
    page = made["index.html"].decode()
    config = config_of(page)
    assert config["avatars"] == [{"name": "Ann <b>", "src": "avatar.safetensors"}]
    assert "<b>" not in page
    for name in re.findall(r'(?:src|href)="([\w.]+)"', page):
        assert name in made
    assert "http" not in made["player.js"].decode().replace("http://www.w3.org", "").replace(
        '"http"', ""
    )


def test_a_site_is_not_overwritten_unasked(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(4000, np.float32), 16000)
    voice = {"motion": lively_motion(), "audio": tmp_path / "a.wav"}
    write_site(tmp_path / "page", small_avatar(), "a", **voice)
    (tmp_path / "page" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        write_site(tmp_path / "page", small_avatar(), "b")
    write_site(tmp_path / "page", small_avatar(), "b", force=True)
    assert (tmp_path / "page" / "notes.txt").read_text() == "mine"
    assert not {"motion.safetensors", "audio.flac"} & {
        p.name for p in (tmp_path / "page").iterdir()
    }
    assert config_of((tmp_path / "page" / "index.html").read_text())["avatars"][0]["name"] == "b"


@pytest.mark.parametrize("name", ["page.css", "player.js", "avatar.safetensors", "audio.flac"])
def test_a_site_replaces_no_file_of_a_folder_unasked(tmp_path, name) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=name):
        write_site(tmp_path, small_avatar(), "a")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "mine")]


def test_sound_for_a_page_keeps_its_length(tmp_path) -> None:
    tone = np.sin(np.arange(48000) * 2 * np.pi * 440 / 48000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], 1), 48000)
    (tmp_path / "a.flac").write_bytes(encode_sound(tmp_path / "a.wav"))
    samples, rate = soundfile.read(tmp_path / "a.flac")
    assert rate == 24000 and samples.ndim == 1
    assert abs(len(samples) - 24000) <= 1
    assert np.abs(samples[100:-100]).max() == pytest.approx(1.0, abs=0.02)


def test_pages_hold_their_configuration_as_data() -> None:
    nasty = {"avatars": [{"name": "</script><script>alert(1)</script>", "src": "x"}]}
    page = index_page(nasty).decode()
    assert "<script>alert" not in page and config_of(page) == nasty
    assert site_file("player.js").startswith(b"") and len(site_file("player.js")) < 200_000


def test_export_writes_a_page(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_avatar().save("me.vasa3d")
    assert main(["export", "me.vasa3d", "-o", "page", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    made = {path.name: path.stat().st_size for path in (tmp_path / "page").iterdir()}
    assert result["bytes"] == sum(made.values()) and "index.html" in made
    assert main(["export", "me.vasa3d", "-o", "page"]) == 2
    assert main(["export", "me.vasa3d", "-o", "page", "--force"]) == 0
    assert main(["export", "me.vasa3d", "-o", "other", "--frame", "m.csv:0"]) == 2
    assert main(["export", "me.vasa3d", "-o", "me.ply", "--motion", "m.csv"]) == 2
