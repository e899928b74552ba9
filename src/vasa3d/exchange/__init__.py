"""Scenes and cameras in files that other programs read and write."""

from vasa3d.exchange.cameras import read_camera as read_camera
from vasa3d.exchange.cameras import write_camera as write_camera
from vasa3d.exchange.gltf import write_splat_glb as write_splat_glb
from vasa3d.exchange.ply import read_ply as read_ply
from vasa3d.exchange.ply import write_ply as write_ply
from vasa3d.exchange.scene import SplatScene as SplatScene
from vasa3d.exchange.spz import read_spz as read_spz
from vasa3d.exchange.spz import write_spz as write_spz
