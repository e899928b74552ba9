"""Coats on the head itself: what the photo shows of skin and teeth, and the whole head in completed colours under it.

Teeth of the photo ride on the upper jaw, lashes on the rims of the lids.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import KDTree

from vasa3d.avatar.coats import (
    FIRM,
    LOOSE,
    Coat,
    at_output_detail,
    cell_colors,
    framing_importance,
    keep,
)
from vasa3d.avatar.colouring import light_of, skin_colors
from vasa3d.avatar.eyes import EYES, Eyes
from vasa3d.avatar.mouth import mouth_colors, open_vertices
from vasa3d.avatar.outline import FARTHEST_METRES, nearest_inside
from vasa3d.avatar.sampling import (
    CELL_FILL,
    CLOSED_FILL,
    Cells,
    cut_cells,
    disc_covariances,
    edge_shapes,
    read_pixels,
)
from vasa3d.avatar.scene import LIDS, Scene, flat_faces
from vasa3d.geometry.cameras import project, unproject
from vasa3d.geometry.covariances import transform_covariances
from vasa3d.geometry.lighting import half_sky, received_light
from vasa3d.geometry.meshes import (
    face_areas,
    face_normals,
    sample_surface,
    vertex_normals,
)
from vasa3d.head import ArkitHead
from vasa3d.types import F32, I32

_SPACING_METRES = {
    "face": 3.5e-3, "ears": 1.7e-3, "neck": 5e-3, "scalp": 6e-3, "lipUpper": 0.8e-3, "lipLower": 0.8e-3,
    "lidUpperLeft": 0.6e-3, "lidUpperRight": 0.6e-3, "lidLowerLeft": 0.8e-3, "lidLowerRight": 0.8e-3,
    "mouthCavity": 5e-3, "gumsUpper": 3e-3, "gumsLower": 3e-3, "teethUpper": 2.2e-3, "teethLower": 2.2e-3,
    "tongue": 2.2e-3, "eyeLeft": 1.3e-3, "eyeRight": 1.3e-3, "irisLeft": 0.4e-3, "irisRight": 0.4e-3,
    "eyeSockets": 4e-3,
}  # fmt: skip
"""Distance between neighbouring Gaussians of the base coat, in canonical space."""
_TEETH_SPACING_METRES = 0.8e-3
"""The same of what teeth show to the lips: finer than the gaps between them."""
_TEETH_FRONT = 0.3
"""Cosine between normal and the way out of the mouth from which a face of a tooth is its front."""
_VEIL_METRES = 0.01
_FLANK_STRETCH = 1.35
"""Of the base coat where nothing lies over it: cracks would show the dark inside."""
_EAR_SHADE = 0.45
"""Brightness of an ear's hollows beside its rim."""
_EAR_LIGHT, _EAR_SIDES, _EAR_WIDTH_METRES = (1.0, 0.3, 0.6), 32, 0.12
"""Where the light on a left ear comes from, from how many sides, and what may stand in it."""
_BEHIND_EARS_METRES = 0.015
_TEETH_REACH_PIXELS = 14.0
_LASH_DARKNESS = 0.82
"""Brightness, beside that of the lid's skin, below which a cell shows lashes."""
_LASH_METRES = 0.001
"""How far before the eyeball lashes hang."""


