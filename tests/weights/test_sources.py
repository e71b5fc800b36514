"""Where weights come from: files, the Hub's cache with its hash, the package, and what is said when there are none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mambair.commands.weights import main
from mambair.errors import UserError
from mambair.imaging.photo import Photo, write_photo
from mambair.inference.restorer import load_model
from mambair.runtime.files import sha256_of
from mambair.weights.published import PUBLISHED
from mambair.weights.sources import find_weights, read_purpose, weights_at_hand

COMMIT = "0123456789012345678901234567890123456789"


@pytest.fixture
def hub_cache(tmp_path: Path, x2_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache as a download of owner/repo/light.pth leaves it; no network. Returns the stored file."""
    constants = pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "models--owner--repo"
    stored = repo / "blobs" / sha256_of(x2_weights)
    link = repo / "snapshots" / COMMIT / "light.pth"
    for path in (stored, link, repo / "refs" / "main"):
        path.parent.mkdir(parents=True)
    stored.write_bytes(x2_weights.read_bytes())
    link.symlink_to(stored)
    (repo / "refs" / "main").write_text(COMMIT)
    return stored


def test_a_hub_address_loads_from_the_cache(hub_cache: Path) -> None:
    assert load_model("hf://owner/repo/light.pth", device="cpu").scale == 2
    assert find_weights(f"hf://owner/repo/light.pth@main#sha256={hub_cache.name}").resolve() == hub_cache


def test_a_file_that_is_not_what_its_hash_says_is_refused(hub_cache: Path) -> None:
    with pytest.raises(UserError, match="SHA-256 0000"):
        find_weights(f"hf://owner/repo/light.pth#sha256={'0' * 64}")
    hub_cache.write_bytes(b"damaged")
    with pytest.raises(UserError, match="delete"):
        find_weights("hf://owner/repo/light.pth")


@pytest.mark.parametrize("address", ["hf://owner/repo/gone.pth", "hf://owner/repo/light.pth@v9", "hf://owner/repo"])
def test_what_the_hub_does_not_have_is_a_user_error(hub_cache: Path, address: str) -> None:
    with pytest.raises(UserError, match="hf://owner/repo"):
        find_weights(address)


def test_names_of_published_files_lead_into_the_cache(own_cache: Path, x2_weights: Path) -> None:
    (own_cache / "lightSR_x2.pth").write_bytes(x2_weights.read_bytes())
    assert load_model("lightSR_x2", device="cpu").scale == 2
    with pytest.raises(UserError, match="mambair weights get SR_x4"):
        find_weights("SR_x4")
    with pytest.raises(UserError, match="folder"):
        find_weights(own_cache)
    with pytest.raises(UserError, match="File name too long"):
        find_weights("a" * 300)
    with pytest.raises(UserError, match="got a int"):
        find_weights(3)


def test_weights_in_the_package_are_chosen_by_their_purpose(
    nothing_shipped: Path, x2_weights: Path, gray_weights: Path
) -> None:
    shipped = nothing_shipped
    with pytest.raises(UserError, match=r"no weights for --task sr are on .* weights get lightSR_x2`, or pass"):
        weights_at_hand(None, None)
    with pytest.raises(UserError, match="weights get ColorDN_50`"):
        weights_at_hand("denoise", 50)
    with pytest.raises(UserError, match="this computer; pass --weights FILE"):
        weights_at_hand("denoise", 77)
    shipped.mkdir()
    assert (
        main(["convert", str(gray_weights), "-o", str(shipped / "a.safetensors"), "--task", "jpeg", "--noise", "40"])
        == 0
    )
    assert main(["convert", str(x2_weights), "-o", str(shipped / "b.safetensors"), "--task", "sr"]) == 0
    assert load_model(device="cpu").scale == 2
    assert weights_at_hand("jpeg", None) == weights_at_hand("jpeg", 40) == shipped / "a.safetensors"
    with pytest.raises(UserError, match="--task jpeg --noise 10"):
        weights_at_hand("jpeg", 10)


def test_fetched_weights_are_found_by_their_purpose(
    own_cache: Path, nothing_shipped: Path, x2_weights: Path, gray_weights: Path
) -> None:
    for name, weights in {"SR_x4": x2_weights, "ColorDN_15": gray_weights, "CAR_q10": gray_weights}.items():
        (own_cache / f"{name}.pth").write_bytes(weights.read_bytes())
    assert weights_at_hand(None, None) == own_cache / "SR_x4.pth"
    (own_cache / "lightSR_x2.pth").write_bytes(x2_weights.read_bytes())
    assert weights_at_hand(None, None) == weights_at_hand("sr", None) == own_cache / "lightSR_x2.pth"
    assert weights_at_hand("denoise", None) == weights_at_hand("denoise", 15) == own_cache / "ColorDN_15.pth"
    assert weights_at_hand("jpeg", 10) == own_cache / "CAR_q10.pth"
    with pytest.raises(UserError, match="weights get CAR_q40"):
        weights_at_hand("jpeg", 40)
    assert load_model(device="cpu", task="jpeg").in_channels == 1
    with pytest.raises(UserError, match="state noise 15, not 25"):
        load_model("ColorDN_15", device="cpu", noise=25)


