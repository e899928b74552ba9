"""Avatar from one photo: Gaussians laid on the fitted head and on the layer around it, in the photo's colours.

Three coats. The detail coat: one Gaussian per cell of the photo, on whatever surface the pixel shows. The base coat:
the whole head, seen or hidden, evenly sampled in canonical space, in completed colours; it closes every gap when skin
stretches or the camera turns. The layer: hair, clothes, shoulders as a closed solid (``layer.py``). Last, the colours
are solved so that the source view gives the photo back.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from vasa3d.avatar.avatar import Avatar, canonical_vertices, photo_vertices
from vasa3d.avatar.back import BackColors, Skull, back_mesh, head_cover, silhouette_distance
from vasa3d.avatar.bareness import BEHIND, FRONT, LEFT, RIGHT, hides
from vasa3d.avatar.colouring import light_of, mouth_colors, skin_colors, solve_colors
from vasa3d.avatar.deformation import VasResidual, mood_of
from vasa3d.avatar.gaussians import Gaussians
from vasa3d.avatar.layer import (
    STRIP_PIXELS,
    LayerShape,
    ear_plane,
    farthest_depth,
    opened,
    shape_layer,
    surface_points,
)
from vasa3d.avatar.outline import outline_offsets
from vasa3d.avatar.sampling import (
    CELL_FILL,
    CLOSED_FILL,
    Cells,
    cut_cells,
    disc_covariances,
    edge_shapes,
    outer_covariances,
    read_pixels,
    round_shapes,
    slanted_footprints,
)
from vasa3d.geometry.cameras import camera_center, project, unproject
from vasa3d.geometry.covariances import split_covariances, transform_covariances
from vasa3d.geometry.meshes import (
    face_areas,
    face_normals,
    rasterize_mesh,
    sample_surface,
    triangle_affines,
    vertex_normals,
)
from vasa3d.head import ArkitHead, PersonalHead
from vasa3d.portrait.analysis import FRAMING_SIDE, WINDOW_SIDE, Analysis
from vasa3d.portrait.fitting import FACE_OVAL
from vasa3d.types import F32, I32, Camera

_SPACING_METRES = {
    "face": 3.5e-3, "ears": 2.4e-3, "neck": 5e-3, "scalp": 6e-3, "lipUpper": 0.8e-3, "lipLower": 0.8e-3,
    "lidUpperLeft": 0.6e-3, "lidUpperRight": 0.6e-3, "lidLowerLeft": 0.8e-3, "lidLowerRight": 0.8e-3,
    "mouthCavity": 5e-3, "gumsUpper": 3e-3, "gumsLower": 3e-3, "teethUpper": 1.5e-3, "teethLower": 2e-3,
    "tongue": 2.2e-3, "eyeLeft": 1.3e-3, "eyeRight": 1.3e-3, "irisLeft": 0.4e-3, "irisRight": 0.4e-3,
    "eyeSockets": 4e-3,
}  # fmt: skip
"""Distance between neighbouring Gaussians of the base coat, in canonical space."""
_FOLDED = 2.0
_FOLDED_LID = 1.5
"""Skin (and lids) whose area is this many times larger in canonical space than in the photo is folded away there."""
_LINING_DEPTH_METRES = 0.008
_FINE_LINING_BEYOND = 40
"""Pixels around the framing up to which the lining is fine."""
_TORSO_BACK_DENSITY = 0.3
_STRAND_STRETCH = 1.5
_RIM_PIXELS = 16.0
_RIM_SHRINK = 0.5
_CHEEK_BEFORE_EARS_METRES = 0.03
_REAR_COLLAR = 0.3
_VEIL_METRES = 0.01
_NECK_METRES = 0.06
_EYE_VISIBLE_METRES = 0.006
_MIN_SEEN = 12
_WHITE_FROM = 1.15
"""Distance from the axis of an eye, in radii of its iris, from which it is white."""
_DAMPING, _FLAT_DAMPING, _FIRM = 0.6, 0.9, 8.0
"""Of first colours in the solve, in pixels."""
_FLAT_FACING = 0.5
_EAR_SHADE = 0.62
"""Brightness of an ear's hollows beside its rim."""
_BEHIND_EARS_METRES = 0.015
_TEETH_REACH_PIXELS = 14.0
_CLEAR_METRES = 0.008
_TURNED_DEGREES = 15.0
_HAIR_BESIDE_METRES = 0.01
_BACK_FILL = 0.75
_GRAZING_DEGREES = ((80.0, 86.0), (66.0, 77.0))
"""Angles between view and normal from which, and up to which, detail fades: in the middle of the face and around."""
_EYES = ("eyeLeft", "eyeRight")
_LIDS = ("lidUpperLeft", "lidUpperRight", "lidLowerLeft", "lidLowerRight")
_INNER_MOUTH = ("mouthCavity", "gumsUpper", "gumsLower", "teethUpper", "teethLower", "tongue")


@dataclass(frozen=True)
class InitConfig:
    """How many Gaussians go where.

    Attributes:
        detail_budget: Cells on the face, ears and neck.
        layer_budget: Cells on hair, clothes and shoulders.
        lining_budget: Cells of what lies under the layer's front and closes it.
        back_budget: Cells of the layer's back.
        solve_side: Side of the picture on which the colours are solved, pixels.
        seed: Seed of the surface sampling.
    """

    detail_budget: int = 11_800
    layer_budget: int = 20_000
    lining_budget: int = 5_500
    back_budget: int = 4_500
    solve_side: int = 512
    seed: int = 0


