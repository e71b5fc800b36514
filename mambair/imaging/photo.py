"""Photos as people have them, read and written whole: pixels, what their files say besides, all frames and pages."""

from mambair.imaging.encoding import PHOTO_EXTENSIONS, check_size
from mambair.imaging.pictures import Animation, Photo
from mambair.imaging.reading import read_photo
from mambair.imaging.writing import encode_photo, fitted, write_photo

__all__ = [
    "PHOTO_EXTENSIONS",
    "Animation",
    "Photo",
    "check_size",
    "encode_photo",
    "fitted",
    "read_photo",
    "write_photo",
]
