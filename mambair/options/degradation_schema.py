"""Keys of the second-order degradation that makes real-world super-resolution pairs (Real-ESRGAN, Sections 3.1-3.3).

The option files spread them over two places: blur kernels belong to the data set, everything applied on the
device (resizing, noise, JPEG, the pair queue, sharpening) stands at the top level. Defaults are the published recipe.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mambair.options.fields import (
    ConflictError,
    Flag,
    Positive,
    PositiveRange,
    Probabilities,
    Probability,
    QualityRange,
    Range,
    Section,
    Whole,
)

KernelKind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
KernelSize = Annotated[Whole, Field(ge=3, le=51)]

ALL_KERNELS: list[KernelKind] = [
    "iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso",
]  # fmt: skip
KERNEL_PROBABILITIES = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]


class KernelFields(Section):
    """Blur kernels of a RealESRGANDataset alone; the names ending in 2 are the second round's."""

    blur_kernel_size: KernelSize = 21
    """Side of the largest kernel in pixels, odd; smaller ones are drawn too and padded to it."""
    kernel_list: list[KernelKind] = ALL_KERNELS
    """Kinds of Gaussian-like kernels to draw from."""
    kernel_prob: Probabilities = KERNEL_PROBABILITIES
    """Probability of each kind in kernel_list."""
    sinc_prob: Probability = 0.1
    """Probability of a sinc (ringing) kernel instead of a Gaussian-like one."""
    blur_sigma: PositiveRange = [0.2, 3.0]
    """Standard deviation of the kernel in pixels, [low, high]."""
    betag_range: PositiveRange = [0.5, 4.0]
    """Shape parameter of generalized Gaussian kernels."""
    betap_range: PositiveRange = [1.0, 2.0]
    """Shape parameter of plateau kernels."""
    blur_kernel_size2: KernelSize = 21
    """As blur_kernel_size, second round."""
    kernel_list2: list[KernelKind] = ALL_KERNELS
    """As kernel_list, second round."""
    kernel_prob2: Probabilities = KERNEL_PROBABILITIES
    """As kernel_prob, second round."""
    sinc_prob2: Probability = 0.1
    """As sinc_prob, second round."""
    blur_sigma2: PositiveRange = [0.2, 1.5]
    """As blur_sigma, second round."""
    betag_range2: PositiveRange = [0.5, 4.0]
    """As betag_range, second round."""
    betap_range2: PositiveRange = [1.0, 2.0]
    """As betap_range, second round."""
    final_sinc_prob: Probability = 0.8
    """Probability of a sinc filter next to the last JPEG compression."""

    @model_validator(mode="after")
    def _kernels_agree(self) -> "KernelFields":
        for suffix in ("", "2"):
            kinds, odds = getattr(self, f"kernel_list{suffix}"), getattr(self, f"kernel_prob{suffix}")
            if len(kinds) != len(odds):
                raise ConflictError(
                    f"has {len(odds)} probabilities for the {len(kinds)} kinds of kernel_list{suffix}",
                    f"kernel_prob{suffix}",
                )
            if getattr(self, f"blur_kernel_size{suffix}") % 2 == 0:
                raise ConflictError("expected an odd number", f"blur_kernel_size{suffix}")
        return self

    def kernel_options(self) -> dict[str, Any]:
        """The blur-kernel keys and their values, as keyword arguments."""
        return {key: getattr(self, key) for key in KernelFields.model_fields}


class DegradationFields(Section):
    """For real-world super-resolution: what happens to a batch on the device after blurring; 2: the second round."""

    resize_prob: Probabilities = [0.2, 0.7, 0.1]
    """Probabilities of resizing up, down, and keeping the size."""
    resize_range: PositiveRange = [0.15, 1.5]
    """Smallest and largest resize factor."""
    gaussian_noise_prob: Probability = 0.5
    """Probability of Gaussian noise; Poisson noise otherwise."""
    noise_range: Range = [1.0, 30.0]
    """Standard deviation of Gaussian noise on the 0-255 scale."""
    poisson_scale_range: Range = [0.05, 3.0]
    """Factor on Poisson noise."""
    gray_noise_prob: Probability = 0.4
    """Probability that noise is equal in all channels."""
    jpeg_range: QualityRange = [30.0, 95.0]
    """JPEG quality, [low, high]."""
    second_blur_prob: Probability = 0.8
    """Probability that the second round blurs at all."""
    resize_prob2: Probabilities = [0.3, 0.4, 0.3]
    """As resize_prob, second round."""
    resize_range2: PositiveRange = [0.3, 1.2]
    """As resize_range, second round."""
    gaussian_noise_prob2: Probability = 0.5
    """As gaussian_noise_prob, second round."""
    noise_range2: Range = [1.0, 25.0]
    """As noise_range, second round."""
    poisson_scale_range2: Range = [0.05, 2.5]
    """As poisson_scale_range, second round."""
    gray_noise_prob2: Probability = 0.4
    """As gray_noise_prob, second round."""
    jpeg_range2: QualityRange = [30.0, 95.0]
    """As jpeg_range, second round."""
    gt_size: Positive | None = None
    """Side of the ground-truth patch cut after the degradation; the data set's gt_size if left out."""
    queue_size: Positive = 180
    """Pairs kept to mix degradations within a batch; a multiple of the batch size."""
    lq_usm: Flag = True
    """Make the low-quality images of sharpened ground truth, as published; false takes it as it is."""
    l1_gt_usm: Flag = True
    """Compare with sharpened ground truth in the pixel loss."""
    percep_gt_usm: Flag = True
    """Compare with sharpened ground truth in the perceptual loss."""
    gan_gt_usm: Flag = False
    """Show the discriminator sharpened ground truth."""
    high_order_degradation: Flag = True
    """Make the low-quality images by degradation; false takes given pairs."""

    def degradation_options(self) -> dict[str, Any]:
        """The second-order degradation's keys and their values, as keyword arguments."""
        return {key: getattr(self, key) for key in DegradationFields.model_fields}
