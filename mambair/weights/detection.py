"""Reading a network's options off its weights' names and shapes.

What shapes cannot tell stays at its default: img_range, drop rates, use_checkpoint, routing; of all `mlp_ratio` and
`compress_ratio` that give the same shapes, the roundest is taken.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]

LOCAL_BLOCK_KEYS = {
    "light_cab": "conv_blk.cab.5.attention.1.weight",
    "cab": "conv_blk.cab.3.attention.1.weight",
    "ca": "conv_blk.attention.1.weight",
    "mlp": "conv_blk.fc1.weight",
}
"""A key that only this kind of local block has."""
UNET_STAGES = ("encoder_level1", "encoder_level2", "encoder_level3", "latent", "refinement")


def is_mambair(state: State) -> bool:
    """Whether these are a MambaIR's weights."""
    return "layers.0.residual_group.blocks.0.self_attention.A_logs" in state and "conv_first.weight" in state


def is_mambair_unet(state: State) -> bool:
    """Whether these are a MambaIRUNet's weights."""
    return "encoder_level1.0.self_attention.A_logs" in state and "patch_embed.proj.weight" in state


def is_mambair_v2(state: State) -> bool:
    """Whether these are a MambaIRv2's weights, of either type."""
    return any(".assm." in key for key in state) and any(".win_mhsa." in key for key in state)


def mambair_options(state: State) -> dict[str, Any]:
    """Options for `build_network` from the weights of a MambaIR. Raises KeyError if one that is needed is missing."""
    embed_dim, in_chans = state["conv_first.weight"].shape[:2]
    groups = count(state, r"layers\.(\d+)\.residual_group\.")
    depths = [count(state, rf"layers\.{group}\.residual_group\.blocks\.(\d+)\.") for group in range(groups)]
    options: dict[str, Any] = {"type": "MambaIR", "upscale": 1, "in_chans": in_chans, "embed_dim": embed_dim}
    options |= {"depths": depths, **block_options(state, ["layers.0.residual_group.blocks.0."])}
    options |= trunk_options(state, in_chans)
    usual = "light_cab" if options["upsampler"] == "pixelshuffledirect" else "cab"
    if usual == options["local_block"]:
        del options["local_block"]
    return options


