"""Rotations, pinhole cameras and triangle meshes."""
