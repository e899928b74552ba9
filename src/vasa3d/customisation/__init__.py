"""Customisation: making an avatar more like the person, by optimisation (VASA-3D, section 3.3)."""