def initialise(
    analysis: Analysis, head: ArkitHead, config: InitConfig, provenance: dict[str, object]
) -> Avatar:
    """Build an avatar from an analysed portrait.

    Args:
        analysis: The portrait.
        head: The head model it was fitted with.
        config: Budgets.
        provenance: Recorded in the avatar.

    Returns:
        The avatar, drawing the photo in its source view.
    """
    scene = _Scene(analysis, head, config.seed)
    surface = [scene.base_coat(config.seed), scene.detail_coat(config.detail_budget)]
    layer = scene.layer_coats(config)
    gaussians = _assemble(surface, layer)
    avatar = Avatar(
        identity=analysis.fit.identity,
        offsets=scene.offsets,
        mood=scene.mood,
        photo_expression=analysis.fit.expression,
        photo_eyes=analysis.fit.eyes,
        camera=framing_camera(analysis.fit.camera),
        gaussians=gaussians,
        vas=VasResidual.zero(len(gaussians)),
        background_bytes=_encode_picture(analysis.background),
        provenance=dict(provenance),
    )
    return _with_solved_colors(avatar, analysis, config, scene.color_damping(surface))


def framing_camera(window: Camera) -> Camera:
    """The source camera: the inner part of the analysis window."""
    margin = (WINDOW_SIDE - FRAMING_SIDE) / 2
    intrinsics = window.K.copy()
    intrinsics[:2, 2] -= margin
    return Camera(window.viewmat, intrinsics, FRAMING_SIDE, FRAMING_SIDE)


