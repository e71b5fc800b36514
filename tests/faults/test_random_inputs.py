"""Random option files and images: an answer or a message, never a traceback, never a hang."""

import contextlib
import io
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mambair.commands.train import main as train_main
from mambair.errors import UserError
from mambair.imaging.files import decode_image, encode_image
from tests.engine.tiny_run import train_options, write_options

SECONDS = 60
"""Far more than an example takes, on a busy machine too."""

QUIET = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL.*")


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """Raises in the main thread when the block does not end."""

    def on_alarm(number: int, frame: object) -> None:
        raise AssertionError(f"nothing came of it within {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def train_quietly(file: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and error output of `mambair train`."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors), no_hang():
        code = train_main(["-opt", str(file), *arguments])
    return code, errors.getvalue()


def assert_answered(code: int, errors: str) -> None:
    assert code in (0, 2), errors
    assert "Traceback" not in errors
    assert errors.startswith("error: ") == (code == 2), errors


def leaf_paths(data: Any, path: tuple = ()) -> list[tuple]:
    if not isinstance(data, dict):
        return [path]
    return [path, *(found for key, value in data.items() for found in leaf_paths(value, (*path, key)))]


# Small numbers: a network of a hundred thousand channels is a wish, not a mistake, and would be built.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 33),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        ["auto", "1e-4", "../x", "{}", "~", "published", "\0", -(10**400), 2**63, "L1Loss", "Adam", "lmdb"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(QUIET, max_examples=60)
@given(st.data())
def test_training_files_with_random_values(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        options = train_options(root, train__total_iter=2)
        paths = [path for path in leaf_paths(options) if path and path[0] not in ("path", "name")]
        for _ in range(data.draw(st.integers(1, 2))):
            section, path = options, data.draw(st.sampled_from(paths))
            for key in path[:-1]:
                section = section.get(key) if isinstance(section, dict) else None
            if isinstance(section, dict):
                section[path[-1]] = data.draw(VALUES)
        try:
            file = write_options(root, options)
        except (UnicodeEncodeError, ValueError):  # what YAML or Python cannot write down
            return
        # However long the run was made: two iterations show whether it works.
        assert_answered(*train_quietly(file, "--force_yml", "train:total_iter=2"))


IMAGE = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
ENCODED = {extension: encode_image(IMAGE, extension) for extension in (".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm")}


@st.composite
def damaged(draw: st.DrawFn, encoded: dict[str, bytes] = ENCODED) -> bytes:
    """A file that is cut, changed, lengthened, or made of anything behind the first bytes of an image."""
    content = bytearray(encoded[draw(st.sampled_from(sorted(encoded)))])
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    kind = draw(st.sampled_from(["whole", "cut", "longer", "other"]))
    if kind == "cut":
        return bytes(content[: draw(st.integers(0, len(content)))])
    if kind == "longer":
        return bytes(content) + draw(st.binary(max_size=40))
    return (
        bytes(content[: draw(st.integers(0, 40))]) + draw(st.binary(max_size=60)) if kind == "other" else bytes(content)
    )


@settings(QUIET, max_examples=600)
@given(damaged(), st.sampled_from(["color", "gray", "unchanged"]))
def test_random_images(content: bytes, mode: str) -> None:
    with no_hang():
        try:
            image = decode_image(content, mode, name="random.png")
        except UserError as error:
            assert str(error).startswith("random.png: ")
            assert "\n" not in str(error)
            return
    assert image.ndim == 3 and image.size > 0
    assert image.dtype in (np.uint8, np.uint16)


@settings(QUIET, max_examples=25)
@given(damaged({".png": ENCODED[".png"]}), st.sampled_from(["HR/coffee.png", "LR/coffeex2.png"]))
def test_training_with_a_random_image(content: bytes, place: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        file = write_options(root, train_options(root, train__total_iter=3, val=None))
        (root / "photos" / place).write_bytes(content)
        assert_answered(*train_quietly(file))