def trunk_options(state: State, in_chans: int) -> dict[str, Any]:
    """Options that MambaIR and MambaIRv2 share: {patch_norm, resi_connection, upsampler, and upscale if not 1}."""
    options: dict[str, Any] = {"patch_norm": "patch_embed.norm.weight" in state}
    options |= {"resi_connection": "3conv" if "conv_after_body.0.weight" in state else "1conv"}
    if "conv_up1.weight" in state:
        return options | {"upsampler": "nearest+conv", "upscale": 4}
    if "conv_before_upsample.0.weight" in state:
        steps = [value.shape for key, value in state.items() if re.fullmatch(r"upsample\.\d+\.weight", key)]
        scale = math.prod(math.isqrt(out // inp) for out, inp, *_ in steps)
        return options | {"upsampler": "pixelshuffle", "upscale": scale}
    if "upsample.0.weight" in state:
        out_channels = state["upsample.0.weight"].shape[0]
        return options | {"upsampler": "pixelshuffledirect", "upscale": math.isqrt(out_channels // in_chans)}
    return options | {"upsampler": ""}


def mambair_v2_options(state: State) -> dict[str, Any]:
    """Options for `build_network` from the weights of a MambaIRv2 or MambaIRv2Light.

    Raises KeyError if one that is needed is missing, and ValueError for a table of relative positions of no window.
    """
    embed_dim, in_chans = state["conv_first.weight"].shape[:2]
    groups = count(state, r"layers\.(\d+)\.residual_group\.")
    depths = [count(state, rf"layers\.{group}\.residual_group\.layers\.(\d+)\.") for group in range(groups)]
    first = "layers.0.residual_group.layers.0."
    tables = [
        state[f"layers.{group}.residual_group.layers.0.win_mhsa.relative_position_bias_table"]
        for group in range(groups)
    ]
    is_light = f"{first}convffn1.sg.conv.weight" in state
    kernel = state[first + ("convffn1.sg.conv.weight" if is_light else "convffn1.dwconv.depthwise_conv.0.weight")]
    options: dict[str, Any] = {"type": "MambaIRv2Light" if is_light else "MambaIRv2"}
    options |= {"upscale": 1, "in_chans": in_chans, "embed_dim": embed_dim, "depths": depths}
    options |= {"num_heads": [table.shape[1] for table in tables], "window_size": window_size_of(tables[0])}
    options |= {"d_state": state[first + "assm.selectiveScan.A_logs"].shape[1]}
    options |= {"inner_rank": state[first + "embeddingA.weight"].shape[0]}
    options |= {"num_tokens": state[first + "assm.embeddingB.weight"].shape[0]}
    options |= {"convffn_kernel_size": kernel.shape[-1]}
    options |= {"mlp_ratio": expansion_ratio([embed_dim], [state[first + "assm.out_norm.weight"].shape[0]])}
    options |= trunk_options(state, in_chans)
    if f"{first}wqkv.bias" not in state:
        options["qkv_bias"] = False
    return options


def window_size_of(table: Tensor) -> int:
    """The window size w of a ((2w - 1)^2, heads) table of relative positions. Raises ValueError if none fits."""
    side = math.isqrt(table.shape[0])
    if side * side != table.shape[0] or side % 2 == 0:
        raise ValueError(f"relative_position_bias_table has {table.shape[0]} rows, which no window_size gives")
    return (side + 1) // 2


def unet_options(state: State) -> dict[str, Any]:
    """Options for `build_network` from the weights of a MambaIRUNet. Raises KeyError if one is missing."""
    dim, inp_channels = state["patch_embed.proj.weight"].shape[:2]
    *num_blocks, refinement = (count(state, rf"{stage}\.(\d+)\.") for stage in UNET_STAGES)
    options: dict[str, Any] = {"type": "MambaIRUNet", "inp_channels": inp_channels}
    options |= {"out_channels": state["output.weight"].shape[0], "dim": dim, "num_blocks": num_blocks}
    options |= {"num_refinement_blocks": refinement, **block_options(state, [f"{s}.0." for s in UNET_STAGES[:4]])}
    options |= {"bias": "output.bias" in state, "dual_pixel_task": "skip_conv.weight" in state}
    if options["local_block"] == "cab":
        del options["local_block"]
    return options


def block_options(state: State, prefixes: Sequence[str]) -> dict[str, Any]:
    """Options of RSSBs: {d_state, mlp_ratio, local_block, and compress_ratio, scan_directions if not usual}.

    `prefixes` name blocks of every width in the network, since a ratio must give the right size at each.
    """
    scan = prefixes[0] + "self_attention."
    widths = [state[prefix + "skip_scale"].shape[0] for prefix in prefixes]
    inner = [state[prefix + "self_attention.out_norm.weight"].shape[0] for prefix in prefixes]
    kinds = [kind for kind, key in LOCAL_BLOCK_KEYS.items() if prefixes[0] + key in state]
    options: dict[str, Any] = {
        "d_state": state[scan + "A_logs"].shape[1],
        "mlp_ratio": expansion_ratio(widths, inner),
        "local_block": kinds[0] if kinds else "none",
    }
    directions = state[scan + "x_proj_weight"].shape[0]
    if directions != 4:
        options["scan_directions"] = directions
    if options["local_block"] == "cab":
        ratio = division_ratio(widths, [state[prefix + "conv_blk.cab.0.weight"].shape[0] for prefix in prefixes])
        if ratio != 3:
            options["compress_ratio"] = ratio
    return options


def expansion_ratio(widths: Sequence[int], inner: Sequence[int]) -> float:
    """The number with the fewest decimals for which int(number * width) is the inner size at every width."""
    for decimals in range(1, 8):
        unit = 10**-decimals
        steps = inner[-1] / widths[-1] / unit
        for step in (math.floor(steps), math.ceil(steps)):
            ratio = round(step * unit, decimals)
            if all(int(ratio * width) == size for width, size in zip(widths, inner, strict=True)):
                return ratio
    raise KeyError(f"no expansion factor takes {list(widths)} channels to {list(inner)}")


def division_ratio(widths: Sequence[int], hidden: Sequence[int]) -> int:
    """The CAB's compress_ratio: an integer r with width // r = hidden at every width; 3, the usual, if it fits."""
    for ratio in (3, *range(1, max(widths) + 1)):
        if all(width // ratio == size for width, size in zip(widths, hidden, strict=True)):
            return ratio
    raise KeyError(f"no compress_ratio takes {list(widths)} channels to {list(hidden)}")


def count(state: State, pattern: str) -> int:
    """One more than the largest number that `pattern`'s group takes at the start of a key; 0 if none does."""
    return max((int(found[1]) + 1 for key in state if (found := re.match(pattern, key))), default=0)


def describe(options: Mapping[str, Any]) -> str:
    """A network in words: 'MambaIR light SR x3 (embed_dim 60, depths 6 6 6 6, d_state 10)'."""
    if options["type"] == "MambaIRUNet":
        return f"MambaIRUNet (dim {options['dim']}, num_blocks {' '.join(map(str, options['num_blocks']))})"
    if options["type"] not in ("MambaIR", "MambaIRv2", "MambaIRv2Light"):
        return str(options["type"])
    size = f"embed_dim {options['embed_dim']}, depths {' '.join(map(str, options['depths']))}"
    size += f", d_state {options['d_state']}"
    if options["type"] != "MambaIR":
        sizes = ("num_heads", "window_size", "inner_rank", "num_tokens")
        values = ((name, options[name]) for name in sizes)
        size += "".join(f", {key} {' '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in values)
    tasks = {"pixelshuffle": "SR", "pixelshuffledirect": "light SR", "nearest+conv": "real-world SR"}
    if options["upsampler"] in tasks:
        task = f"{tasks[options['upsampler']]} x{options['upscale']}"
    else:
        task = "gray restoration" if options["in_chans"] == 1 else "colour restoration"
    return f"{options['type']} {task} ({size})"
