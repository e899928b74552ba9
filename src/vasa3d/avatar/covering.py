"""Coats of the layer: what the photo shows of hair and clothes, a lining under it and the back.

Nothing of the lining and the back may lie before bare skin (``bareness.py``).
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from scipy.spatial import KDTree

from vasa3d.avatar.back import back_mesh
from vasa3d.avatar.bareness import BEHIND, FRONT, LEFT, RIGHT, hides
from vasa3d.avatar.coats import (
    FIRM,
    LOOSE,
    Coat,
    at_output_detail,
    cell_colors,
    framing_importance,
    join_coats,
    keep,
)
from vasa3d.avatar.layer import (
    LayerShape,
    ear_plane,
    surface_points,
)
from vasa3d.avatar.sampling import (
    CELL_FILL,
    CLOSED_FILL,
    Cells,
    cut_cells,
    edge_shapes,
    outer_covariances,
    read_pixels,
    round_shapes,
)
from vasa3d.avatar.scene import Scene
from vasa3d.geometry.cameras import project, unproject
from vasa3d.geometry.covariances import unpack_covariances
from vasa3d.geometry.meshes import (
    face_areas,
    sample_surface,
    vertex_normals,
)
from vasa3d.portrait.inpainting import fill_holes
from vasa3d.types import F32

_LINING_DEPTH_METRES = 0.008
_FINE_LINING_BEYOND = 40
"""Pixels around the framing up to which the lining is fine."""
_TORSO_BACK_DENSITY = 0.3
_STRAND_STRETCH = 1.5
_RIM_PIXELS = 16.0
_RIM_SHRINK = 0.5
_REACH = 2.0
"""Standard deviations within which a Gaussian is seen."""
_LEAST_CUT = 0.3
_CHEEK_BEFORE_EARS_METRES = 0.03
_NECK_METRES = 0.06
_RING_PIXELS = 12.0
_COLLAR_METRES = 0.008
_SHOULDER_SLOPE = 0.7
_CLEAR_METRES = 0.008
_TURNED_DEGREES = 15.0
_HAIR_BESIDE_METRES = 0.01
_RIM_FACING = (0.25, 0.5)
"""Cosines between view and normal of the layer up to which it is rim, and from which not."""
_ALIKE = 0.15
"""Difference of colours below which background and layer cannot be told apart."""
_SKIN_UNLIKE = 5.0
"""Spreads of skin within which a rim still is skin, in whatever light."""
_BACK_FILL = 0.75


class LayerCoats:
    """Coats of hair, clothes and shoulders in a scene, over the base coat of its head."""

    def __init__(self, scene: Scene, head_coat: Coat) -> None:
        self.scene, self.head_coat = scene, head_coat

    def layer_coats(self, budget: int, reserve: int, lining: int, back: int, seed: int) -> Coat:
        """Hair, clothes and shoulders: what the photo shows, a lining under it and the back.

        Args:
            budget: Cells of what the photo shows.
            reserve: Further ones, for fine patterns.
            lining: Cells of the lining.
            back: Gaussians of the back.
            seed: Of their places.
        """
        shape = self.scene.shape
        foreground, mixed = self._without_background()
        smooth = np.asarray(cv2.GaussianBlur(foreground, (0, 0), 3.0), np.float32)
        weight = np.where(shape.mask, np.clip(self.scene.analysis.alpha * 1.2, 0, 1), 0.0)
        bulk = (shape.mask & ~shape.strips).astype(np.uint8)
        overlap = cv2.dilate(bulk, np.ones((5, 5), np.uint8)) > 0
        weight = np.where(overlap & shape.solid & ~shape.mask, 1.0, weight).astype(np.float32)
        # The matte counts as a fourth colour, so that the silhouette gets the smallest cells.
        picture = np.dstack([at_output_detail(foreground), self.scene.analysis.alpha])
        cells = cut_cells(picture, weight, framing_importance(len(weight)), budget, reserve=reserve)
        shapes = edge_shapes(foreground, cells)
        front = self._height_coat(
            shape, shape.front, cells, foreground, CELL_FILL, shapes, cells.coverage
        )
        # Thin strips of the layer beside skin are what the head's outline missed: from the side a lining stands out.
        lined = shape.solid & overlap
        framed = framing_importance(len(weight), _FINE_LINING_BEYOND) >= 1.0
        sunk = shape.front + np.float32(_LINING_DEPTH_METRES)
        linings = [
            self._height_coat(shape, sunk, plain, smooth, CLOSED_FILL)
            for plain in (
                self._plain_cells(lined & framed, lining, coarsest=8),
                self._plain_cells(lined & ~framed, lining // 5, coarsest=16),
            )
        ]
        doubtful = mixed[tuple(cells.pixels.T)]
        front = replace(front, damping=front.damping + (FIRM - LOOSE) * doubtful)
        # A head that is turned far aside in the photo has half its face behind the silhouette.
        # Of what the photo shows only thin strips may go: their pixels are the face's own rim.
        thin = shape.strips[tuple(cells.pixels.T)]
        front = self._skin_coloured(front, thin & self._skin_or_light(cells))
        front = keep(front, ~(thin & self._hides_face(front.means)))
        behind = self._back_coat(shape, back, seed)
        gone = self._over_bare_neck(behind.means) | self._hides_skin(behind.means)
        linings = [keep(lining, ~self._hides_skin(lining.means)) for lining in linings]
        return join_coats([front, *linings, _cut_back(behind, gone)])

    def _without_background(self) -> tuple[F32, F32]:
        """Colours (S, S, 3) of the layer without what its rim took from the background, and (S, S) how much it did.

        Background that shines through loose hair, or that the matte holds for hair, covers a small part of the photo
        but, on a rim that turns away, a large one of the side. A rim that lies between the colours c of the layer
        further in and those b of the background, at r = c + t (b - c) + what is its own, loses t (b - c).
        """
        analysis, shape = self.scene.analysis, self.scene.shape
        _, normals = surface_points(shape.front, self.scene.camera)
        facing = -normals @ self.scene.camera.viewmat[2, :3]
        rim = np.clip((_RIM_FACING[1] - facing) / (_RIM_FACING[1] - _RIM_FACING[0]), 0.0, 1.0)
        chin = self.scene.analysis.landmarks[152, 1]
        rim *= shape.mask & (np.arange(len(rim))[:, None] < chin)
        sure = shape.mask & (rim <= 0.0) & (analysis.alpha > 0.97)
        inward = fill_holes(analysis.foreground, sure.astype(np.float32))
        apart = analysis.background - inward
        share = ((analysis.foreground - inward) * apart).sum(-1)
        share /= (apart**2).sum(-1) + _ALIKE**2
        share = (np.clip(share, 0.0, 1.0) * rim).astype(np.float32)
        cleaned = analysis.foreground - share[..., None] * apart
        return np.clip(cleaned, 0.0, 1.0).astype(np.float32), np.clip(4.0 * share, 0.0, 1.0)

    def _skin_or_light(self, cells: Cells) -> np.ndarray:
        """(N,) bool cells in the colours of skin or brighter: beside a face, skin and light from behind, no hair."""
        at = tuple(cells.pixels.T)
        light = self.scene.analysis.foreground.mean(-1)
        usual = np.median(light[self.scene.shown(self.scene.faces_of("face"))])
        return (self.scene.unlike_skin[at] < _SKIN_UNLIKE) | (light[at] > usual)

    def _skin_coloured(self, coat: Coat, chosen: np.ndarray) -> Coat:
        """A coat whose chosen (N,) bool Gaussians have the colours of the nearest skin.

        From the side the strip beside a cheek is a line across its flank, which the photo does not show.
        """
        assert self.head_coat.triangles is not None
        bare = self.scene.faces_of("face", "ears", "neck")[self.head_coat.triangles]
        colors = coat.colors.copy()
        if bare.any() and chosen.any():
            _, nearest = KDTree(self.head_coat.means[bare]).query(coat.means[chosen])
            colors[chosen] = self.head_coat.colors[bare][nearest]
        return replace(coat, colors=colors)

    def _hides_face(self, points: F32) -> np.ndarray:
        """(N,) bool points that hide the face from before."""
        face = self.scene.faces_of("face", "lipUpper", "lipLower")
        return hides(
            points, self.scene.posed, self.scene.head.faces[face], FRONT, 0.5 * _CLEAR_METRES
        )

    def _hides_skin(self, points: F32) -> np.ndarray:
        """(N,) bool points that hide the face from before, or bare ears, cheeks and neck from the sides."""
        hidden = self._hides_face(points)
        centers = self.scene.posed[self.scene.head.faces].mean(1)
        rows = project(centers, self.scene.camera)[0][:, 1]
        before_ears = centers[:, 2] > np.median(
            self.scene.posed[self.scene.head.regions["ears"], 2]
        )
        cheeks = self.scene.faces_of("face") & before_ears
        neck = (
            self.scene.faces_of("neck")
            & (rows > self.scene.nape()[1])
            & (rows < self.scene.rear_collar())
        )
        for direction in (LEFT, RIGHT):
            own = centers[:, 0] * direction[0] > 0
            ear = self.scene.faces_of("ears") & own
            bare = np.zeros_like(ear)
            if (ear & self.scene.found_ears()).any() or self._veil_over(ear) < 0.5:
                bare |= ear
            if self.scene.shape.hanging < 0.5:
                bare |= (cheeks | neck) & own
            if self._turned_away(direction[0]):
                bare |= cheeks & own
            faces = self.scene.head.faces[bare]
            hidden |= hides(points, self.scene.posed, faces, direction, _CLEAR_METRES)
        if self.scene.shape.hanging < 0.5:
            faces = self.scene.head.faces[neck]
            hidden |= hides(points, self.scene.posed, faces, BEHIND, _CLEAR_METRES)
        return hidden

    def _over_bare_neck(self, points: F32) -> np.ndarray:
        """(N,) bool points beside or behind a bare neck, which the head model closes better than the layer."""
        if self.scene.shape.hanging >= 0.5:
            return np.zeros(len(points), bool)
        rows = project(points, self.scene.camera)[0][:, 1]
        head = self.scene.posed[self.scene.head.regions["scalp"], 0]
        beside = (points[:, 0] > head.min()) & (points[:, 0] < head.max())
        return beside & (rows > self.scene.nape()[1]) & (rows < self.scene.rear_collar())

    def _turned_away(self, side: float) -> bool:
        """Whether the head is turned so far that its left (1) or right (-1) side lies behind the face."""
        angle = np.degrees(np.arctan2(self.scene.eye[0], self.scene.eye[2]))
        return bool(-side * angle > _TURNED_DEGREES)

    def _veil_over(self, faces: np.ndarray) -> float:
        """Share of the pixels of faces (F,) bool that a veil hides."""
        shown = self.scene.shown(faces) & (self.scene.analysis.alpha > 0.3)
        return float(self.scene.veiled[shown].mean()) if shown.any() else 0.0

    def _plain_cells(self, mask: np.ndarray, budget: int, coarsest: int) -> Cells:
        """Cells for smooth colours: large inside, small at the silhouette, so that none stands out beside it."""
        weight = np.asarray(
            cv2.erode(mask.astype(np.float32), np.ones((3, 3), np.uint8)), np.float32
        )
        edge = cv2.GaussianBlur((self.scene.analysis.alpha > 0.5).astype(np.float32), (0, 0), 2.0)
        return cut_cells(
            np.asarray(edge, np.float32)[..., None],
            weight,
            framing_importance(len(weight)),
            budget,
            coarsest,
        )

    def _back_coat(self, shape: LayerShape, budget: int, seed: int) -> Coat:
        """The back is sampled evenly on its surface: at the rim it is too steep for cells of the picture."""
        ears, _ = project(self.scene.posed[self.scene.head.regions["ears"]], self.scene.camera)
        rows = np.arange(len(shape.back))[:, None] + 0.5
        top, lobe = float(ears[:, 1].min()), float(np.percentile(ears[:, 1], 85))
        beside = ((rows < top) | (rows > lobe)).astype(np.float32)
        plane = ear_plane(self.scene.posed, self.scene.head, self.scene.camera, len(rows))
        vertices, faces = back_mesh(
            shape.front,
            shape.back,
            shape.rear,
            self.scene.covered,
            plane - _CHEEK_BEFORE_EARS_METRES * beside,
            self.scene.camera,
        )
        vertices = self._up_to_neck(self._narrowed(vertices))
        middle = vertices[faces].mean(1)
        pixels, _ = project(middle, self.scene.camera)
        importance = framing_importance(len(shape.back), _FINE_LINING_BEYOND)
        density = read_pixels(importance, pixels, nearest=True).astype(np.float64)
        low = pixels[:, 1] > self.scene.analysis.landmarks[152, 1]
        inward = read_pixels(self.scene.distance, pixels)
        density[low & (inward > _RIM_PIXELS)] *= _TORSO_BACK_DENSITY
        # At the silhouette they are small, so that none stands out beside it.
        rim = np.clip(inward / _RIM_PIXELS, 0.4, 1.0)
        density /= rim**2
        share = face_areas(vertices, faces) * density
        face, bary = sample_surface(vertices, faces, budget, seed, density)
        means = np.einsum("nk,nkd->nd", bary, vertices[faces[face]]).astype(np.float32)
        sigma = _BACK_FILL * np.sqrt(share.sum() / budget / density[face])
        normals = vertex_normals(vertices, faces)
        normals = np.einsum("nk,nkd->nd", bary, normals[faces[face]])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        axes = _strand_axes(
            normals.astype(np.float32),
            sigma.astype(np.float32),
            self.scene.camera.viewmat[1, :3],
            np.where(low[face], 1.0, _STRAND_STRETCH).astype(np.float32)[:, None],
        )
        axes = [axis * self._within_silhouette(means, axis) for axis in axes]
        thickness = normals * np.maximum(0.15 * sigma, 1e-4)[:, None]
        pixels, _ = project(means, self.scene.camera)
        cols, rows = np.clip(pixels.T.astype(int), 0, len(shape.back) - 1)
        return Coat(
            means=means,
            covariances=outer_covariances([*axes, thickness]),
            opacities=np.full(len(means), 0.97, np.float32),
            colors=self.scene.back_colors(means),
            damping=np.full(len(means), LOOSE, np.float32),
            weights=shape.weights[rows, cols],
        )

    def _narrowed(self, vertices: F32) -> F32:
        """The back without what stands out beside a head that is turned away: there the photo shows face alone."""
        head = self.scene.posed[self.scene.head.regions["scalp"]]
        chin = float(self.scene.posed[self.scene.head.regions["face"], 1].min())
        height = np.clip((vertices[:, 1] - chin) / _NECK_METRES + 2.0, 0.0, 1.0)
        result = vertices.copy()
        for side in (1.0, -1.0):
            if self._turned_away(side):
                limit = float((side * head[:, 0]).max()) + _HAIR_BESIDE_METRES
                beyond = np.maximum(side * vertices[:, 0] - limit, 0.0)
                result[:, 0] -= side * height * beyond
        return result

    def _up_to_neck(self, vertices: F32) -> F32:
        """The back with clothes that rise to a bare neck instead of ending behind it in a ledge."""
        if self.scene.shape.hanging >= 0.5:
            return vertices
        neck = self.scene.posed[self.scene.head.regions["neck"]]
        collar = np.abs(project(neck, self.scene.camera)[0][:, 1] - self.scene.rear_collar())
        ring = neck[collar < _RING_PIXELS]
        if not len(ring):
            return vertices
        top, rear = float(ring[:, 1].mean()), float(ring[:, 2].min())
        half = 0.5 * float(np.ptp(ring[:, 0]))
        aside = np.maximum(np.abs(vertices[:, 0] - ring[:, 0].mean()) - half, 0.0)
        below = np.maximum(top - vertices[:, 1], 0.0)
        limit = rear - _COLLAR_METRES - _SHOULDER_SLOPE * np.hypot(aside, below)
        result = vertices.copy()
        result[:, 2] = np.where(
            vertices[:, 1] < top, np.maximum(vertices[:, 2], limit), vertices[:, 2]
        )
        return result

    def _within_silhouette(self, means: F32, axis: F32) -> F32:
        """(N, 1) factors that keep Gaussians from standing out beside the person in the photo."""
        ends = [project(means + sign * axis, self.scene.camera)[0] for sign in (-1.5, 1.5)]
        least = np.minimum(*(read_pixels(self.scene.distance, pixels) for pixels in ends))
        return np.where(least > 0.0, 1.0, _RIM_SHRINK).astype(np.float32)[:, None]

    def _height_coat(
        self,
        shape: LayerShape,
        depth: F32,
        cells: Cells,
        image: F32,
        fill: float,
        shapes: F32 | None = None,
        opacity: F32 | None = None,
    ) -> Coat:
        _, normals = surface_points(depth, self.scene.camera)
        rows, cols = cells.pixels.T
        flat = shape.strips[:, :, None]
        normals = np.where(flat, -self.scene.camera.viewmat[2, :3], normals).astype(np.float32)
        at = unproject(cells.centers, depth[rows, cols], self.scene.camera)
        sigma = fill * cells.sizes * depth[rows, cols] / self.scene.focal
        opacity = np.ones(len(at), np.float32) if opacity is None else opacity
        shapes = round_shapes(len(at)) if shapes is None else shapes
        return Coat(
            means=at.astype(np.float32),
            covariances=self.scene.footprints(at, normals[rows, cols], sigma, shapes),
            opacities=np.clip(opacity, 0.02, 0.97).astype(np.float32),
            colors=cell_colors(image, cells),
            damping=np.full(len(at), LOOSE, np.float32),
            weights=shape.weights[rows, cols],
        )


def _cut_back(coat: Coat, gone: np.ndarray) -> Coat:
    """A coat without those Gaussians that are gone (N,) bool; those beside the cut no longer reach over it."""
    kept = keep(coat, ~gone)
    if not gone.any() or gone.all():
        return kept
    room, _ = KDTree(coat.means[gone]).query(kept.means)
    longest = np.sqrt(np.linalg.eigvalsh(unpack_covariances(kept.covariances))[:, -1])
    factor = np.clip(room / (_REACH * longest), _LEAST_CUT, 1.0).astype(np.float32)
    return replace(kept, covariances=kept.covariances * factor[:, None] ** 2)


def _strand_axes(normals: F32, sigma: F32, down: F32, stretch: F32) -> list[F32]:
    """Two axes (N, 3) of flat Gaussians drawn out downwards by ``stretch`` (N, 1), of the area of round ones."""
    across = np.cross(normals, down)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    along = np.cross(across, normals)
    width = sigma[:, None]
    return [across * width / stretch, along * width * stretch]
