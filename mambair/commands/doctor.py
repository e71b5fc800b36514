"""`mambair doctor`: what is installed, what works, and the one line that fixes what does not.

It imports PyTorch, and what needs it, only where it looks at them: a broken installation is what it is for.
"""

import argparse
import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from rich.table import Table

import mambair
from mambair.commands.exit_codes import OK, SOME_FAILED, reports_user_errors
from mambair.runtime.log_setup import console
from mambair.weights.sources import cache_folder, shipped_weights

Status = Literal["ok", "note", "bad"]

TRIAL_SECONDS = 300
GIB = 2**30

# Module -> (distribution, oldest version that will do), of those whose compiled parts break now and then.
REQUIRED = {
    "torch": ("torch", (2, 7)),
    "torchvision": ("torchvision", (0, 22)),
    "numpy": ("numpy", (1, 24)),
    "cv2": ("opencv-python-headless", (4,)),
    "numba": ("numba", (0, 57)),
    "safetensors": ("safetensors", (0, 4)),
}

# Distribution -> (extra of mambair that installs it, what for).
EXTRAS = {
    "mamba-ssm": ("mamba-ssm", "the published CUDA scan"),
    "spandrel": ("spandrel", "other architectures: SwinIR, HAT and more"),
    "h5py": ("dnd", "submission files of the DND benchmark"),
    "huggingface_hub": ("hub", "weights from hf:// addresses"),
    "av": ("video", "restoring videos"),
    "gradio": ("demo", "the page to try it"),
    "matplotlib": ("plots", "figures of mambair analyze"),
    "pyiqa": ("metrics", "metrics without ground truth"),
    "onnxruntime": ("export", "ONNX files: written, checked, and restored with"),
    "wandb": ("wandb", "logging to Weights & Biases"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    status: Status
    detail: str
    fix: str = ""
    """The one line that fixes it; empty if nothing is to fix."""


def check_python() -> Iterator[Finding]:
    """Python, and the packages with compiled parts that nothing works without."""
    yield Finding("mambair", "ok", mambair.__version__)
    yield Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for module, (distribution, minimum) in REQUIRED.items():
        yield check_import(module, distribution, minimum)


def check_import(module: str, distribution: str, minimum: tuple[int, ...]) -> Finding:
    """Whether a package can be imported, and is new enough."""
    fix = f"pip install --upgrade '{distribution}>={'.'.join(map(str, minimum))}'"
    try:
        # Not the distribution's version: opencv-python does as well as opencv-python-headless.
        found = str(importlib.import_module(module).__version__)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # Two packages of different builds, torch and torchvision say, are mended by installing both anew.
        reason = (str(error).strip().splitlines() or [""])[0]
        return Finding(distribution, "bad", f"cannot be imported: {type(error).__name__}: {reason}", fix)
    numbers = tuple(int(part) for part in found.split("+")[0].split(".")[: len(minimum)] if part.isdigit())
    return Finding(distribution, "ok", found) if numbers >= minimum else Finding(distribution, "bad", found, fix)


def check_processor() -> Iterator[Finding]:
    """The processor and its memory."""
    import torch

    from mambair.inference.memory import free_memory

    memory = free_memory(torch.device("cpu")) / GIB
    yield Finding(
        "CPU", "ok", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {memory:.1f} GiB memory free"
    )


def check_cuda() -> Iterator[Finding]:
    """The GPUs, or why there are none."""
    import torch

    from mambair.inference.memory import free_memory

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(index)
            memory = free_memory(torch.device("cuda", index)) / GIB
            detail = f"{torch.cuda.get_device_name(index)}, capability {major}.{minor}, {memory:.1f} GiB free"
            yield Finding(f"GPU {index}", "ok", f"{detail}, CUDA {torch.version.cuda}")
    elif torch.version.cuda is None:
        fix = "with an NVIDIA GPU: pip install torch --index-url https://download.pytorch.org/whl/cu128"
        yield Finding("GPU", "note", "this PyTorch is built without CUDA", fix)
    else:
        yield Finding(
            "GPU",
            "note",
            f"PyTorch has CUDA {torch.version.cuda}, but finds no GPU",
            "with a GPU, see whether its driver answers: nvidia-smi",
        )


def check_backends(device: str) -> Iterator[Finding]:
    """Every scan backend: why it cannot run on `device`, or how a tiny scan compares with the reference."""
    from mambair.ops import available_backends, chosen_backend

    yield Finding(f"scan on {device}", "ok", f"'auto' takes '{chosen_backend(device)}'")
    for backend, reason in available_backends(device).items():
        subject = f"scan '{backend}' on {device}"
        if reason is not None:
            yield Finding(subject, "note", f"not available: {reason}")
        elif (device, backend) == ("cpu", "reference"):
            yield Finding(subject, "ok", "what the others are compared with")
        else:
            yield try_backend(subject, backend, device)


def try_backend(subject: str, backend: str, device: str) -> Finding:
    """Run a tiny scan in a process of its own: a broken extension may end the process it is loaded into."""
    code = f"from mambair.commands.backend_trial import report_scan_error; report_scan_error({backend!r}, {device!r})"
    try:
        trial = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(subject, "bad", f"no result within {TRIAL_SECONDS} s", _avoid(device))
    if trial.returncode == 0:
        return Finding(subject, "ok", f"values and gradients within {trial.stdout.strip()} of the reference")
    if trial.stdout.strip():
        return Finding(subject, "bad", f"wrong by {trial.stdout.strip()}", _avoid(device))
    last_line = (trial.stderr.strip().splitlines() or [f"ended with code {trial.returncode}"])[-1]
    return Finding(subject, "bad", last_line, _avoid(device))


def _avoid(device: str) -> str:
    return f"export MAMBAIR_SCAN_BACKEND={'mamba_ssm' if device == 'cuda' else 'portable'}"


def check_extras() -> Iterator[Finding]:
    """Optional packages."""
    for distribution, (extra, purpose) in EXTRAS.items():
        try:
            yield Finding(distribution, "ok", f"{version(distribution)}: {purpose}")
        except PackageNotFoundError:
            yield Finding(distribution, "note", f"not installed: {purpose}", f"pip install 'mambair[{extra}]'")


def check_weights() -> Iterator[Finding]:
    """Weights that are at hand."""
    if shipped := shipped_weights():
        yield Finding("weights", "ok", f"in the package: {', '.join(shipped)}")
    else:
        yield Finding("weights", "note", "none in the package; published ones are in a list", "mambair weights list")
    cached = sorted(path.name for path in cache_folder().glob("*") if path.suffix in (".pth", ".safetensors"))
    if cached:
        yield Finding("weights", "ok", f"in {cache_folder()}: {', '.join(cached)}")


def examine() -> list[Finding]:
    """All findings, in the order of the report; without PyTorch, those that need none."""
    findings = [*check_python()]
    if not any(finding.status == "bad" and finding.subject == "torch" for finding in findings):
        import torch

        findings += [*check_processor(), *check_cuda(), *check_backends("cpu")]
        accelerators = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}
        for device, backend in accelerators.items():
            if backend.is_available():
                findings.extend(check_backends(device))
    return [*findings, *check_extras(), *check_weights()]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return argparse.ArgumentParser("mambair doctor", description="What is installed, what works, how to fix the rest.")


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; returns 0, or 1 if something that is installed does not work."""
    build_parser().parse_args(argv)
    table = Table("", "what", "found", "fix", show_edge=False)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]--[/]", "bad": "[red]BAD[/]"}
    findings = examine()
    for finding in findings:
        texts = (text.replace("[", r"\[") for text in (finding.subject, finding.detail, finding.fix))
        table.add_row(marks[finding.status], *texts)
    console.print(table)
    broken = [finding for finding in findings if finding.status == "bad"]
    problems = f"{len(broken)} problem(s); the last column says what mends each"
    console.print(problems if broken else "everything that is installed works")
    return SOME_FAILED if broken else OK
