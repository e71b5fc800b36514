"""Which images show the same photo: as copies, at other sizes, as crops of each other.

`fingerprint` makes of each image a small version with a few hundred features; `find_alike` finds the pairs among
thousands of fingerprints. Mirrored and turned by more than the camera's tilt are not looked for.
"""

from mambair.data.likeness.fingerprints import Fingerprint, fingerprint
from mambair.data.likeness.pairs import Alike, find_alike

__all__ = ["Alike", "Fingerprint", "find_alike", "fingerprint"]
