"""Real time: motion latent to picture, without autograd and without making intermediate clouds.

latent -> head parameters -> mesh -> map of every triangle to camera coordinates -> VAS residual ->
splats -> depth order -> tile lists -> bytes. Gaussians go from canonical space to splats in one
kernel; what it computes is what ``Avatar.pose`` followed by ``render_cloud`` computes.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import VasResidual, base_deformation
from vasa3d.avatar.gaussians import Gaussians
from vasa3d.geometry.cameras import intrinsics, look_at
from vasa3d.geometry.meshes import map_triangles, triangle_inverses
from vasa3d.head import load_head
from vasa3d.kernels.threads import run_chunks
from vasa3d.renderer import RenderConfig
from vasa3d.renderer.drawing import draw_bytes, shape_background
from vasa3d.renderer.splats import Binding, Splats, project_cloud, tile_bands
from vasa3d.types import F32, NUM_CHANNELS, U8, Camera, GaussianCloud, MotionLatents

STAGES = ("parameters", "mesh", "residual", "project", "lists", "composite")
"""Steps of one frame, in order; ``project`` poses the Gaussians and sorts."""

_MAP_CHUNK = 2048


class LiveView:
    """Draws one avatar again and again, with memory made once.

    Args:
        avatar: The avatar.
        camera: Where from; the portrait's camera at 512 pixels by default.
        background: (3,) colour or (H, W, 3) picture, float32 in [0, 1]; ``None`` for transparent pictures.
        config: Options of drawing; supersampling is for stills and not offered here.

    Raises:
        ValueError: The background does not fit the camera, or supersampling was asked for.
    """

    def __init__(
        self,
        avatar: Avatar,
        camera: Camera | None = None,
        *,
        background: F32 | None = None,
        config: RenderConfig | None = None,
    ) -> None:
        self.camera = avatar.camera.resized(512, 512) if camera is None else camera
        self._config = RenderConfig() if config is None else config
        if self._config.supersample != 1:
            raise ValueError("a live view does not supersample")
        self._background = None if background is None else shape_background(background, self.camera)
        channels = 4 if background is None else 3
        self._picture = np.empty((self.camera.height, self.camera.width, channels), np.uint8)
        self._avatar = avatar
        self._head = avatar.personal_head
        gaussians = avatar.gaussians
        # Only triangles that carry Gaussians are mapped.
        used, triangles = np.unique(gaussians.triangles, return_inverse=True)
        self._triangles = triangles.astype(np.int32)
        self._faces = np.ascontiguousarray(avatar.head.faces[used], np.int32)
        self._rest = avatar.canonical_vertices
        self._inverses = triangle_inverses(self._rest, self._faces)
        self._maps = np.empty((len(used), 3, 4), np.float32)
        self._vertices = np.empty_like(self._rest)
        self._cloud: GaussianCloud | None = None
        self._splats: Splats | None = None

    def draw(
        self,
        latents: MotionLatents,
        frame: int = 0,
        *,
        camera: Camera | None = None,
        on_stage: Callable[[str], None] | None = None,
    ) -> U8:
        """Draw one frame of motion.

        Args:
            latents: Motion.
            frame: Which frame of it.
            camera: Where from, of the same size; as given at first by default.
            on_stage: Called with the name of each of ``STAGES`` when it is done.

        Returns:
            (H, W, 3) uint8, or (H, W, 4) when transparent, colours not premultiplied. The next call writes to the
            same memory.

        Raises:
            ValueError: The camera has another size.
        """
        view = self.camera if camera is None else camera
        if (view.width, view.height) != (self.camera.width, self.camera.height):
            raise ValueError("a live view draws one size")
        done = _ignore if on_stage is None else on_stage
        avatar = self._avatar
        one = MotionLatents(
            latents.dyn[frame : frame + 1], latents.pose[frame : frame + 1], latents.fps
        )
        params = base_deformation(one, avatar.head, avatar.identity, avatar.mood, avatar.photo_eyes)
        joints, translation = params.joints[0], params.translation[0]
        done("parameters")
        vertices = self._head.vertices(params.expression[0], joints, translation, self._vertices)
        to_camera = view.viewmat[:3].astype(np.float64)

        def map_chunk(start: int, stop: int) -> None:
            map_triangles(
                start, stop, self._rest, self._inverses, vertices, self._faces, to_camera,
                self._maps,
            )  # fmt: skip

        run_chunks(map_chunk, len(self._faces), _MAP_CHUNK)
        joint_maps = to_camera[:, :3] @ self._head.joint_transforms(joints, translation)[:, :3]
        joint_maps[..., 3] += to_camera[:, 3]
        done("mesh")
        self._cloud = avatar.canonical_cloud(one, reuse=self._cloud)
        done("residual")
        binding = Binding(
            self._triangles,
            self._maps,
            avatar.gaussians.layer_weights,
            np.ascontiguousarray(joint_maps, np.float32),
        )
        self._splats = project_cloud(
            self._cloud, view, self._config, binding=binding, reuse=self._splats
        )
        done("project")
        bands = list(tile_bands(self._splats))
        done("lists")
        draw_bytes(self._splats, bands, self._background, self._picture)
        done("composite")
        return self._picture


def warm_up() -> None:
    """Draw a few Gaussians on the mean head, so that every kernel of the real-time path is compiled and cached."""
    head = load_head()
    count, joints = 8, len(head.joint_names)
    still = np.zeros(3, np.float32)
    scene = io.BytesIO()
    Image.new("RGB", (16, 16)).save(scene, "WEBP")
    gaussians = Gaussians(
        means=np.zeros((count, 3), np.float32),
        quats=np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)),
        scales=np.full((count, 3), 0.01, np.float32),
        opacities=np.ones(count, np.float32),
        colors=np.ones((count, 3), np.float32),
        triangles=np.zeros(count // 2, np.int32),
        layer_weights=np.full((count - count // 2, joints), 1.0 / joints, np.float32),
    )
    avatar = Avatar(
        identity=np.zeros(head.num_identity, np.float32),
        offsets=np.zeros((head.num_vertices, 3), np.float32),
        mood=np.zeros(NUM_CHANNELS, np.float32),
        photo_expression=np.zeros(NUM_CHANNELS, np.float32),
        photo_eyes=np.zeros((2, 3), np.float32),
        camera=Camera(look_at((0, 0, 0.6), still), intrinsics(128.0, 64, 64), 64, 64),
        gaussians=gaussians,
        vas=VasResidual.zero(count),
        background_bytes=np.frombuffer(scene.getvalue(), np.uint8),
    )
    for background in (still, None):
        LiveView(avatar, avatar.camera, background=background).draw(MotionLatents.rest())


def _ignore(_: str) -> None:
    pass
