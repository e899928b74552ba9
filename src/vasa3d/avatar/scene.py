"""The fitted head in the photo's pose: what each pixel shows, how far that can be trusted, where the layer lies."""

from __future__ import annotations

import cv2
import numpy as np

from vasa3d.avatar.avatar import canonical_vertices, photo_vertices
from vasa3d.avatar.back import BackColors, Skull, head_cover, silhouette_distance
from vasa3d.avatar.deformation import mood_of
from vasa3d.avatar.ears import ear_offsets
from vasa3d.avatar.layer import (
    STRIP_PIXELS,
    LayerShape,
    farthest_depth,
    opened,
    shape_layer,
)
from vasa3d.avatar.outline import outline_offsets
from vasa3d.avatar.sampling import (
    slanted_footprints,
)
from vasa3d.avatar.teeth import teeth_offsets, tongue_offsets
from vasa3d.geometry.cameras import camera_center, facing, project, unproject
from vasa3d.geometry.meshes import (
    face_areas,
    face_normals,
    rasterize_mesh,
    triangle_affines,
    vertex_normals,
)
from vasa3d.head import ArkitHead, PersonalHead
from vasa3d.portrait.analysis import Analysis
from vasa3d.portrait.fitting import FACE_OVAL
from vasa3d.types import F32

_FOLDED = 2.0
_FOLDED_LID = 1.5
"""Skin (and lids) whose area is this many times larger in canonical space than in the photo is folded away there."""
_LEAST_VEIL_PIXELS = 25
"""A rim beside bare skin that is thinner is light from behind or an earring, no hair."""
_CLOTHES_UNLIKE, _LEAST_CLOTHES = 3.2, 0.3
"""Spreads of skin beyond which something is clothes, and their least share below the collar: else it is bare."""
_REAR_COLLAR = 0.3
_GRAZING_DEGREES = ((80.0, 86.0), (54.0, 66.0))
"""Angles between view and normal from which, and up to which, detail fades: in the middle of the face and around."""
_FLAT_FACING = (0.36, 0.6)
"""Cosines between view and normal up to which skin is seen too flat for its colours to count, and from which not."""
LIDS = ("lidUpperLeft", "lidUpperRight", "lidLowerLeft", "lidLowerRight")
_INNER_MOUTH = ("mouthCavity", "gumsUpper", "gumsLower", "teethUpper", "teethLower", "tongue")


