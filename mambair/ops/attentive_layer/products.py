"""Matrix products of pixels with weights, whose biases come in through a channel of ones."""

from collections.abc import Sequence

import torch

from mambair.ops.copies import Copy
from mambair.ops.rssb.rows import padded
from mambair.ops.rssb.triton_light import with_ones


class Product:
    """A Linear layer's weights (outputs, inputs) and bias packed for pixels (rows, height) -> (rows, width).

    Channel `inputs` of the pixels is one, those behind it are zero; channels of the result from `outputs` on are zero.
    """

    def __init__(
        self, inputs: int, outputs: int, bias: bool, kind: torch.dtype, parameter: torch.dtype, device: torch.device
    ) -> None:
        self.height, self.width = with_ones(inputs), padded(outputs, kind)
        self._kind, self._device = kind, device
        self._bias_row = inputs * self.width * kind.itemsize
        known = 1 if bias else 0
        self.pack = (
            Copy((inputs, 1, self.width), (1, 0, inputs), (inputs, outputs), parameter, kind),
            Copy((self.height - inputs, 1, self.width), (0, 0, 1), (known, outputs), parameter, kind),
        )
        """Sources: weight and bias, or any address; targets: `halves` of the packed matrix."""
        self.unpack = (
            Copy((outputs, 1, inputs), (1, 0, self.width), (outputs, inputs), kind, parameter),
            Copy((known, 1, outputs), (0, 0, 1), (known, outputs), kind, parameter),
        )
        """Sources: `halves` of the packed gradient; targets: weight's and bias's, or any address."""

    def new(self) -> torch.Tensor:
        """Memory for the packed matrix, (height, width)."""
        return torch.empty(self.height, self.width, dtype=self._kind, device=self._device)

    def halves(self, packed: torch.Tensor) -> Sequence[int]:
        """Addresses of the weights' and of the bias's part."""
        address = packed.data_ptr()
        return address, address + self._bias_row
