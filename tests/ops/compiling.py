"""Compiling Triton kernels for GPUs that are not there."""

from collections.abc import Mapping
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


def compiled(
    function: Any, constants: Mapping[str, Any], types: Mapping[str, str], capability: int, warps: int
) -> dict[str, Any]:
    """Compile `function` for a compute capability (90 for 9.0), as if all sizes were multiples of 16.

    `constants`: its compile-time arguments; `types` by name: pointers are "*fp32" and other arguments 32-bit
    integers where they are not named. Returns the stages, "ptx" and "cubin" among them, and
    the bytes of "shared memory".
    """
    signature = {
        name: "constexpr" if name in constants else types.get(name, "*fp32" if name.endswith("_ptr") else "i32")
        for name in function.arg_names
    }
    places = {name: index for index, name in enumerate(function.arg_names)}
    general = {name for name, kind in signature.items() if kind in ("constexpr", "fp32")}
    known = [each.name for each in function.params if each.name not in general and not each.do_not_specialize]
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(places[name],): value for name, value in constants.items()},
        attrs={(places[name],): [["tt.divisibility", 16]] for name in known},
    )
    options = {"num_warps": warps, "num_stages": 1}
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return {**kernel.asm, "shared memory": kernel.metadata.shared}
