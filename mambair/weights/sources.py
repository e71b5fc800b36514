"""Where weights come from: a file, the Hugging Face Hub, the cache of `mambair weights get`, or the package."""

import json
import logging
import os
import re
from importlib.util import find_spec
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mambair.errors import UserError
from mambair.registry import did_you_mean
from mambair.runtime.files import sha256_of
from mambair.weights.published import PUBLISHED, PublishedWeights
from mambair.weights.tasks import DEFAULT_TASK, TASKS, Level, check_level, find_task, task_name

logger = logging.getLogger(__name__)

REPLACED = {"lightSR_x2_BSD400": "x2"}
"""Networks that were in the package, and those that took their place."""

SHIPPED_FOLDER = Path(__file__).resolve().parent / "shipped"
CACHE_VARIABLE = "MAMBAIR_CACHE"
HUB_SCHEME = "hf://"

# Keys of a safetensors file's metadata, as `mambair weights convert` writes them.
TASK_KEY, NOISE_KEY = "mambair.task", "mambair.noise"
# The network's options: METADATA_KEY of mambair.weights.state_files, which imports PyTorch.
OPTIONS_KEY = "mambair"

_HUB_ADDRESS = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[^@#]+)(@(?P<revision>[^@#]+))?(#sha256=(?P<sha256>[0-9a-f]{64}))?"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def cache_folder() -> Path:
    """Folder of downloaded weights: the environment's MAMBAIR_CACHE, or mambair in the user's cache folder."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mambair"


def shipped_weights() -> dict[str, Path]:
    """The weights that come with the package, by the names that `--weights` takes, in the order of the tasks."""
    order = {name: number for number, name in enumerate(TASKS)}
    found = {path.stem: path for path in sorted(SHIPPED_FOLDER.glob("*.safetensors"))}
    return {name: found[name] for name in sorted(found, key=lambda name: order.get(name, len(order)))}


def find_weights(weights: str | Path | None, *, task: str | None = None, noise: int | None = None) -> Path:
    """The local file behind what a user calls weights; see `mambair.load_model`. Downloads hf:// addresses.

    `task` and `noise` choose among the weights that are here, if `weights` is None.
    """
    if weights is None:
        return weights_at_hand(task, noise)
    if not isinstance(weights, (str, os.PathLike)):
        raise UserError(f"weights: expected a file, a name or an hf:// address, got a {type(weights).__name__}")
    if re.match("hf:/", str(weights)):  # as a path, an address has lost a slash
        return download_from_hub(re.sub("^hf:/+", HUB_SCHEME, str(weights)))
    path = Path(weights)
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise UserError(f"weights {path}: this is a folder; give a .pth or .safetensors file in it")
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise UserError(f"weights {path}: cannot be read ({error.strerror})") from error
    named = weights_called(str(weights))
    if named is None:
        if str(weights) in REPLACED:
            better = REPLACED[str(weights)]
            raise UserError(f"weights {weights}: left the package, which has a better one for this: {better}")
        known = [*shipped_weights(), *PUBLISHED]
        hint = did_you_mean(str(weights), known) or "; `mambair weights list` shows the names that stand for files"
        raise UserError(f"weights {path}: no such file{hint}")
    return named


def weights_called(name: str) -> Path | None:
    """The file that a name of `mambair weights list` stands for; None for what is no such name, or a file of its own.

    Raises UserError if these weights are still to be fetched.
    """
    shipped = shipped_weights()
    if name not in {*shipped, *PUBLISHED} or Path(name).exists():
        return None
    if name in shipped:
        return shipped[name]
    cached = cache_folder() / PUBLISHED[name].file_name
    if not cached.is_file():
        raise UserError(f"weights '{name}' are not on this computer yet; fetch them with: mambair weights get {name}")
    return cached


def _published_at(path: Path) -> PublishedWeights | None:
    """What is published as this file, if it is in the cache under such a name."""
    if path.parent != cache_folder():
        return None
    return next((each for each in PUBLISHED.values() if each.file_name == path.name), None)


def read_purpose(path: Path) -> tuple[str | None, Level | None]:
    """What a published file in the cache is for, or what a safetensors file states of itself.

    One of `mambair.weights.tasks.KINDS`, and the noise level (sigma) or JPEG quality, or their range; each None if
    unknown.
    """
    published = _published_at(path)
    if published is not None:
        kind, level = published.purpose
        return kind, None if level is None else Level(level, level)
    metadata = _metadata(path)
    return metadata.get(TASK_KEY), Level.parse(metadata.get(NOISE_KEY, ""))


def read_scale(path: Path) -> int | None:
    """The scale of a published file in the cache, or that a safetensors file made here states; None if unknown."""
    published = _published_at(path)
    if published is not None:
        return published.scale
    options = json.loads(_metadata(path).get(OPTIONS_KEY, "{}"))
    return options.get("upscale", 1) if options else None


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, whatever its name."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _metadata(path: Path) -> dict[str, str]:
    if not is_safetensors(path):
        return {}
    try:
        with safe_open(path, framework="numpy") as archive:  # the other choice, "pt", imports PyTorch
            return archive.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from error


def check_purpose(path: Path, scale: int, task: str | None, noise: int | None) -> None:
    """Raise UserError if weights are not for the task and the noise level that the user names.

    The scale tells what enlarges from the rest; the rest is checked where the file states its purpose.
    """
    wanted = find_task(task)
    stated, level = read_purpose(path)
    if task is not None and scale != wanted.scale and not (wanted.scale is None and scale > 1):
        kind = f"x{scale} super-resolution" if scale > 1 else "denoising or JPEG artifacts"
        raise UserError(
            f"{path}: these weights are for {kind}, not for task '{task}'; pass others or leave the task out"
        )
    # Any network that enlarges serves `sr`, those for damaged photos too, if it is named.
    if task is not None and stated not in (None, wanted.kind) and wanted.scale is not None:
        raise UserError(f"{path}: these weights state task '{stated}', not '{task}'; pass others or leave the task out")
    if noise is None:
        return
    if scale > 1 or stated == "photo":
        raise UserError(f"{path}: these weights have no noise level; leave noise {noise} out")
    if task is not None:
        check_level(task, noise)
    if level is not None and not level.covers(noise):
        raise UserError(f"{path}: these weights state noise {level}, not {noise}; pass others or leave the noise out")


def candidates() -> list[Path]:
    """Weights on this computer, in the order that a task tries them.

    Those in the package, published ones that were fetched, and then other safetensors files in the cache.
    """
    published = [cache_folder() / each.file_name for each in PUBLISHED.values()]
    own = sorted(cache_folder().glob("*.safetensors"))
    return list(dict.fromkeys([*shipped_weights().values(), *filter(Path.is_file, published), *own]))


def served_by(task: str | None, noise: int | None = None) -> Path | None:
    """The weights on this computer for a task (default sr) and a noise level or JPEG quality (default: any), if any.

    A network for exactly this level comes before a blind one; then those in the package come first, before the
    published file to suggest and other published ones; of several in the package, that of the smallest scale, and that
    called like its task. Raises UserError for a noise level where it means nothing.
    """
    check_level(task, noise)
    wanted, suggested = find_task(task), published_name(task or DEFAULT_TASK, noise)
    shipped = set(shipped_weights().values())
    found: list[tuple[tuple[bool, bool, bool, int, bool], int, Path]] = []
    for path in candidates():
        try:
            (kind, level), scale = read_purpose(path), read_scale(path)
        except UserError as error:
            if path in shipped:
                raise
            logger.warning("%s; it is passed over", error)
            continue
        if wanted.fits(kind, scale) and (noise is None or (level is not None and level.covers(noise))):
            is_for_others = noise is not None and level is not None and not level.is_single
            is_suggested = suggested is not None and path.name == PUBLISHED[suggested].file_name
            in_package = path in shipped
            rank = (
                is_for_others,
                not in_package,
                not is_suggested,
                (scale or 1) if in_package else 0,
                path.stem != task_name(kind, scale),
            )
            found.append((rank, len(found), path))
    return min(found)[-1] if found else None


def weights_at_hand(task: str | None, noise: int | None) -> Path:
    """`served_by`; raises UserError, saying what to do, where there are none."""
    path = served_by(task, noise)
    if path is not None:
        return path
    name = published_name(task or DEFAULT_TASK, noise)
    wanted = f"for --task {task or DEFAULT_TASK}" + (f" --noise {noise}" if noise is not None else "")
    fetch = f"fetch published ones with `mambair weights get {name}`, or " if name else ""
    others = "`mambair weights list` shows all published ones" if name else "none are published for it"
    raise UserError(
        f"no weights {wanted} are on this computer; {fetch}pass --weights FILE (.pth or .safetensors) of your own; "
        f"{others}"
    )


def published_name(task: str, noise: int | None) -> str | None:
    """The published weights to suggest for a task and a noise level or JPEG quality; None if there are none."""
    wanted = TASKS[task]
    name = (wanted.published or "").format(level=wanted.usual_level if noise is None else noise)
    return name if name in PUBLISHED else None


def download_from_hub(address: str) -> Path:
    """Fetch hf://owner/repo/file[@revision][#sha256=...] into the Hub's cache, and check its hash.

    The hash is the one in the address, or else the one the Hub names a large file by.
    """
    match = _HUB_ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"{address}: expected hf://owner/repo/file, then @revision and #sha256=... if wanted")
    if find_spec("huggingface_hub") is None:
        raise UserError(f"{address}: needs huggingface_hub; install it with: pip install 'mambair[hub]'")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(match["repo"], match["file"], revision=match["revision"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(f"{address}: cannot be fetched ({str(error).strip().splitlines()[0]})") from error
    # The cache keeps a large file under its SHA-256 and links to it by name.
    stored_name = path.resolve().name
    expected = match["sha256"] or (stored_name if _SHA256.fullmatch(stored_name) else None)
    if expected is not None and sha256_of(path) != expected:
        raise UserError(f"{address}: the file in the cache does not have SHA-256 {expected}; delete {path.resolve()}")
    return path
