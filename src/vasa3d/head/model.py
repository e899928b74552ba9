"""The interface that all parametric heads share.

A head maps identity, expression, joint rotations and a translation to vertices. ``HeadModel`` is differentiable and
batched (fitting, training); ``PersonalHead`` is one person's head without autograd (real time).
Symbols: V vertices, F faces, I identity and E expression coefficients, J joints, B frames; metres, radians.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vasa3d.types import F32, I32

if TYPE_CHECKING:
    from torch import Tensor

Mask = NDArray[np.bool_]


class HeadModel(ABC):
    """A parametric head.

    Attributes:
        name: Short name of the model.
        faces: (F, 3) int32 triangles, counter-clockwise seen from outside.
        num_vertices: V.
        num_identity: I.
        num_expression: E.
        expression_names: E names.
        joint_names: J names.
        joint_parents: Parent of each joint, -1 for the root; parents come before their children.
        weights: (V, J) float32 skinning weights; rows sum to 1.
        regions: Name -> (V,) bool parts of the head that this model can tell apart.
    """

    name: str
    faces: I32
    num_vertices: int
    num_identity: int
    num_expression: int
    expression_names: tuple[str, ...]
    joint_names: tuple[str, ...]
    joint_parents: tuple[int, ...]
    weights: F32
    regions: dict[str, Mask]

    @abstractmethod
    def __call__(
        self, identity: Tensor, expression: Tensor, joints: Tensor, translation: Tensor
    ) -> Tensor:
        """Pose one person over B frames, differentiable in all inputs.

        Args:
            identity: (I,) coefficients of unit variance.
            expression: (B, E) coefficients.
            joints: (B, J, 3) axis-angle rotations in radians.
            translation: (B, 3) of the root, metres.

        Returns:
            (B, V, 3) vertices, metres.
        """

    @abstractmethod
    def personalised(self, identity: F32, offsets: F32 | None = None) -> PersonalHead:
        """This person's head for real time.

        Args:
            identity: (I,) coefficients.
            offsets: (V, 3) what the person's rest shape adds to the identity, metres.
        """


class PersonalHead(ABC):
    """One person's head, without autograd.

    Attributes:
        rest: (V, 3) float32 vertices without expression or pose.
        joints_rest: (J, 3) float32 joint positions at rest.
    """

    rest: F32
    joints_rest: F32

    @abstractmethod
    def vertices(
        self, expression: F32, joints: F32, translation: F32, out: F32 | None = None
    ) -> F32:
        """Vertices of one frame.

        Args:
            expression: (E,) coefficients.
            joints: (J, 3) axis-angle rotations in radians.
            translation: (3,) of the root, metres.
            out: (V, 3) float32 to write into.

        Returns:
            (V, 3) float32, ``out`` where given.
        """

    @abstractmethod
    def joint_transforms(self, joints: F32, translation: F32) -> F32:
        """(J, 4, 4) float32 maps from rest to posed space, for what else moves with the joints."""
