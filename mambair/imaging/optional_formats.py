"""The formats that Pillow opens here: some depend on its version, HEIC on another package."""

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

HEIC_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
HEIC_REMEDY = "HEIC photos are read with one more package: pip install 'mambair[heic]'"

# Pillow's many other formats are rare among photos, and their readers less tried by damaged files. PNG, TIFF, PBM, PGM
# and PPM are read by their own bytes first.
_ALWAYS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")


@lru_cache(maxsize=1)
def openable() -> tuple[str, ...]:
    """Pillow's names of the formats to try; the first call teaches it HEIC, if pillow-heif is there."""
    import_module("PIL.WebPImagePlugin")
    formats = list(_ALWAYS)
    if find_spec("PIL.AvifImagePlugin") is not None:  # since Pillow 11.3
        import_module("PIL.AvifImagePlugin")
        formats.append("AVIF")
    if find_spec("pillow_heif") is not None:
        import_module("pillow_heif").register_heif_opener()
        formats.append("HEIF")
    return tuple(formats)


def reads_heic() -> bool:
    """Whether HEIC photos can be read."""
    return "HEIF" in openable()
