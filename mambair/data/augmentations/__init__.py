"""Augmentations of training pairs; importing this package registers them in AUGMENTATIONS.

Shapes: lq (B, C, h, w) and gt (B, C, s*h, s*w), s the scale; of single pairs (C, h, w) and (C, s*h, s*w).
"""

from mambair.data.augmentations.chain import AugmentationChain, build_augmentations
from mambair.data.augmentations.channels import ChannelShuffle
from mambair.data.augmentations.cutting import CutBlur, CutMix, ResizeMix
from mambair.data.augmentations.mixup import MixUp

__all__ = ["AugmentationChain", "ChannelShuffle", "CutBlur", "CutMix", "MixUp", "ResizeMix", "build_augmentations"]
