"""Registries that servers announce themselves in, and that clients ask."""
