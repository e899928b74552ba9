"""The real-time path against posing and drawing step by step."""

import numpy as np
import pytest

from vasa3d.avatar.live import STAGES, LiveView, warm_up
from vasa3d.evaluation.benchmark import with_residual
from vasa3d.geometry.cameras import orbit
from vasa3d.kernels.compilation import watch_compilation
from vasa3d.kernels.threads import get_num_threads, set_num_threads
from vasa3d.renderer import RenderConfig, render_cloud
from vasa3d.types import ARKIT_INDEX, MotionLatents

BLUE = np.array([0.2, 0.4, 0.9], np.float32)


def motion(seed: int = 0, frames: int = 3) -> MotionLatents:
    rng = np.random.default_rng(seed)
    dyn = rng.uniform(0.0, 0.4, (frames, len(ARKIT_INDEX)))
    pose = rng.normal(0.0, 0.05, (frames, 6)) * [1, 1, 1, 0.1, 0.1, 0.1]
    return MotionLatents(dyn.astype(np.float32), pose.astype(np.float32))


@pytest.mark.parametrize(("antialias", "rank"), [(False, 0), (True, 0), (False, 3)])
def test_a_live_view_draws_what_pose_and_render_draw(avatar, antialias, rank) -> None:
    avatar = with_residual(avatar, rank)
    config, moves = RenderConfig(antialias=antialias), motion()
    camera = avatar.camera.resized(256, 256)
    view = LiveView(avatar, camera, background=BLUE, config=config)
    for frame in range(len(moves)):
        turned = orbit(camera, avatar.canonical_vertices.mean(0), 15.0 * frame, 5.0)
        drawn = view.draw(moves, frame, camera=turned).astype(np.int32)
        cloud = avatar.pose(moves, frame)
        wanted = render_cloud(cloud, turned, background=BLUE, config=config).to_uint8()
        error = np.abs(drawn - wanted)
        # Gaussians that touch may change places where their depths agree to rounding.
        assert np.quantile(error, 0.999) <= 1
        assert error.max() <= 12


def test_a_transparent_live_view_gives_colours_that_are_not_premultiplied(avatar) -> None:
    camera = avatar.camera.resized(200, 200)
    drawn = LiveView(avatar, camera).draw(motion())
    frame = render_cloud(avatar.pose(motion()), camera)
    assert drawn.shape == (200, 200, 4)
    assert np.quantile(np.abs(drawn[..., 3] - 255.0 * frame.alpha), 0.999) <= 1.0
    solid = frame.alpha > 0.9
    straight = frame.rgb[solid] / frame.alpha[solid][:, None]
    assert np.quantile(np.abs(drawn[solid][:, :3] - 255.0 * straight), 0.999) <= 1.1
    assert (drawn[frame.alpha == 0.0] == 0).all()


def test_a_picture_behind_the_head_shows_through(avatar) -> None:
    camera = avatar.camera.resized(128, 128)
    scene = np.random.default_rng(0).uniform(0, 1, (128, 128, 3)).astype(np.float32)
    drawn = LiveView(avatar, camera, background=scene).draw(motion())
    bare = render_cloud(avatar.pose(motion()), camera).alpha == 0.0
    assert bare.sum() > 100
    assert np.abs(drawn[bare] - 255.0 * scene[bare]).max() <= 0.51


def test_threads_do_not_change_a_live_view(avatar) -> None:
    avatar = with_residual(avatar, 2)
    before = get_num_threads()
    pictures = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        view = LiveView(avatar, background=BLUE)
        pictures.append(view.draw(motion(1), 1).copy())
    set_num_threads(before)
    assert (pictures[0] == pictures[1]).all() and (pictures[0] == pictures[2]).all()


@pytest.mark.parametrize("rank", [0, 2])
def test_a_frame_does_not_depend_on_those_drawn_before(avatar, rank) -> None:
    camera = avatar.camera.resized(128, 128)
    view = LiveView(with_residual(avatar, rank), camera, background=BLUE)
    first = view.draw(motion(), 0).copy()
    view.draw(motion(5), 2)
    assert (view.draw(motion(), 0) == first).all()


def test_stages_are_reported_in_order(avatar) -> None:
    seen: list[str] = []
    LiveView(avatar, avatar.camera.resized(64, 64)).draw(motion(), on_stage=seen.append)
    assert tuple(seen) == STAGES


def test_a_live_view_refuses_what_it_cannot_do(avatar) -> None:
    camera = avatar.camera.resized(64, 64)
    with pytest.raises(ValueError, match="supersample"):
        LiveView(avatar, camera, config=RenderConfig(supersample=2))
    with pytest.raises(ValueError, match="one size"):
        LiveView(avatar, camera).draw(motion(), camera=camera.resized(65, 64))
    with pytest.raises(ValueError, match="background"):
        LiveView(avatar, camera, background=np.zeros((3, 3, 3), np.float32))


def test_warming_up_leaves_nothing_of_the_real_time_path_to_compile(avatar) -> None:
    warm_up()
    names: list[str] = []
    with watch_compilation(names.append):
        for background in (None, BLUE):
            LiveView(with_residual(avatar, 2), background=background).draw(motion())
    assert names == []
