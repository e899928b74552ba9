"""vasa3d: one portrait photo in, a talking 3D Gaussian head out."""

__version__ = "0.1.0"
