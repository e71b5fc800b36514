"""Meta-info files: lists of images with their sizes, one a line, as BasicSR writes them."""

from pathlib import Path

from mambair.commands.data.derive import images_in
from mambair.errors import UserError
from mambair.imaging.files import IMAGE_EXTENSIONS
from mambair.imaging.headers import printable, read_image_size
from mambair.runtime.files import FileMark, write_unless_changed


def replaceable_list(output: Path, overwrite: bool) -> FileMark | None:
    """The earlier list that a new one may take the place of. Raises UserError where it may not, and for images."""
    if output.suffix.lower() in IMAGE_EXTENSIONS:
        raise UserError(f"{printable(output)}: is the name of an image, and lists are text; name a .txt file")
    earlier = FileMark.of(output)
    if earlier is not None and not overwrite:
        raise UserError(f"{printable(output)}: exists already; name another file or give --overwrite")
    return earlier


def write_meta_info(folder: Path, output: Path, overwrite: bool) -> int:
    """List the images of a folder as `name (height,width,channels)`; returns how many there are."""
    earlier = replaceable_list(output, overwrite)
    lines = [f"{image.name} ({','.join(map(str, read_image_size(image)))})\n" for image in images_in(folder)]
    with write_unless_changed(output, earlier) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return len(lines)
