"""Pairs of images that may show the same photo, out of all pairs, without comparing all pairs.

Locality-sensitive hashing of features: sixteen times, 24 of the 256 bits are a key; features of equal keys are
neighbours after sorting. Neighbours whose bits differ little vote for their images, and only votes that agree on
rotation and change of size count together (weak geometric consistency: Jegou, Douze and Schmid, 2008).
"""

from collections.abc import Sequence

import numpy as np

from mambair.data.likeness.fingerprints import Fingerprint

TABLES = 16
KEY_BITS = 24
NEIGHBOURS = 4
"""How far behind a feature, in the order of the keys, it is compared with others."""
LARGEST_DIFFERENCE = 40
"""Bits of 256 in which features of the same thing differ at most."""
VOTES = 4
MOST_FEATURES = 3_000_000
"""Beyond so many in all, each image takes part with fewer, which finds fewer crops and needs no more memory."""
ANGLE_BINS = 6
SIZE_BINS = 64

_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def candidate_pairs(prints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Indices (i, j), i < j, of images worth a closer look, those with the most votes first."""
    if not prints:
        return []
    limit = max(40, MOST_FEATURES // len(prints))
    owners = np.concatenate([np.full(len(each.bits[:limit]), index, np.int32) for index, each in enumerate(prints)])
    bits = np.concatenate([each.bits[:limit] for each in prints])
    matches = _matches(owners, bits)
    if not len(matches):
        return []
    first, second = matches.T
    angles = np.concatenate([each.angles[:limit] for each in prints])
    sizes = np.concatenate([each.log_sizes[:limit] for each in prints])
    turned = np.round(((angles[second] - angles[first]) % 360) * (2 * ANGLE_BINS / 360)).astype(np.int64)
    resized = np.round((sizes[second] - sizes[first]) * 2).astype(np.int64) + SIZE_BINS
    pairs = owners[first].astype(np.int64) * len(prints) + owners[second]
    votes: dict[int, int] = {}
    # Bins of twice the resolution's width, at both offsets: votes that agree always meet in one of them.
    for turn in (0, 1):
        for size in (0, 1):
            place = ((turned + turn) % (2 * ANGLE_BINS) // 2) * SIZE_BINS + (resized + size) // 2
            keys, counts = np.unique(pairs * (ANGLE_BINS * SIZE_BINS) + place, return_counts=True)
            enough = counts >= VOTES
            for pair, count in zip(keys[enough] // (ANGLE_BINS * SIZE_BINS), counts[enough], strict=True):
                votes[int(pair)] = max(votes.get(int(pair), 0), int(count))
    ordered = sorted(votes, key=lambda pair: (-votes[pair], pair))
    return [divmod(pair, len(prints)) for pair in ordered]


def _matches(owners: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Pairs of features of different images that look alike: int (M, 2), the image of smaller index first."""
    rng = np.random.default_rng(0)
    single = np.unpackbits(bits, axis=1)
    found = [np.zeros((0, 2), np.int64)]
    for _ in range(TABLES):
        chosen = rng.choice(single.shape[1], KEY_BITS, replace=False)
        keys = single[:, chosen].astype(np.uint32) @ (1 << np.arange(KEY_BITS, dtype=np.uint32))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for distance in range(1, NEIGHBOURS + 1):
            same = np.nonzero(keys[distance:] == keys[:-distance])[0]
            first, second = order[same], order[same + distance]
            other = owners[first] != owners[second]
            first, second = first[other], second[other]
            near = _ONES[bits[first] ^ bits[second]].sum(axis=1) <= LARGEST_DIFFERENCE
            pair = np.stack([first[near], second[near]], axis=1)
            found.append(np.sort(pair, axis=1))  # features stand in the order of their images
    return np.unique(np.concatenate(found), axis=0)