class SurfaceCoats:
    """Detail and base coat of the head in a scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.skin = self._skin_colors()
        self.eyes = Eyes(scene)

    def detail_coat(self, budget: int) -> Coat:
        """One Gaussian per cell of the photo on skin, lashes and inner mouth.

        Eyeballs and folded skin belong to the base coat.
        """
        skip = self.scene.folded | self.scene.faces_of(*EYES)
        if self.scene.mouth_gap() < 0.015:
            skip = skip | self.scene.inner_mouth()
        wanted = self.scene.covered & ~self.scene.shown(skip) & (self.scene.grazed < 0.95)
        wanted |= self.eyes.lashes
        rgb = self.scene.analysis.foreground
        cells = cut_cells(
            at_output_detail(rgb), wanted.astype(np.float32), self._importance(), budget
        )
        cells, (rows, cols) = self._bound_cells(cells)
        face = self.scene.face_id[rows, cols]
        teeth, rims = self.scene.inner_mouth()[face], self.scene.faces_of(*LIDS, *EYES)[face]
        normals = np.einsum(
            "nk,nkd->nd",
            self.scene.bary[rows, cols],
            self.scene.normals[self.scene.head.faces[face]],
        ).astype(np.float32)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        depth = self.scene.depth[rows, cols] - _LASH_METRES * self.scene.faces_of(*EYES)[face]
        points = unproject(cells.centers, depth, self.scene.camera)
        # Teeth of the model are finer than the fit is sure of: those of the photo close by themselves, upright.
        normals[teeth] = -self.scene.camera.viewmat[2, :3]
        fill = np.where(teeth | rims, np.float32(CLOSED_FILL), np.float32(CELL_FILL))
        sigma = fill * cells.sizes * depth / self.scene.focal
        covariances = self.scene.footprints(points, normals, sigma, edge_shapes(rgb, cells))
        face, lashes = self._on_rims(face, points, cell_colors(rgb, cells))
        linear = self.scene.to_canonical[face]
        linear[lashes] = self._unstretched(linear[lashes], face[lashes])
        means = np.einsum("nij,nj->ni", linear[:, :, :3], points) + linear[:, :, 3]
        return Coat(
            means=means.astype(np.float32),
            covariances=transform_covariances(covariances, linear[:, :, :3]),
            opacities=(0.97 * (1.0 - self.scene.grazed[rows, cols])).astype(np.float32),
            colors=cell_colors(rgb, cells),
            damping=np.where(self.scene.folded[face] & ~lashes, FIRM, LOOSE).astype(np.float32),
            triangles=face,
        )

    def _on_rims(self, face: I32, points: F32, colors: F32) -> tuple[I32, np.ndarray]:
        """(N,) faces that cells ride on, and (N,) bool which of them are lashes.

        Dark cells of the lids and all before the eyeballs are: when the eyes close they stay at the rim.
        """
        head, scene = self.scene.head, self.scene
        usual = self.skin[head.faces[face]].mean((1, 2))
        dark = scene.faces_of(*LIDS)[face] & (colors.mean(1) < _LASH_DARKNESS * usual)
        dark |= scene.faces_of(*EYES)[face]
        ring = np.zeros(head.num_vertices, bool)
        ring[np.concatenate(list(head.lid_rings.values()))] = True
        rims = np.flatnonzero(scene.faces_of(*LIDS) & ring[head.faces].any(1))
        if not dark.any() or not len(rims):
            return face, np.zeros_like(dark)
        result = face.copy()
        _, nearest = KDTree(scene.posed[head.faces[rims]].mean(1)).query(points[dark])
        result[dark] = rims[nearest]
        return result, dark

    def _unstretched(self, maps: F32, face: I32) -> F32:
        """Maps (N, 3, 4) of faces to canonical space with their rotation alone: a lash does not grow with its lid."""
        left, _, right = np.linalg.svd(maps[:, :, :3])
        rotation = left @ right
        middle = [
            mesh[self.scene.head.faces[face]].mean(1)
            for mesh in (self.scene.posed, self.scene.canonical)
        ]
        moved = middle[1] - np.einsum("nij,nj->ni", rotation, middle[0])
        return np.concatenate([rotation, moved[:, :, None]], axis=2).astype(np.float32)

    def _bound_cells(self, cells: Cells) -> tuple[Cells, np.ndarray]:
        """Cells, and (2, N) row and column of the pixel whose surface each of them rides on.

        A smile shows the upper row of teeth. Wherever the head model has its lower row and the dark between, what lies
        around the upper row moves with it; else teeth of the photo would part with the jaw. The rest of the inner
        mouth is left to the base coat.
        """
        rows, cols = cells.pixels.T
        inner = self.scene.shown(self.scene.inner_mouth())[rows, cols]
        teeth = self.scene.shown(self.scene.faces_of("teethUpper"))
        if not teeth.any() or not inner.any():
            return choose_cells(cells, ~inner), cells.pixels[~inner].T
        reach, labels = cv2.distanceTransformWithLabels(
            (~teeth).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        place = np.zeros((int(labels.max()) + 1, 2), np.int64)
        place[labels[teeth]] = np.argwhere(teeth)
        near = reach[rows, cols] < _TEETH_REACH_PIXELS
        light = self.scene.analysis.foreground[rows, cols].max(-1)
        bright = light > 0.55 * np.percentile(light[inner], 90)
        pixels = np.where(inner[:, None], place[labels[rows, cols]], cells.pixels)
        kept = ~inner | (near & bright)
        return choose_cells(cells, kept), pixels[kept].T

    def _importance(self) -> F32:
        """Eyes and mouth are what people look at."""
        size = self.scene.face_id.shape[0]
        spots = np.zeros((size, size), np.float32)
        points = self.scene.analysis.landmarks[:, :2]
        for group in ((33, 133, 159, 145), (263, 362, 386, 374), (61, 291, 0, 17)):
            center = points[list(group)].mean(0)
            reach = np.linalg.norm(points[group[0]] - points[group[1]])
            axis = np.arange(size) + 0.5
            r2 = (axis[None, :] - center[0]) ** 2 + (axis[:, None] - center[1]) ** 2
            spots = np.maximum(spots, np.exp(-r2 / (2 * (0.55 * reach) ** 2)))
        return ((1.0 + 5.0 * spots) * framing_importance(size)).astype(np.float32)

    def base_coat(self, seed: int) -> Coat:
        """The whole head, evenly sampled in canonical space."""
        head = self.scene.head
        spacing = np.full(len(head.faces), np.inf)
        for name, metres in _SPACING_METRES.items():
            spacing = np.where(self.scene.faces_of(name), np.minimum(spacing, metres), spacing)
        spacing = np.where(self.scene.faces_of("skin") & ~np.isfinite(spacing), 3e-3, spacing)
        spacing = np.where(self._teeth_fronts(), _TEETH_SPACING_METRES, spacing)
        spacing = np.where(
            self._hidden_eyeball() | self.scene.faces_of("shoulders"), np.inf, spacing
        )
        density = np.where(np.isfinite(spacing), 1.0 / spacing**2, 0.0)
        count = int((face_areas(self.scene.canonical, head.faces) * density).sum())
        face, bary = sample_surface(self.scene.canonical, head.faces, count, seed, density)
        means = np.einsum("nk,nkd->nd", bary, self.scene.canonical[head.faces[face]])
        normals = face_normals(self.scene.canonical, head.faces)[face]
        flank = flat_faces(self.scene.posed, head, self.scene.eye)[face]
        sigma = (CLOSED_FILL * spacing[face] * _FLANK_STRETCH**flank).astype(np.float32)
        sunk = self.scene.faces_of("face", "ears", "neck", "scalp") & ~self.scene.folded
        means -= normals * np.where(sunk[face], 0.35 * sigma, 0.0)[:, None]
        posed = np.einsum("nk,nkd->nd", bary, self.scene.posed[head.faces[face]]).astype(np.float32)
        step, inside = self._drawn_inside(posed)
        means += np.einsum("nij,nj->ni", self.scene.to_canonical[face][:, :, :3], step)
        posed = posed + step
        colors, bare = self._base_colors(face, bary, posed)
        # Folded skin and inner mouth keep their colours, whatever little of them the photo shows; so do the eyeballs
        # behind lids and lashes.
        still = (self.scene.folded | self.scene.inner_mouth())[face]
        still |= self.scene.faces_of(*EYES)[face] & ~bare
        coat = Coat(
            means=means.astype(np.float32),
            covariances=disc_covariances(normals, sigma),
            opacities=np.full(count, 0.97, np.float32),
            colors=colors,
            damping=np.where(still, FIRM, LOOSE).astype(np.float32),
            triangles=face,
        )
        lined = cv2.erode(self.scene.shape.rear.astype(np.uint8), np.ones((25, 25), np.uint8))
        rear = read_pixels(lined, project(posed, self.scene.camera)[0], nearest=True) > 0
        rear &= self.scene.faces_of("scalp")[face] & (self.scene.facing(face, posed) < -0.4)
        # Below the collar clothes lie over the nape, and everywhere over where it widens to shoulders.
        low = project(posed, self.scene.camera)[0][:, 1] > self.scene.rear_collar()
        clothed = low & self.scene.faces_of("neck", "face")[face]
        clothed |= head.regions["shoulders"][head.faces].any(1)[face]
        rear |= clothed & (self.scene.facing(face, posed) < 0.0)
        # The layer's back lies over the rear.
        return keep(coat, inside & ~self._behind_veil(posed) & ~rear)

    def _teeth_fronts(self) -> np.ndarray:
        """(F,) bool faces of teeth that look outwards from their arch."""
        head, mesh = self.scene.head, self.scene.canonical
        fronts = np.zeros(len(head.faces), bool)
        for name in ("teethUpper", "teethLower"):
            teeth, row = self.scene.faces_of(name), mesh[head.regions[name]]
            inside = np.array([np.median(row[:, 0]), 0.0, row[:, 2].min()])
            outward = (mesh[head.faces].mean(1) - inside) * (1.0, 0.0, 1.0)
            outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
            facing = (face_normals(mesh, head.faces) * outward).sum(1)
            fronts |= teeth & (facing > _TEETH_FRONT)
        return fronts

    def _hidden_eyeball(self) -> np.ndarray:
        """The rear of the eyeballs never comes into view."""
        hidden = np.zeros(len(self.scene.head.faces), bool)
        centers = self.scene.canonical[self.scene.head.faces].mean(1)
        for name in EYES:
            faces = self.scene.faces_of(name)
            z = centers[faces, 2]
            middle = 0.5 * (z.min() + z.max())
            hidden |= faces & (centers[:, 2] < middle)
        return hidden

    def _drawn_inside(self, posed: F32) -> tuple[F32, np.ndarray]:
        """Steps (N, 3) that bring points beside the person in the photo inside across the view, (N,) which end there.

        Without the points at the notch over an ear, or at a rim that the matte lost, the flank would show holes as
        long from the side as they are narrow from before.
        """
        pixels, depth = project(posed, self.scene.camera)
        goal = read_pixels(nearest_inside(self.scene.analysis.alpha), pixels, nearest=True)
        out = goal[:, :1] >= 0
        step = np.where(out, (goal - pixels) * (depth / self.scene.focal)[:, None], 0.0)
        right, down = self.scene.camera.viewmat[0, :3], self.scene.camera.viewmat[1, :3]
        framed = ((pixels >= 0) & (pixels < len(self.scene.analysis.alpha))).all(1)
        near = np.linalg.norm(step, axis=1) < FARTHEST_METRES
        return (step[:, :1] * right + step[:, 1:] * down).astype(np.float32), framed & near

    def _behind_veil(self, posed: F32) -> np.ndarray:
        """(N,) bool points under hair, a hood or a scarf before the face."""
        pixels, depth = project(posed, self.scene.camera)
        shown = read_pixels(self.scene.depth, pixels, nearest=True)
        veiled = read_pixels(self.scene.veiled.astype(np.uint8), pixels, nearest=True) > 0
        return veiled & (depth < shown + _VEIL_METRES)

    def _base_colors(self, face: I32, bary: F32, posed: F32) -> tuple[F32, np.ndarray]:
        """Colours (N, 3) of points of the head, and (N,) bool eyeball that the photo shows bare."""
        head, analysis = self.scene.head, self.scene.analysis
        colors = self.skin.copy()
        edges = np.concatenate(list(head.lid_rings.values()))
        pixels, _ = project(self.scene.posed[edges], self.scene.camera)
        soft = cv2.GaussianBlur(analysis.foreground, (0, 0), 1.5)
        colors[edges] = read_pixels(soft, pixels)  # the lash line
        light = light_of(
            analysis.rgb, self.scene.shown(self.scene.faces_of("face")) & (analysis.alpha > 0.9)
        )
        opened = open_vertices(head, analysis.fit.identity, self.scene.offsets)
        inner, known = mouth_colors(head, opened, light, self._teeth_color())
        colors[known] = inner[known]
        result = np.einsum("nk,nkd->nd", bary, colors[head.faces[face]])
        hidden = self._under_hair(face, posed)[:, None]
        result += hidden * (self.scene.back_colors(posed) - result)
        result = result.astype(np.float32)
        return result, self.eyes.paint(face, posed, result)

    def _under_hair(self, face: I32, posed: F32) -> np.ndarray:
        """(N,) how far points lie under hair that the photo does not show: diffusion would bring skin there.

        That is the scalp where it turns away and, down to where the hair ends, all behind the ears.
        """
        scalp = np.clip((0.45 - self.scene.facing(face, posed)) / 0.3, 0.0, 1.0)
        scalp *= self.scene.faces_of("scalp")[face]
        if self.scene.cover is None:
            return scalp
        ears = float(np.median(self.scene.posed[self.scene.head.regions["ears"], 2]))
        behind = np.clip((ears - posed[:, 2]) / _BEHIND_EARS_METRES, 0.0, 1.0)
        behind *= self.scene.faces_of("face", "neck")[face]
        if self.scene.shape.hanging < 0.5:
            top, end = self.scene.nape()
            rows = project(posed, self.scene.camera)[0][:, 1]
            behind *= np.clip((end - rows) / (end - top), 0.0, 1.0)
        return np.maximum(scalp, behind)

    def _teeth_color(self) -> F32 | None:
        """Colour of the teeth that the photo shows, None where it shows too few."""
        mouth = self.scene.shown(self.scene.inner_mouth()) & (self.scene.analysis.alpha > 0.9)
        if self.scene.mouth_gap() < 0.05 or mouth.sum() < 100:
            return None
        pixels = self.scene.analysis.foreground[mouth]
        light, dark = pixels.max(-1), pixels.min(-1)
        white = (light > 0.8 * np.percentile(light, 90)) & (dark > 0.6 * light)
        return np.median(pixels[white], 0) if white.sum() >= 50 else None

    def _skin_colors(self) -> F32:
        """(V, 3) colours of the skin, read where the photo surely shows it and completed from there."""
        head, analysis = self.scene.head, self.scene.analysis
        solid = np.where(self.scene.veiled, 0.0, analysis.alpha).astype(np.float32)
        trusted = np.where(
            self.scene.middle,
            cv2.erode(analysis.alpha, np.ones((7, 7), np.uint8)),
            cv2.erode(solid, np.ones((13, 13), np.uint8)),
        ).astype(np.float32)
        folded = np.zeros(head.num_vertices, bool)
        folded[head.faces[self.scene.folded]] = True
        for lid in LIDS:
            folded |= head.regions[lid]
        colors = skin_colors(
            head,
            self.scene.posed,
            analysis.foreground,
            trusted,
            self.scene.depth,
            self.scene.camera,
            folded,
        )
        return colors * self._ear_shade(trusted)[:, None]

    def _ear_shade(self, trusted: F32) -> F32:
        """(V,) shade that gives relief to the parts of the ears whose colours are made up, 1 elsewhere."""
        head = self.scene.head
        lit = _ear_light(head)
        pixels, _ = project(self.scene.posed, self.scene.camera)
        unseen = np.clip(1.0 - read_pixels(trusted * (1.0 - self.scene.grazed), pixels), 0.0, 1.0)
        shade = 1.0 + unseen * (_EAR_SHADE + (1.0 - _EAR_SHADE) * lit - 1.0)
        return np.where(head.regions["ears"], shade, 1.0).astype(np.float32)


def _ear_light(head: ArkitHead) -> F32:
    """(V,) how bright the relief of the ears is, 0 to 1.

    An ear that was pressed to the head has lost its relief: the model's own tells it.
    """
    mesh = head.data.template
    normals = vertex_normals(mesh, head.weld[head.faces])[head.weld]
    ear = head.regions["ears"] & (mesh[:, 0] > 0.0)
    light = np.zeros(head.num_vertices, np.float32)
    sky = half_sky(_EAR_LIGHT, _EAR_SIDES)
    light[ear] = received_light(mesh, head.faces, normals, ear, sky, _EAR_WIDTH_METRES)
    light = np.maximum(light, light[head.mirror])
    return np.clip(light / max(float(np.percentile(light[ear], 90)), 1e-6), 0.0, 1.0) ** 0.5


def choose_cells(cells: Cells, kept: np.ndarray) -> Cells:
    return Cells(cells.centers[kept], cells.sizes[kept], cells.pixels[kept], cells.coverage[kept])