class Scene:
    """The fitted head in the photo's pose, and what each pixel of the photo shows."""

    def __init__(self, analysis: Analysis, head: ArkitHead, seed: int) -> None:
        self.analysis, self.head = analysis, head
        fit = analysis.fit
        self.camera = fit.camera
        self.mood = mood_of(fit.expression)
        fitted = head.personalised(fit.identity, fit.offsets)
        posed = photo_vertices(fitted, fit.expression, self.mood, fit.eyes)
        ears, self.settled = ear_offsets(
            posed, analysis.landmarks, analysis.alpha, head, fit.camera
        )
        inside = outline_offsets(posed + ears, analysis.alpha, head, fit.camera, self.settled)
        self.offsets = fit.offsets + ears + inside
        self.offsets += teeth_offsets(fit.identity, self.offsets, head)
        self.offsets += tongue_offsets(fit.identity, self.offsets, head)
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
        self.folded = (ratio > _FOLDED) & self.faces_of("skin")
        self.folded |= (ratio > _FOLDED_LID) & self.faces_of(*LIDS)
        self.unlike_skin = self._unlike_skin()
        self.veiled = self._veiled()
        self.covered = self.shown(~self._layer_faces()) & (analysis.alpha > 0.3) & ~self.veiled
        self.distance = silhouette_distance(analysis.alpha)
        self.cover = head_cover(
            self._sure() & ~self.covered,
            self.distance,
            self.unlike_skin,
            float(analysis.landmarks[13, 1]),
        )
        self.shape = self._layer_shape()
        self.back_colors = self._back_colors(seed)

    def faces_of(self, *regions: str) -> np.ndarray:
        """(F,) bool faces with all corners in one of the regions together."""
        union = np.zeros(self.head.num_vertices, bool)
        for name in regions:
            union |= self.head.regions[name]
        return union[self.head.faces].all(1)

    def found_ears(self) -> np.ndarray:
        """(F,) bool faces of ears that the photo shows for sure."""
        return self.faces_of("ears") & self.settled[self.head.faces].all(1)

    def inner_mouth(self) -> np.ndarray:
        """(F,) bool faces of teeth, gums, tongue and mouth cavity."""
        return self.faces_of(*_INNER_MOUTH)

    def shown(self, faces: np.ndarray) -> np.ndarray:
        """(S, S) bool pixels that show one of the faces (F,) bool."""
        return (self.face_id >= 0) & faces[np.maximum(self.face_id, 0)]

    def _layer_faces(self) -> np.ndarray:
        """(F,) bool parts of the head that hair and clothes hide: there the layer stands for the photo."""
        return self.faces_of("scalp") | self.faces_of("shoulders")

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
        jaw = self.shown(self.faces_of("face", "lipUpper", "lipLower")) & (rows > limit)
        jaw |= self.shown(self.faces_of("lipUpper")) | self.shown(self.faces_of("lipLower"))
        jaw |= self.shown(self.found_ears())  # however red the light that shines through them
        person = self.analysis.alpha > 0.3
        outside = person & ~self.shown(~self._layer_faces())
        candidate = (foreign & person & ~self.middle & ~jaw) | outside
        _, labels = cv2.connectedComponents(candidate.astype(np.uint8), connectivity=4)
        attached = np.isin(labels, np.unique(labels[outside])) & (labels > 0)
        return attached & ~outside & opened(attached, _LEAST_VEIL_PIXELS)

    def _unlike_skin(self) -> F32:
        """(S, S) how far a pixel's colour is from that of the middle of the face, in its spreads."""
        lab = cv2.cvtColor(self.analysis.foreground, cv2.COLOR_RGB2LAB)
        oval = self.analysis.landmarks[list(FACE_OVAL), :2]
        middle = oval.mean(0)
        bare = polygon(middle + 0.7 * (oval - middle), self.face_id.shape) > 0
        skin = lab[bare & self.shown(self.faces_of("face"))]
        if len(skin) < 50:
            return np.zeros(self.face_id.shape, np.float32)
        usual = np.median(skin, 0)
        spread = np.maximum(1.5 * np.median(np.abs(skin - usual), 0), (12.0, 4.0, 4.0))
        return np.sqrt((((lab - usual) / spread) ** 2).sum(-1)).astype(np.float32)

    def _middle_of_face(self) -> np.ndarray:
        """(S, S) bool pixels within the face's outline and away from it."""
        oval = self.analysis.landmarks[list(FACE_OVAL), :2]
        center = oval.mean(0)
        return polygon(center + 0.88 * (oval - center), self.face_id.shape) > 0

    def _grazed(self) -> F32:
        """(S, S) how far the photo shows skin at too flat an angle for detail, 0 to 1.

        Pixels stretched over such skin look torn from the side. Around nose and lips small features turn away from
        the camera and need their pixels longer than cheeks do.
        """
        shown = self.shown(self.faces_of("skin"))
        corners = self.head.faces[self.face_id[shown]]
        normals = np.einsum("nk,nkd->nd", self.bary[shown], self.normals[corners])
        rows, cols = np.nonzero(shown)
        pixels = np.stack([cols, rows], 1).astype(np.float32) + 0.5
        points = unproject(pixels, self.depth[shown], self.camera)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        turned = facing(points, normals, self.eye)
        inner = self.middle[shown]
        least = np.where(inner, *(_cosine(degrees[1]) for degrees in _GRAZING_DEGREES))
        full = np.where(inner, *(_cosine(degrees[0]) for degrees in _GRAZING_DEGREES))
        grazed = np.zeros(shown.shape, np.float32)
        grazed[shown] = np.clip((full - turned) / (full - least), 0.0, 1.0)
        return grazed

    def mouth_gap(self) -> float:
        """Opening between the inner lips in the photo as a fraction of the mouth's width."""
        points = self.analysis.landmarks[:, :2]
        width = np.linalg.norm(points[61] - points[291])
        return float(np.linalg.norm(points[13] - points[14]) / max(width, 1e-6))

    def footprints(self, points: F32, normals: F32, sigma: F32, shapes: F32) -> F32:
        rotation = self.camera.viewmat[:3, :3]
        return slanted_footprints(
            points, normals, sigma, shapes, rotation[0], rotation[1], self.eye
        )

    def facing(self, face: np.ndarray, posed: F32) -> F32:
        """(N,) cosine between the surface's normal and the way to the camera in the photo's pose."""
        return facing(posed, face_normals(self.posed, self.head.faces)[face], self.eye)

    def nape(self) -> tuple[float, float]:
        """Rows between which the hair ends behind."""
        points = self.analysis.landmarks
        chin, mouth = float(points[152, 1]), float(points[13, 1])
        return mouth - 0.9 * (chin - mouth), mouth - 0.25 * (chin - mouth)

    def rear_collar(self) -> float:
        """Row down to which the neck is bare from behind: collars are higher there than at the throat."""
        chin = float(self.analysis.landmarks[152, 1])
        rows = np.nonzero(self.shown(self.faces_of("neck")) & self.covered)[0]
        lowest = float(np.percentile(rows, 95)) if len(rows) else chin
        return chin + _REAR_COLLAR * max(lowest - chin, 0.0)

    def _back_colors(self, seed: int) -> BackColors:
        """Colours of the back: clothes and neck go on around, the skull is covered by its hair."""
        skin = self.faces_of("skin") & ~self._layer_faces()
        outline = self._sure() & ~(self.shown(skin) & self.covered)
        low = np.arange(len(outline))[:, None] + 0.5 > self.rear_collar()
        clothes = outline & low & (self.unlike_skin > _CLOTHES_UNLIKE)
        if clothes.sum() > _LEAST_CLOTHES * (outline & low).sum():
            outline &= clothes | ~low  # what shows of the throat is no collar
        pixels, depth = project(self.posed, self.camera)
        ears, scalp = self.head.regions["ears"], self.head.regions["scalp"]
        plane = float(np.median(depth[ears]))
        return BackColors(
            self.analysis.foreground,
            opened(outline, STRIP_PIXELS),
            self.cover,
            self.distance,
            self.nape(),
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
        under = (self.face_id >= 0) & ~self.covered & ~self.shown(self.faces_of("shoulders"))
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
            self.shown(self.faces_of("ears")),
            self.posed,
            head,
            self.camera,
        )

    def _rear_depth(self) -> F32:
        """(S, S) camera depth of the rear of skull and neck, 0 where the head model has none behind its ears."""
        skin = self.faces_of("skin") & ~self.faces_of("ears") & ~self.faces_of("shoulders")
        depth = farthest_depth(self.posed, self.head.faces[skin], self.camera)
        _, ears = project(self.posed[self.head.regions["ears"]], self.camera)
        return np.where(depth > np.median(ears), depth, 0.0).astype(np.float32)


def flat_faces(vertices: F32, head: ArkitHead, eye: F32) -> F32:
    """How far skin beside the face is seen at too flat an angle for its colours to count.

    Args:
        vertices: (V, 3) the posed head.
        head: Its model.
        eye: (3,) where it is seen from.

    Returns:
        (F,) 0 to 1; 0 off face, ears and neck.
    """
    corners = head.faces
    turned = facing(vertices[corners].mean(1), face_normals(vertices, corners), eye)
    flat = np.clip((_FLAT_FACING[1] - turned) / (_FLAT_FACING[1] - _FLAT_FACING[0]), 0.0, 1.0)
    skin = head.regions["face"] | head.regions["ears"] | head.regions["neck"]
    return (flat * skin[corners].all(1)).astype(np.float32)


def _cosine(degrees: float) -> float:
    return float(np.cos(np.radians(degrees)))


def polygon(outline: F32, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], (1,))
    return mask
