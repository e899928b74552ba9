"""The one way to make pixels from Gaussians."""

from vasa3d.renderer.config import RenderConfig as RenderConfig
from vasa3d.renderer.drawing import color_adjoint as color_adjoint
from vasa3d.renderer.views import render_cloud as render_cloud
from vasa3d.renderer.views import render_clouds as render_clouds
from vasa3d.renderer.views import render_views as render_views
