"""Compiled kernels of the renderer, and the float64 twin that says what they must compute."""
