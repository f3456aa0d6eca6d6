"""How long tests wait for what must come: so long that only a fault takes longer, on any machine."""

PATIENCE = 120.0
"""Seconds."""
