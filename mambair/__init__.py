"""mambair: train, test and use MambaIR, image restoration with selective state-space models.

`from mambair import load_model` restores images; see `load_model`. Importing the package itself loads nothing else.
"""

from typing import TYPE_CHECKING, Any

from mambair.runtime.moved_modules import install

if TYPE_CHECKING:
    from mambair.inference.restorer import load_model

install()

__version__ = "1.0.0"

__all__ = ["__version__", "load_model"]


def __getattr__(name: str) -> Any:
    """Import PyTorch and the networks only when `load_model` is asked for."""
    if name == "load_model":
        from mambair.inference.restorer import load_model

        return load_model
    raise AttributeError(f"module 'mambair' has no attribute '{name}'")