def test_conversion_keeps_values_hyperparameters_and_purpose(tmp_path: Path, x2_weights: Path, capsys) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    assert main(["convert", str(x2_weights), "-o", str(whole), "--task", "sr"]) == 0
    assert main(["convert", str(x2_weights), "-o", str(half), "--half"]) == 0
    assert read_purpose(whole) == ("sr", None) and read_purpose(half) == (None, None)
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    original, converted = load_model(x2_weights, device="cpu"), load_model(whole, device="cpu")
    assert converted.network.hyperparameters == original.network.hyperparameters
    state = original.network.state_dict()
    assert all((value == state[key]).all() for key, value in load_file(whole).items())
    assert load_model(half, device="cpu").network.conv_first.weight.dtype == state["conv_first.weight"].dtype
    assert main(["convert", str(x2_weights), "-o", str(whole)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["convert", str(x2_weights), "-o", str(tmp_path / "x.pth")]) == 2


def test_conversion_takes_the_averaged_weights(tmp_path: Path, x2_weights: Path) -> None:
    state = torch.load(x2_weights, weights_only=True)["params"]
    averaged = {key: value + 1 for key, value in state.items()}
    torch.save({"params": state, "params_ema": averaged}, tmp_path / "both.pth")
    target = tmp_path / "half.safetensors"
    assert main(["convert", str(tmp_path / "both.pth"), "-o", str(target), "--half"]) == 0
    converted = load_file(target)
    assert converted.keys() == averaged.keys()
    assert all(torch.equal(value, averaged[key].half()) for key, value in converted.items())


def test_a_stated_task_must_fit_the_weights(tmp_path: Path, x2_weights: Path, gray_weights: Path) -> None:
    assert load_model(x2_weights, device="cpu", task="sr").scale == 2
    with pytest.raises(UserError, match="x2 super-resolution"):
        load_model(x2_weights, device="cpu", task="denoise")
    assert load_model(gray_weights, device="cpu", task="denoise").scale == 1
    tagged = tmp_path / "tagged.safetensors"
    main(["convert", str(gray_weights), "-o", str(tagged), "--task", "jpeg", "--noise", "40"])
    with pytest.raises(UserError, match="jpeg"):
        load_model(tagged, device="cpu", task="denoise")
    with pytest.raises(UserError, match="40"):
        load_model(tagged, device="cpu", noise=10)


def test_a_damaged_safetensors_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(UserError, match=r"bad\.safetensors"):
        load_model(tmp_path / "bad.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(UserError, match=r"empty\.safetensors"):
        load_model(tmp_path / "empty.safetensors")


def test_list_shows_every_published_file(capsys, own_cache: Path) -> None:
    (own_cache / "SR_x2.pth").touch()
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in PUBLISHED)
    assert "38.57/0.9627" in printed and "unknown" in printed and "github.com/csguoh/MambaIR" in printed


def published_at(*urls: str, sha256: str | None = None):
    """Stands for a published file that lies at another address."""

    class Elsewhere:
        file_name = "light.pth"

        def __init__(self) -> None:
            self.urls, self.sha256 = urls, sha256

    return Elsewhere()


@pytest.mark.parametrize(
    ("name", "sha256", "code"),
    [("good", None, 0), ("good", "0" * 64, 1), ("page", None, 1), ("gone", None, 1), ("photo", None, 1)],
)
def test_get_keeps_only_files_that_are_weights(
    tmp_path, own_cache, x2_weights, capsys, monkeypatch, name: str, sha256: str | None, code: int
) -> None:
    (tmp_path / "good").write_bytes(x2_weights.read_bytes())
    (tmp_path / "page").write_text("<html>quota exceeded</html>")
    write_photo(tmp_path / "photo.png", Photo(np.zeros((4, 4, 3), np.uint8)))
    (tmp_path / "photo.png").rename(tmp_path / "photo")
    monkeypatch.setitem(PUBLISHED, "light", published_at((tmp_path / name).as_uri(), sha256=sha256))
    assert main(["get", "light"]) == code
    printed = capsys.readouterr().out
    if code == 0:
        assert (own_cache / "light.pth").read_bytes() == x2_weights.read_bytes()
        assert sha256_of(x2_weights) in printed
        assert main(["get", "light"]) == 0
        assert "already in" in capsys.readouterr().out
    else:
        assert "github.com/csguoh/MambaIR" in printed
        assert list(own_cache.iterdir()) == []


def test_get_tries_the_next_place(tmp_path, own_cache, x2_weights, monkeypatch) -> None:
    places = published_at((tmp_path / "gone").as_uri(), x2_weights.as_uri())
    monkeypatch.setitem(PUBLISHED, "light", places)
    assert main(["get", "light"]) == 0
    assert (own_cache / "light.pth").read_bytes() == x2_weights.read_bytes()


def test_the_files_of_version_2_lie_in_two_places() -> None:
    found = PUBLISHED["v2_SRLarge_x3"]
    assert found.file_name == "mambairv2_classicSR_Large_x3.pth" and found.scale == 3
    assert [url.split("/")[2] for url in found.urls] == ["github.com", "huggingface.co"]
    assert len([name for name in PUBLISHED if name.startswith("v2_")]) == 16


def test_get_refuses_unknown_names(capsys) -> None:
    assert main(["get", "SR_x22"]) == 2
    assert "did you mean 'SR_x2'" in capsys.readouterr().err
