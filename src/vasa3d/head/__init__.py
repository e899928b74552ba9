"""Parametric heads: the interface, the shipped model and readers of other models' files."""

from vasa3d.head.arkit import NECK_SHARE, ArkitHead, load_head
from vasa3d.head.files import load_head_file
from vasa3d.head.gaze import eye_rotations
from vasa3d.head.linear import LinearHead
from vasa3d.head.model import HeadModel, PersonalHead

__all__ = [
    "NECK_SHARE",
    "ArkitHead",
    "HeadModel",
    "LinearHead",
    "PersonalHead",
    "eye_rotations",
    "load_head",
    "load_head_file",
]
