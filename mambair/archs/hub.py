"""from_pretrained, save_pretrained and push_to_hub, through huggingface_hub where it is installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from mambair.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import ModelHubMixin

Hubbed = TypeVar("Hubbed", bound="ModelHubMixin")

if find_spec("huggingface_hub") is not None:
    from huggingface_hub import PyTorchModelHubMixin
else:

    class PyTorchModelHubMixin:  # type: ignore[no-redef]
        """Takes the place of huggingface_hub's mixin and says how to get it."""

        def __init_subclass__(cls, **card: Any) -> None:
            super().__init_subclass__()

        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> nn.Module:
            """Raise UserError: huggingface_hub is missing."""
            raise UserError(f"{cls.__name__}.from_pretrained needs huggingface_hub; pip install 'mambair[hub]'")

        save_pretrained = push_to_hub = from_pretrained


class HubMixin(PyTorchModelHubMixin):
    """huggingface_hub's mixin, with this project's files: atomic, with metadata, and never loaded in part.

    The wing of weight files stands above this one, and is asked for when a file is to be read or written.
    """

    def _save_pretrained(self, save_directory: Path) -> None:
        from mambair.weights.loading import save_weights

        assert isinstance(self, nn.Module)
        save_weights(self, save_directory / "model.safetensors")

    @classmethod
    def _load_as_safetensor(cls, model: Hubbed, model_file: str, map_location: str, strict: bool) -> Hubbed:
        from mambair.weights.loading import load_weights

        assert isinstance(model, nn.Module)
        load_weights(model, model_file, param_key=None)
        model.to(map_location).eval()
        return model

    @classmethod
    def _load_as_pickle(cls, model: Hubbed, model_file: str, map_location: str, strict: bool) -> Hubbed:
        return cls._load_as_safetensor(model, model_file, map_location, strict)