def framing_of(window: np.ndarray, side: int) -> np.ndarray:
    """The source camera's part of a window picture, resized to ``side`` pixels."""
    margin = (WINDOW_SIDE - FRAMING_SIDE) // 2
    inner = window[margin : margin + FRAMING_SIDE, margin : margin + FRAMING_SIDE]
    return cv2.resize(inner, (side, side), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class _Coat:
    """Gaussians in canonical space; ``triangles`` for surface coats, ``weights`` for the layer."""

    means: F32
    covariances: F32
    opacities: F32
    colors: F32
    triangles: I32 | None = None
    weights: F32 | None = None


class _Scene:
    """The fitted head in the photo's pose, and what each pixel of the photo shows."""

    def __init__(self, analysis: Analysis, head: ArkitHead, seed: int) -> None:
        self.analysis, self.head = analysis, head
        fit = analysis.fit
        self.camera = fit.camera
        self.mood = mood_of(fit.expression)
        fitted = head.personalised(fit.identity, fit.offsets)
        posed = photo_vertices(fitted, fit.expression, self.mood, fit.eyes)
        self.offsets = fit.offsets + outline_offsets(posed, analysis.alpha, head, fit.camera)
        self.person: PersonalHead = head.personalised(fit.identity, self.offsets)
        self.canonical = canonical_vertices(self.person)
        self.posed = photo_vertices(self.person, fit.expression, self.mood, fit.eyes)
        self.to_canonical = triangle_affines(self.posed, self.canonical, head.faces)
        self.face_id, self.bary, self.depth = rasterize_mesh(self.posed, head.faces, self.camera)
        self.normals = vertex_normals(self.posed, head.weld[head.faces])[head.weld]
        self.eye = camera_center(self.camera)
        self.focal = float(self.camera.K[0, 0])
        self.middle = self._middle_of_face()
        self.grazed = self._grazed()
        ratio = face_areas(self.canonical, head.faces) / np.maximum(
            face_areas(self.posed, head.faces), 1e-12
        )
        self.folded = (ratio > _FOLDED) & self._faces_of("skin")
        self.folded |= (ratio > _FOLDED_LID) & self._faces_of(*_LIDS)
        self.unlike_skin = self._unlike_skin()
        self.veiled = self._veiled()
        self.covered = self._shown(~self._layer_faces()) & (analysis.alpha > 0.3) & ~self.veiled
        self.distance = silhouette_distance(analysis.alpha)
        self.cover = head_cover(
            self._sure() & ~self.covered,
            self.distance,
            self.unlike_skin,
            float(analysis.landmarks[13, 1]),
        )
        self.skin = self._skin_colors()
        self.shape = self._layer_shape()
        self.back_colors = self._back_colors(seed)

    def _faces_of(self, *regions: str) -> np.ndarray:
        """(F,) bool faces with all corners in one of the regions together."""
        union = np.zeros(self.head.num_vertices, bool)
        for name in regions:
            union |= self.head.regions[name]
        return union[self.head.faces].all(1)

    def color_damping(self, surface: list[_Coat]) -> F32:
        """(S,) how firmly the Gaussians of base and detail coat keep their first colours in the solve.

        Folded skin and inner mouth keep them, whatever little of them the photo shows; so does the base coat where
        the photo sees it at a flat angle and mixes it with what lies beside.
        """
        base, detail = (coat.triangles for coat in surface)
        assert base is not None and detail is not None
        still = self.folded | self.inner_mouth()
        centers = self.posed[self.head.faces].mean(1)
        facing = self._facing(np.arange(len(centers)), centers)
        flat = np.clip((_FLAT_FACING - facing) / (0.4 * _FLAT_FACING), 0.0, 1.0)
        flat *= self._faces_of("face", "ears", "neck")
        firm = np.where(still, _FIRM, _DAMPING + (_FLAT_DAMPING - _DAMPING) * flat)
        loose = np.where(self.folded, _FIRM, _DAMPING)
        return np.concatenate([firm[base], loose[detail]]).astype(np.float32)

    def inner_mouth(self) -> np.ndarray:
        """(F,) bool faces of teeth, gums, tongue and mouth cavity."""
        return self._faces_of(*_INNER_MOUTH)

    def _shown(self, faces: np.ndarray) -> np.ndarray:
        """(S, S) bool pixels that show one of the faces (F,) bool."""
        return (self.face_id >= 0) & faces[np.maximum(self.face_id, 0)]

    def _layer_faces(self) -> np.ndarray:
        """(F,) bool parts of the head that hair and clothes hide: there the layer stands for the photo."""
        return self._faces_of("scalp") | self._faces_of("shoulders")

    def _veiled(self) -> np.ndarray:
        """(S, S) bool pixels at the sides of the face where hair, a hood or a scarf hangs before the skin.

        They differ in colour from the middle of the face and hang together with the layer outside it. The middle of
        the face and the chin are never veiled: fringes and beards move with the skin.
        """
        points = self.analysis.landmarks[:, :2]
        foreign = cv2.GaussianBlur((self.unlike_skin > 3.2).astype(np.float32), (0, 0), 3.0) > 0.5
        chin = points[152, 1]
        limit = chin - 0.35 * (chin - points[1, 1])
        rows = np.arange(len(foreign))[:, None] + 0.5
        jaw = self._shown(self._faces_of("face", "lipUpper", "lipLower")) & (rows > limit)
        jaw |= self._shown(self._faces_of("lipUpper")) | self._shown(self._faces_of("lipLower"))
        person = self.analysis.alpha > 0.3
        outside = person & ~self._shown(~self._layer_faces())
        candidate = (foreign & person & ~self.middle & ~jaw) | outside
        _, labels = cv2.connectedComponents(candidate.astype(np.uint8), connectivity=4)
        attached = np.isin(labels, np.unique(labels[outside])) & (labels > 0)
        return attached & ~outside

    def _unlike_skin(self) -> F32:
        """(S, S) how far a pixel's colour is from that of the middle of the face, in its spreads."""
        lab = cv2.cvtColor(self.analysis.foreground, cv2.COLOR_RGB2LAB)
        oval = self.analysis.landmarks[list(FACE_OVAL), :2]
        middle = oval.mean(0)
        bare = _polygon(middle + 0.7 * (oval - middle), self.face_id.shape) > 0
        skin = lab[bare & self._shown(self._faces_of("face"))]
        if len(skin) < 50:
            return np.zeros(self.face_id.shape, np.float32)
        usual = np.median(skin, 0)
        spread = np.maximum(1.5 * np.median(np.abs(skin - usual), 0), (12.0, 4.0, 4.0))
        return np.sqrt((((lab - usual) / spread) ** 2).sum(-1)).astype(np.float32)

    def _middle_of_face(self) -> np.ndarray:
        """(S, S) bool pixels within the face's outline and away from it."""
        oval = self.analysis.landmarks[list(FACE_OVAL), :2]
        center = oval.mean(0)
        return _polygon(center + 0.88 * (oval - center), self.face_id.shape) > 0

    def _grazed(self) -> F32:
        """(S, S) how far the photo shows skin at too flat an angle for detail, 0 to 1.

        Pixels stretched over such skin look torn from the side. Around nose and lips small features turn away from
        the camera and need their pixels longer than cheeks do.
        """
        shown = self._shown(self._faces_of("skin"))
        corners = self.head.faces[self.face_id[shown]]
        normals = np.einsum("nk,nkd->nd", self.bary[shown], self.normals[corners])
        rows, cols = np.nonzero(shown)
        pixels = np.stack([cols, rows], 1).astype(np.float32) + 0.5
        rays = unproject(pixels, self.depth[shown], self.camera) - self.eye
        size = np.linalg.norm(normals, axis=1) * np.linalg.norm(rays, axis=1)
        facing = -np.sum(normals * rays, 1) / np.maximum(size, 1e-9)
        inner = self.middle[shown]
        least = np.where(inner, *(_cosine(degrees[1]) for degrees in _GRAZING_DEGREES))
        full = np.where(inner, *(_cosine(degrees[0]) for degrees in _GRAZING_DEGREES))
        grazed = np.zeros(shown.shape, np.float32)
        grazed[shown] = np.clip((full - facing) / (full - least), 0.0, 1.0)
        return grazed

    # Detail coat

    def detail_coat(self, budget: int) -> _Coat:
        """One Gaussian per cell of the photo on skin and inner mouth; eyes and folded skin belong to the base coat."""
        skip = self.folded | self._faces_of(*_EYES)
        if self._mouth_gap() < 0.015:
            skip = skip | self.inner_mouth()
        wanted = self.covered & ~self._shown(skip) & (self.grazed < 0.95)
        rgb = self.analysis.foreground
        cells = cut_cells(
            _at_output_detail(rgb), wanted.astype(np.float32), self._importance(), budget
        )
        cells, (rows, cols) = self._bound_cells(cells)
        teeth = self.inner_mouth()[self.face_id[rows, cols]]
        face = self.face_id[rows, cols]
        normals = np.einsum(
            "nk,nkd->nd", self.bary[rows, cols], self.normals[self.head.faces[face]]
        ).astype(np.float32)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        depth = self.depth[rows, cols]
        points = unproject(cells.centers, depth, self.camera)
        # Teeth of the model are finer than the fit is sure of: those of the photo close by themselves, upright.
        normals[teeth] = -self.camera.viewmat[2, :3]
        fill = np.where(teeth, np.float32(CLOSED_FILL), np.float32(CELL_FILL))
        sigma = fill * cells.sizes * depth / self.focal
        covariances = self._footprints(points, normals, sigma, edge_shapes(rgb, cells))
        linear = self.to_canonical[face]
        means = np.einsum("nij,nj->ni", linear[:, :, :3], points) + linear[:, :, 3]
        return _Coat(
            means=means.astype(np.float32),
            covariances=transform_covariances(covariances, linear[:, :, :3]),
            opacities=(0.97 * (1.0 - self.grazed[rows, cols])).astype(np.float32),
            colors=_cell_colors(rgb, cells),
            triangles=face,
        )

    def _bound_cells(self, cells: Cells) -> tuple[Cells, np.ndarray]:
        """Cells, and (2, N) row and column of the pixel whose surface each of them rides on.

        A smile shows the upper row of teeth. Wherever the head model has its lower row and the dark between, what lies
        around the upper row moves with it; else teeth of the photo would part with the jaw. The rest of the inner
        mouth is left to the base coat.
        """
        rows, cols = cells.pixels.T
        inner = self._shown(self.inner_mouth())[rows, cols]
        teeth = self._shown(self._faces_of("teethUpper"))
        if not teeth.any() or not inner.any():
            return _choose_cells(cells, ~inner), cells.pixels[~inner].T
        reach, labels = cv2.distanceTransformWithLabels(
            (~teeth).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        place = np.zeros((int(labels.max()) + 1, 2), np.int64)
        place[labels[teeth]] = np.argwhere(teeth)
        near = reach[rows, cols] < _TEETH_REACH_PIXELS
        light = self.analysis.foreground[rows, cols].max(-1)
        bright = light > 0.55 * np.percentile(light[inner], 90)
        pixels = np.where(inner[:, None], place[labels[rows, cols]], cells.pixels)
        kept = ~inner | (near & bright)
        return _choose_cells(cells, kept), pixels[kept].T

    def _importance(self) -> F32:
        """Eyes and mouth are what people look at."""
        size = self.face_id.shape[0]
        spots = np.zeros((size, size), np.float32)
        points = self.analysis.landmarks[:, :2]
        for group in ((33, 133, 159, 145), (263, 362, 386, 374), (61, 291, 0, 17)):
            center = points[list(group)].mean(0)
            reach = np.linalg.norm(points[group[0]] - points[group[1]])
            axis = np.arange(size) + 0.5
            r2 = (axis[None, :] - center[0]) ** 2 + (axis[:, None] - center[1]) ** 2
            spots = np.maximum(spots, np.exp(-r2 / (2 * (0.55 * reach) ** 2)))
        return ((1.0 + 5.0 * spots) * _framing_importance(size)).astype(np.float32)

    def _mouth_gap(self) -> float:
        """Opening between the inner lips in the photo as a fraction of the mouth's width."""
        points = self.analysis.landmarks[:, :2]
        width = np.linalg.norm(points[61] - points[291])
        return float(np.linalg.norm(points[13] - points[14]) / max(width, 1e-6))

    def _footprints(self, points: F32, normals: F32, sigma: F32, shapes: F32) -> F32:
        rotation = self.camera.viewmat[:3, :3]
        return slanted_footprints(
            points, normals, sigma, shapes, rotation[0], rotation[1], self.eye
        )

    # Base coat

    def base_coat(self, seed: int) -> _Coat:
        """The whole head, evenly sampled in canonical space."""
        head = self.head
        spacing = np.full(len(head.faces), np.inf)
        for name, metres in _SPACING_METRES.items():
            spacing = np.where(self._faces_of(name), np.minimum(spacing, metres), spacing)
        spacing = np.where(self._faces_of("skin") & ~np.isfinite(spacing), 3e-3, spacing)
        spacing = np.where(self._hidden_eyeball() | self._faces_of("shoulders"), np.inf, spacing)
        density = np.where(np.isfinite(spacing), 1.0 / spacing**2, 0.0)
        count = int((face_areas(self.canonical, head.faces) * density).sum())
        face, bary = sample_surface(self.canonical, head.faces, count, seed, density)
        means = np.einsum("nk,nkd->nd", bary, self.canonical[head.faces[face]])
        normals = face_normals(self.canonical, head.faces)[face]
        sigma = (CLOSED_FILL * spacing[face]).astype(np.float32)
        sunk = self._faces_of("face", "ears", "neck", "scalp") & ~self.folded
        means -= normals * np.where(sunk[face], 0.35 * sigma, 0.0)[:, None]
        posed = np.einsum("nk,nkd->nd", bary, self.posed[head.faces[face]]).astype(np.float32)
        coat = _Coat(
            means=means.astype(np.float32),
            covariances=disc_covariances(normals, sigma),
            opacities=np.full(count, 0.97, np.float32),
            colors=self._base_colors(face, bary, posed),
            triangles=face,
        )
        lined = cv2.erode(self.shape.rear.astype(np.uint8), np.ones((25, 25), np.uint8))
        rear = read_pixels(lined, project(posed, self.camera)[0], nearest=True) > 0
        rear &= self._faces_of("scalp")[face] & (self._facing(face, posed) < -0.4)
        # Below the collar clothes lie over the nape.
        low = project(posed, self.camera)[0][:, 1] > self._rear_collar()
        rear |= low & self._faces_of("neck", "face")[face] & (self._facing(face, posed) < 0.0)
        return _keep(coat, self._inside_matte(posed) & ~rear)  # the layer's back lies over the rear

    def _facing(self, face: np.ndarray, posed: F32) -> F32:
        """(N,) cosine between the surface's normal and the way to the camera in the photo's pose."""
        rays = posed - self.eye
        normals = face_normals(self.posed, self.head.faces)[face]
        return -np.sum(normals * rays, 1) / np.linalg.norm(rays, axis=1)

    def _hidden_eyeball(self) -> np.ndarray:
        """The rear of the eyeballs never comes into view."""
        hidden = np.zeros(len(self.head.faces), bool)
        centers = self.canonical[self.head.faces].mean(1)
        for name in _EYES:
            faces = self._faces_of(name)
            z = centers[faces, 2]
            middle = 0.5 * (z.min() + z.max())
            hidden |= faces & (centers[:, 2] < middle)
        return hidden

    def _inside_matte(self, posed: F32) -> np.ndarray:
        """(N,) bool points that neither stand out beside the person in the photo nor lie behind a veil."""
        pixels, depth = project(posed, self.camera)
        solid = cv2.erode((self.analysis.alpha > 0.6).astype(np.uint8), np.ones((5, 5), np.uint8))
        inside = ((pixels >= 0) & (pixels < len(solid))).all(1)
        inside &= read_pixels(solid, pixels, nearest=True) > 0
        shown = read_pixels(self.depth, pixels, nearest=True)
        veiled = read_pixels(self.veiled.astype(np.uint8), pixels, nearest=True) > 0
        return inside & ~(veiled & (depth < shown + _VEIL_METRES))

    def _base_colors(self, face: I32, bary: F32, posed: F32) -> F32:
        head, analysis = self.head, self.analysis
        colors = self.skin.copy()
        edges = np.concatenate(list(head.lid_rings.values()))
        pixels, _ = project(self.posed[edges], self.camera)
        soft = cv2.GaussianBlur(analysis.foreground, (0, 0), 1.5)
        colors[edges] = read_pixels(soft, pixels)  # the lash line
        light = light_of(analysis.rgb, self._shown(self._faces_of("face")) & (analysis.alpha > 0.9))
        inner, known = mouth_colors(head, self.posed, light, self._teeth_color())
        colors[known] = inner[known]
        result = np.einsum("nk,nkd->nd", bary, colors[head.faces[face]])
        hidden = self._under_hair(face, posed)[:, None]
        result += hidden * (self.back_colors(posed) - result)
        return self._paint_eyes(face, posed, result.astype(np.float32))

    def _under_hair(self, face: I32, posed: F32) -> np.ndarray:
        """(N,) how far points lie under hair that the photo does not show: diffusion would bring skin there.

        That is the scalp where it turns away and, down to where the hair ends, all behind the ears.
        """
        scalp = np.clip((0.45 - self._facing(face, posed)) / 0.3, 0.0, 1.0)
        scalp *= self._faces_of("scalp")[face]
        if self.cover is None:
            return scalp
        ears = float(np.median(self.posed[self.head.regions["ears"], 2]))
        behind = np.clip((ears - posed[:, 2]) / _BEHIND_EARS_METRES, 0.0, 1.0)
        behind *= self._faces_of("face", "neck")[face]
        if self.shape.hanging < 0.5:
            top, end = self._nape()
            rows = project(posed, self.camera)[0][:, 1]
            behind *= np.clip((end - rows) / (end - top), 0.0, 1.0)
        return np.maximum(scalp, behind)

    def _teeth_color(self) -> F32 | None:
        """Colour of the teeth that the photo shows, None where it shows too few."""
        mouth = self._shown(self.inner_mouth()) & (self.analysis.alpha > 0.9)
        if self._mouth_gap() < 0.05 or mouth.sum() < 100:
            return None
        pixels = self.analysis.foreground[mouth]
        light, dark = pixels.max(-1), pixels.min(-1)
        white = (light > 0.8 * np.percentile(light, 90)) & (dark > 0.6 * light)
        return np.median(pixels[white], 0) if white.sum() >= 50 else None

    def _skin_colors(self) -> F32:
        """(V, 3) colours of the skin, read where the photo surely shows it and completed from there."""
        head, analysis = self.head, self.analysis
        solid = np.where(self.veiled, 0.0, analysis.alpha).astype(np.float32)
        trusted = np.where(
            self.middle,
            cv2.erode(analysis.alpha, np.ones((7, 7), np.uint8)),
            cv2.erode(solid, np.ones((13, 13), np.uint8)),
        ).astype(np.float32)
        folded = np.zeros(head.num_vertices, bool)
        folded[head.faces[self.folded]] = True
        for lid in _LIDS:
            folded |= head.regions[lid]
        colors = skin_colors(
            head, self.posed, analysis.foreground, trusted, self.depth, self.camera, folded
        )
        return colors * self._ear_shade(trusted)[:, None]

    def _ear_shade(self, trusted: F32) -> F32:
        """(V,) shade that gives relief to the parts of the ears whose colours are made up, 1 elsewhere."""
        head = self.head
        # An ear that was pressed to the head has lost its relief: the model's own tells it.
        normals = vertex_normals(head.data.template, head.weld[head.faces])[head.weld]
        outward = normals[:, 0] * np.sign(self.posed[:, 0])
        lit = np.clip(0.75 * outward + 0.4 * normals[:, 2] + 0.3 * normals[:, 1], 0.0, 1.0)
        pixels, _ = project(self.posed, self.camera)
        unseen = np.clip(1.0 - read_pixels(trusted * (1.0 - self.grazed), pixels), 0.0, 1.0)
        shade = 1.0 + unseen * (_EAR_SHADE + (1.0 - _EAR_SHADE) * lit - 1.0)
        return np.where(head.regions["ears"], shade, 1.0).astype(np.float32)

    def _paint_eyes(self, face: I32, posed: F32, colors: F32) -> F32:
        """Eyeballs take the photo's own iris; what the lids hide of it is continued around the eye's axis."""
        head = self.head
        pixels, depth = project(posed, self.camera)
        photo = read_pixels(self.analysis.foreground, pixels)
        shown = read_pixels(self.depth, pixels, nearest=True)
        matte = cv2.erode((self.analysis.alpha > 0.9).astype(np.uint8), np.ones((7, 7), np.uint8))
        clear = (np.abs(shown - depth) < _EYE_VISIBLE_METRES) & (
            read_pixels(matte, pixels, nearest=True) > 0
        )
        members, seen, radii = [], [], []
        for side in ("Left", "Right"):
            on_eye = np.flatnonzero(self._faces_of(f"eye{side}")[face])
            opening = _polygon(self._lid_outline(side), self.face_id.shape)
            opening = cv2.erode(opening, np.ones((3, 3), np.uint8))
            within = read_pixels(opening, pixels[on_eye], nearest=True) > 0
            iris = head.regions[f"iris{side}"] | head.regions[f"pupil{side}"]
            ball = self.posed[head.regions[f"eye{side}"]].mean(0)
            axis = self.posed[iris].mean(0) - ball
            radius = np.linalg.norm(self.posed[iris] - self.posed[iris].mean(0), axis=1).max()
            local = posed[on_eye] - ball
            along = axis / np.linalg.norm(axis)
            away = local - (local @ along)[:, None] * along
            members.append(on_eye)
            seen.append(within & clear[on_eye])
            radii.append(np.linalg.norm(away, axis=1) / radius)
        both = [np.concatenate(parts) for parts in (members, seen, radii)]
        for on_eye, own, r in zip(members, seen, radii, strict=True):
            # An eye that hides behind the nose is like the other one.
            enough = (own & (r > _WHITE_FROM)).sum() >= _MIN_SEEN
            known = (on_eye, own, r) if enough else both
            profile = _eye_profile(photo[known[0]], known[1], known[2])
            colors[on_eye] = np.where(own[:, None], photo[on_eye], profile[_eye_bins(r)])
        return colors

    def _lid_outline(self, side: str) -> F32:
        upper, lower = (self.head.lid_rings[f"{lid}{side}"] for lid in ("upper", "lower"))
        pixels, _ = project(self.posed[np.concatenate([upper, lower[::-1]])], self.camera)
        return pixels

    # Layer

    def layer_coats(self, config: InitConfig) -> _Coat:
        """Hair, clothes and shoulders: what the photo shows, a lining under it and the back."""
        shape = self.shape
        foreground = self.analysis.foreground
        smooth = np.asarray(cv2.GaussianBlur(foreground, (0, 0), 3.0), np.float32)
        weight = np.where(shape.mask, np.clip(self.analysis.alpha * 1.2, 0, 1), 0.0)
        overlap = cv2.dilate(shape.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        weight = np.where(overlap & shape.solid & ~shape.mask, 1.0, weight).astype(np.float32)
        # The matte counts as a fourth colour, so that the silhouette gets the smallest cells.
        picture = np.dstack([_at_output_detail(foreground), self.analysis.alpha])
        cells = cut_cells(picture, weight, _framing_importance(len(weight)), config.layer_budget)
        shapes = edge_shapes(foreground, cells)
        front = self._height_coat(
            shape, shape.front, cells, foreground, CELL_FILL, shapes, cells.coverage
        )
        # Thin strips of the layer beside skin are what the head's outline missed: from the side a lining stands out.
        bulk = (shape.mask & ~shape.strips).astype(np.uint8)
        lined = shape.solid & (cv2.dilate(bulk, np.ones((5, 5), np.uint8)) > 0)
        framed = _framing_importance(len(weight), _FINE_LINING_BEYOND) >= 1.0
        sunk = shape.front + np.float32(_LINING_DEPTH_METRES)
        linings = [
            self._height_coat(shape, sunk, plain, smooth, CLOSED_FILL)
            for plain in (
                self._plain_cells(lined & framed, config.lining_budget, coarsest=8),
                self._plain_cells(lined & ~framed, config.lining_budget // 5, coarsest=16),
            )
        ]
        # A head that is turned far aside in the photo has half its face behind the silhouette.
        in_view = (self.veiled | self._shown(self._faces_of("scalp"))) & ~shape.strips
        in_view = in_view[tuple(cells.pixels.T)]
        front = _keep(front, in_view | ~self._hides_face(front.means))
        hidden = [*linings, self._back_coat(shape, config.back_budget, config.seed)]
        return _join_coats([front, *(_keep(c, ~self._hides_skin(c.means)) for c in hidden)])

    def _hides_face(self, points: F32) -> np.ndarray:
        """(N,) bool points that hide the face from before."""
        face = self._faces_of("face", "lipUpper", "lipLower")
        return hides(points, self.posed, self.head.faces[face], FRONT, 0.5 * _CLEAR_METRES)

    def _hides_skin(self, points: F32) -> np.ndarray:
        """(N,) bool points that hide the face from before, or bare ears, cheeks and neck from the sides."""
        hidden = self._hides_face(points)
        centers = self.posed[self.head.faces].mean(1)
        rows = project(centers, self.camera)[0][:, 1]
        before_ears = centers[:, 2] > np.median(self.posed[self.head.regions["ears"], 2])
        cheeks = self._faces_of("face") & before_ears
        neck = self._faces_of("neck") & (rows > self._nape()[1]) & (rows < self._rear_collar())
        for direction in (LEFT, RIGHT):
            own = centers[:, 0] * direction[0] > 0
            ear = self._faces_of("ears") & own
            bare = np.zeros_like(ear)
            if self._veil_over(ear) < 0.5:
                bare |= ear
            if self.shape.hanging < 0.5:
                bare |= (cheeks | neck) & own
            if self._turned_away(direction[0]):
                bare |= cheeks & own
            faces = self.head.faces[bare]
            hidden |= hides(points, self.posed, faces, direction, _CLEAR_METRES)
        if self.shape.hanging < 0.5:
            faces = self.head.faces[neck]
            hidden |= hides(points, self.posed, faces, BEHIND, _CLEAR_METRES)
        return hidden

    def _turned_away(self, side: float) -> bool:
        """Whether the head is turned so far that its left (1) or right (-1) side lies behind the face."""
        angle = np.degrees(np.arctan2(self.eye[0], self.eye[2]))
        return bool(-side * angle > _TURNED_DEGREES)

    def _nape(self) -> tuple[float, float]:
        """Rows between which the hair ends behind."""
        points = self.analysis.landmarks
        chin, mouth = float(points[152, 1]), float(points[13, 1])
        return mouth - 0.5 * (chin - mouth), mouth + 0.2 * (chin - mouth)

    def _veil_over(self, faces: np.ndarray) -> float:
        """Share of the pixels of faces (F,) bool that a veil hides."""
        shown = self._shown(faces) & (self.analysis.alpha > 0.3)
        return float(self.veiled[shown].mean()) if shown.any() else 0.0

    def _rear_collar(self) -> float:
        """Row down to which the neck is bare from behind: collars are higher there than at the throat."""
        chin = float(self.analysis.landmarks[152, 1])
        rows = np.nonzero(self._shown(self._faces_of("neck")) & self.covered)[0]
        lowest = float(np.percentile(rows, 95)) if len(rows) else chin
        return chin + _REAR_COLLAR * max(lowest - chin, 0.0)

    def _plain_cells(self, mask: np.ndarray, budget: int, coarsest: int) -> Cells:
        """Cells for smooth colours: large inside, small at the silhouette, so that none stands out beside it."""
        weight = np.asarray(
            cv2.erode(mask.astype(np.float32), np.ones((3, 3), np.uint8)), np.float32
        )
        edge = cv2.GaussianBlur((self.analysis.alpha > 0.5).astype(np.float32), (0, 0), 2.0)
        return cut_cells(
            np.asarray(edge, np.float32)[..., None],
            weight,
            _framing_importance(len(weight)),
            budget,
            coarsest,
        )

    def _back_coat(self, shape: LayerShape, budget: int, seed: int) -> _Coat:
        """The back is sampled evenly on its surface: at the rim it is too steep for cells of the picture."""
        ears, _ = project(self.posed[self.head.regions["ears"]], self.camera)
        rows = np.arange(len(shape.back))[:, None] + 0.5
        top, lobe = float(ears[:, 1].min()), float(np.percentile(ears[:, 1], 85))
        beside = ((rows < top) | (rows > lobe)).astype(np.float32)
        plane = ear_plane(self.posed, self.head, self.camera, len(rows))
        vertices, faces = back_mesh(
            shape.front,
            shape.back,
            shape.rear,
            self.covered,
            plane - _CHEEK_BEFORE_EARS_METRES * beside,
            self.camera,
        )
        vertices = self._narrowed(vertices)
        middle = vertices[faces].mean(1)
        pixels, _ = project(middle, self.camera)
        importance = _framing_importance(len(shape.back), _FINE_LINING_BEYOND)
        density = read_pixels(importance, pixels, nearest=True).astype(np.float64)
        low = pixels[:, 1] > self.analysis.landmarks[152, 1]
        inward = read_pixels(self.distance, pixels)
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
            self.camera.viewmat[1, :3],
            np.where(low[face], 1.0, _STRAND_STRETCH).astype(np.float32)[:, None],
        )
        axes = [axis * self._within_silhouette(means, axis) for axis in axes]
        thickness = normals * np.maximum(0.15 * sigma, 1e-4)[:, None]
        pixels, _ = project(means, self.camera)
        cols, rows = np.clip(pixels.T.astype(int), 0, len(shape.back) - 1)
        return _Coat(
            means=means,
            covariances=outer_covariances([*axes, thickness]),
            opacities=np.full(len(means), 0.97, np.float32),
            colors=self.back_colors(means),
            weights=shape.weights[rows, cols],
        )

    def _narrowed(self, vertices: F32) -> F32:
        """The back without what stands out beside a head that is turned away: there the photo shows face alone."""
        head = self.posed[self.head.regions["scalp"]]
        chin = float(self.posed[self.head.regions["face"], 1].min())
        height = np.clip((vertices[:, 1] - chin) / _NECK_METRES + 2.0, 0.0, 1.0)
        result = vertices.copy()
        for side in (1.0, -1.0):
            if self._turned_away(side):
                limit = float((side * head[:, 0]).max()) + _HAIR_BESIDE_METRES
                beyond = np.maximum(side * vertices[:, 0] - limit, 0.0)
                result[:, 0] -= side * height * beyond
        return result

    def _within_silhouette(self, means: F32, axis: F32) -> F32:
        """(N, 1) factors that keep Gaussians from standing out beside the person in the photo."""
        ends = [project(means + sign * axis, self.camera)[0] for sign in (-1.5, 1.5)]
        least = np.minimum(*(read_pixels(self.distance, pixels) for pixels in ends))
        return np.where(least > 0.0, 1.0, _RIM_SHRINK).astype(np.float32)[:, None]

    def _back_colors(self, seed: int) -> BackColors:
        """Colours of the back: clothes and neck go on around, the skull is covered by its hair."""
        skin = self._faces_of("skin") & ~self._layer_faces()
        outline = self._sure() & ~(self._shown(skin) & self.covered)
        pixels, depth = project(self.posed, self.camera)
        ears, scalp = self.head.regions["ears"], self.head.regions["scalp"]
        plane = float(np.median(depth[ears]))
        return BackColors(
            self.analysis.foreground,
            opened(outline, STRIP_PIXELS),
            self.cover,
            self.distance,
            self._nape(),
            Skull(
                middle=float(pixels[scalp, 0].mean()),
                plane=plane,
                reach=float(depth[scalp].max()) - plane,
                width=float(np.ptp(self.posed[scalp, 0])),
            ),
            self.camera,
            seed,
        )

    def _sure(self) -> np.ndarray:
        """(S, S) bool pixels well inside the matte."""
        matte = (self.analysis.alpha > 0.9).astype(np.uint8)
        return cv2.erode(matte, np.ones((9, 9), np.uint8)) > 0

    def _layer_shape(self) -> LayerShape:
        head = self.head
        under = (self.face_id >= 0) & ~self.covered & ~self._shown(self._faces_of("shoulders"))
        under_depth = np.where(under, self.depth, 0.0)
        shown = (self.face_id >= 0)[..., None]
        corner_weights = head.weights[head.faces[np.maximum(self.face_id, 0)]]
        mesh_weights = np.where(
            shown, np.einsum("hwk,hwkj->hwj", self.bary, corner_weights), 0.0
        ).astype(np.float32)
        return shape_layer(
            self.analysis.alpha,
            self.covered,
            self.depth,
            under_depth,
            mesh_weights,
            self._rear_depth(),
            self._shown(self._faces_of("ears")),
            self.posed,
            head,
            self.camera,
        )

    def _rear_depth(self) -> F32:
        """(S, S) camera depth of the rear of skull and neck, 0 where the head model has none behind its ears."""
        skin = self._faces_of("skin") & ~self._faces_of("ears") & ~self._faces_of("shoulders")
        depth = farthest_depth(self.posed, self.head.faces[skin], self.camera)
        _, ears = project(self.posed[self.head.regions["ears"]], self.camera)
        return np.where(depth > np.median(ears), depth, 0.0).astype(np.float32)

    def _height_coat(
        self,
        shape: LayerShape,
        depth: F32,
        cells: Cells,
        image: F32,
        fill: float,
        shapes: F32 | None = None,
        opacity: F32 | None = None,
    ) -> _Coat:
        _, normals = surface_points(depth, self.camera)
        rows, cols = cells.pixels.T
        flat = shape.strips[:, :, None]
        normals = np.where(flat, -self.camera.viewmat[2, :3], normals).astype(np.float32)
        at = unproject(cells.centers, depth[rows, cols], self.camera)
        sigma = fill * cells.sizes * depth[rows, cols] / self.focal
        opacity = np.ones(len(at), np.float32) if opacity is None else opacity
        shapes = round_shapes(len(at)) if shapes is None else shapes
        return _Coat(
            means=at.astype(np.float32),
            covariances=self._footprints(at, normals[rows, cols], sigma, shapes),
            opacities=np.clip(opacity, 0.02, 0.97).astype(np.float32),
            colors=_cell_colors(image, cells),
            weights=shape.weights[rows, cols],
        )


def _cell_colors(image: F32, cells: Cells) -> F32:
    """Mean colour around each cell's centre, over the cell's size."""
    colors = np.zeros((len(cells.sizes), 3), np.float32)
    for size in np.unique(cells.sizes):
        chosen = cells.sizes == size
        blurred = image if size <= 1 else cv2.blur(image, (int(size), int(size)))
        colors[chosen] = read_pixels(blurred, cells.centers[chosen])
    return np.clip(colors, 0.0, 1.0)


def _strand_axes(normals: F32, sigma: F32, down: F32, stretch: F32) -> list[F32]:
    """Two axes (N, 3) of flat Gaussians drawn out downwards by ``stretch`` (N, 1), of the area of round ones."""
    across = np.cross(normals, down)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    along = np.cross(across, normals)
    width = sigma[:, None]
    return [across * width / stretch, along * width * stretch]


def _at_output_detail(image: F32) -> F32:
    """The picture without detail finer than the output: splitting cells for it would be wasted."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.7), np.float32)


def _framing_importance(size: int, beyond: int = 0) -> F32:
    """(S, S) 1 in the framing and ``beyond`` pixels around it; the rest only comes into view when the camera moves."""
    margin = (WINDOW_SIDE - FRAMING_SIDE) // 2 - beyond
    importance = np.full((size, size), 0.04, np.float32)
    importance[margin:-margin, margin:-margin] = 1.0
    return importance


def _choose_cells(cells: Cells, kept: np.ndarray) -> Cells:
    return Cells(cells.centers[kept], cells.sizes[kept], cells.pixels[kept], cells.coverage[kept])


def _cosine(degrees: float) -> float:
    return float(np.cos(np.radians(degrees)))


def _polygon(outline: F32, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], (1,))
    return mask


def _eye_bins(r: np.ndarray) -> np.ndarray:
    """Steps of ``_eye_profile`` for distances from the eye's axis."""
    return np.clip((r * 8).astype(int), 0, 15)


def _eye_profile(photo: F32, seen: np.ndarray, r: np.ndarray) -> F32:
    """Colours of an eyeball from its seen part: by distance from the eye's axis, in units of the iris radius.

    Args:
        photo: (N, 3) photo colours.
        seen: (N,) bool which of them lie between the lids.
        r: (N,) distance from the axis.

    Returns:
        (16, 3) colours in steps of an eighth of the iris radius.
    """
    bins = _eye_bins(r)
    profile = np.zeros((16, 3), np.float32)
    sclera = np.array([0.72, 0.68, 0.66], np.float32)
    white = seen & (r > _WHITE_FROM)
    if white.sum() > 10:
        sclera = np.median(photo[white], 0)
    last = np.array([0.05, 0.04, 0.04], np.float32)
    for b in range(16):
        members = seen & (bins == b)
        if members.sum() >= 4:
            last = np.median(photo[members], 0)
        elif b >= 10:
            last = sclera
        profile[b] = last
    return profile


def _keep(coat: _Coat, kept: np.ndarray) -> _Coat:
    return _Coat(
        coat.means[kept],
        coat.covariances[kept],
        coat.opacities[kept],
        coat.colors[kept],
        None if coat.triangles is None else coat.triangles[kept],
        None if coat.weights is None else coat.weights[kept],
    )


def _join_coats(coats: list[_Coat]) -> _Coat:
    def join(name: str) -> np.ndarray | None:
        parts = [getattr(c, name) for c in coats]
        return None if parts[0] is None else np.concatenate(parts)

    means, covariances = join("means"), join("covariances")
    opacities, colors = join("opacities"), join("colors")
    assert means is not None and covariances is not None
    assert opacities is not None and colors is not None
    return _Coat(means, covariances, opacities, colors, join("triangles"), join("weights"))


def _assemble(surface: list[_Coat], layer: _Coat) -> Gaussians:
    bound = _join_coats(surface)
    assert bound.triangles is not None and layer.weights is not None
    covariances = np.concatenate([bound.covariances, layer.covariances])
    quats, scales = split_covariances(covariances)
    return Gaussians(
        means=np.concatenate([bound.means, layer.means]).astype(np.float32),
        quats=quats,
        scales=np.clip(scales, 2e-5, 0.02),
        opacities=np.concatenate([bound.opacities, layer.opacities]).astype(np.float32),
        colors=np.concatenate([bound.colors, layer.colors]).astype(np.float32),
        triangles=bound.triangles.astype(np.int32),
        layer_weights=layer.weights.astype(np.float32),
    )


def _with_solved_colors(
    avatar: Avatar, analysis: Analysis, config: InitConfig, surface_damping: F32
) -> Avatar:
    damping = np.full(len(avatar.gaussians), _DAMPING, np.float32)
    damping[: len(surface_damping)] = surface_damping
    side = config.solve_side
    camera = avatar.camera.resized(side, side)
    weight = np.clip((framing_of(analysis.alpha, side) - 0.5) / 0.3, 0.0, 1.0)
    colors = solve_colors(
        avatar.pose(avatar.photo_latents),
        camera,
        framing_of(analysis.rgb, side),
        framing_of(analysis.background, side),
        weight.astype(np.float32),
        damping,
    )
    return replace(avatar, gaussians=replace(avatar.gaussians, colors=colors))


def _encode_picture(picture: F32) -> np.ndarray:
    buffer = io.BytesIO()
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    image.save(buffer, "WEBP", quality=88, method=4)
    return np.frombuffer(buffer.getvalue(), np.uint8).copy()
