"""Checkpoints: written whole, checked before use, and gone on from."""
