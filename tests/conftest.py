"""Tiny networks with fixed weights, and photos, for all tests, which leave the user's weights alone."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mambair.archs import build_network
from mambair.options import plugins
from mambair.runtime.log_setup import LOGGER_NAME
from mambair.weights import sources

TINY = {"type": "MambaIR", "embed_dim": 12, "depths": [1], "d_state": 4, "mlp_ratio": 1.5}


def save_tiny(path: Path, **options) -> Path:
    """Write the weights of a tiny network, as published files hold them."""
    torch.manual_seed(0)
    network = build_network(TINY | options)
    torch.save({"params": network.state_dict()}, path)
    return path


@pytest.fixture(scope="session")
def x2_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light x2 network's weights, under `params`."""
    return save_tiny(tmp_path_factory.mktemp("weights") / "light_x2.pth", upscale=2, upsampler="pixelshuffledirect")


@pytest.fixture(scope="session")
def gray_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gray network's weights without upscaling, as for JPEG artifacts."""
    return save_tiny(tmp_path_factory.mktemp("weights") / "gray.pth", upscale=1, in_chans=1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights, instead of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MAMBAIR_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def logging_as_at_first() -> Iterator[None]:
    """Commands set logging up for their whole process; the next test is to find nothing of it."""
    yield
    for logger in map(logging.getLogger, (LOGGER_NAME, "py.warnings")):
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    logging.captureWarnings(False)


@pytest.fixture
def nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package without weights; the folder that they would lie in, which does not exist yet."""
    folder = tmp_path / "shipped"
    monkeypatch.setattr(sources, "SHIPPED_FOLDER", folder)
    return folder


@pytest.fixture
def plugins_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers and loads is gone after it."""
    from mambair.commands.options.components import registries  # imports all that register something

    for registry in registries().values():
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(plugins, "_installed_are_loaded", False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if tmp_path in Path(getattr(module, "__file__", None) or "/").parents:
            del sys.modules[name]
