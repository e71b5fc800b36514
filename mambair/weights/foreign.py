"""Names for the weights of other networks, so that a wrong file is called what it is."""

import re
from collections.abc import Iterable

SIGNATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("HAT", (r"\.overlap_attn\.", r"\.conv_block\.cab\.")),
    ("SRFormer", (r"\.attn\.aligned_relative_position_index$",)),
    ("Swin2SR", (r"^layers\.0\.residual_group\.blocks\.0\.attn\.logit_scale$",)),
    ("SwinIR", (r"^layers\.0\.residual_group\.blocks\.0\.attn\.relative_position_bias_table$",)),
    ("Restormer", (r"^encoder_level1\.0\.attn\.temperature$",)),
    ("NAFNet", (r"^intro\.weight$", r"^middle_blks\.0\.")),
    ("RCAN", (r"^body\.0\.body\.0\.body\.3\.conv_du\.|^body\.0\.residual_group\.0\.rcab\.",)),
    ("Real-ESRGAN or ESRGAN (RRDBNet)", (r"^(body|RRDB_trunk)\.0\.(rdb|RDB)1\.conv1\.|^model\.1\.sub\.0\.RDB1\.",)),
    ("a Real-ESRGAN discriminator (UNetDiscriminatorSN)", (r"^conv1\.weight_orig$", r"^conv9\.weight$")),
    ("EDSR", (r"^body\.0\.(conv1|body\.0)\.weight$", r"^(conv_first|head\.0)\.weight$")),
    ("Real-ESRGAN compact (SRVGGNetCompact)", (r"^body\.0\.weight$", r"^body\.1\.weight$", r"^body\.2\.weight$")),
    ("DRUNet", (r"^m_head\.weight$", r"^m_down1\.0\.res\.0\.weight$")),
    ("SCUNet", (r"^m_head\.0\.weight$", r"^m_body\.0\.trans_block\.")),
    ("VGG", (r"^features\.0\.weight$", r"^classifier\.0\.weight$")),
)
"""(Name, patterns that must all occur among the keys); the first that fits is taken."""


def foreign_name(keys: Iterable[str]) -> str | None:
    """The name of the network whose state dict has these keys, or None for one that is not in the table."""
    lines = "\n".join(keys)
    for name, patterns in SIGNATURES:
        if all(re.search(pattern, lines, re.MULTILINE) for pattern in patterns):
            return name
    return None
