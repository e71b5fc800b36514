"""MambaIR in a training loop of one's own: python plain_loop.py photos weights.pth"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mambair.archs import MambaIR, save_weights
from mambair.imaging.files import list_images, read_image
from mambair.imaging.resize import imresize
from mambair.imaging.tensors import image_to_tensor

SCALE, PATCH, BATCH, STEPS = 2, 48, 4, 20


def batches(photos: list[np.ndarray], rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless pairs: lq (B, 3, PATCH / SCALE, PATCH / SCALE) and gt (B, 3, PATCH, PATCH), in [0, 1]."""
    while True:
        pairs = []
        for _ in range(BATCH):
            photo = photos[rng.integers(len(photos))]
            top, left = (rng.integers(side - PATCH + 1) for side in photo.shape[:2])
            gt = photo[top : top + PATCH, left : left + PATCH]
            pairs.append((image_to_tensor(imresize(gt, 1 / SCALE)), image_to_tensor(gt)))
        lq, gt = (torch.stack(images) for images in zip(*pairs, strict=True))
        yield lq, gt


def main(folder: str, weights: str) -> None:
    """Train a small network on the photos of a folder; `mambair restore --weights` takes what is saved."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    photos = [read_image(path, "color") for path in list_images(Path(folder))]
    network = MambaIR(upscale=SCALE, embed_dim=16, depths=(2, 2), d_state=4, upsampler="pixelshuffledirect").to(device)
    frozen = network.no_weight_decay()  # the scan's own parameters
    groups = [
        {"params": [p for name, p in network.named_parameters() if name not in frozen]},
        {"params": [p for name, p in network.named_parameters() if name in frozen], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    for step, (lq, gt) in zip(range(1, STEPS + 1), batches(photos, np.random.default_rng(0)), strict=False):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            restored = network(lq.to(device))
        loss = F.l1_loss(restored.float(), gt.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    save_weights(network, weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
