"""Compiling Triton kernels for GPUs that are not there."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


def compiled(
    function: Any, constants: Mapping[str, Any], types: Mapping[str, str], capability: int, warps: int, stages: int = 1
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
    options = {"num_warps": warps, "num_stages": stages}
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return {**kernel.asm, "shared memory": kernel.metadata.shared}


def stack_bytes(cubin: bytes, folder: Path) -> int:
    """Bytes of memory that a thread has for what its registers do not hold; `folder`: for a file."""
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    tool = Path(triton.backends.nvidia.__path__[0]) / "bin" / "cuobjdump"
    run = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True)
    found = re.search(r"STACK:(\d+)", run.stdout + run.stderr)
    assert found is not None, run.stdout
    return int(found[1])
