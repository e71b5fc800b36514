"""How soon commands speak: PyTorch takes seconds to import, and help, lists and mistakes need none of it."""

import subprocess
import sys

import pytest

WITHOUT_TORCH = """
import sys
from mambair.cli import main
try:
    code = main({arguments})
except SystemExit as error:
    code = error.code
assert "torch" not in sys.modules, "PyTorch was imported"
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["restore", "--help"], 0),
        (["restore", "gone.png", "--weights", "gone.pth"], 1),
        (["restore", ".", "--task", "denoise", "--noise", "70"], 2),
        (["restore", "photo.png", "--noise", "25"], 2),
        (["restore", "photo.png", "--weights", "gone.pth"], 2),
        (["restore", "photo.png", "--tile", "0"], 2),
        (["weights", "list"], 0),
        (["weights", "--help"], 0),
        (["doctor", "--help"], 0),
        (["demo", "--help"], 0),
    ],
)
def test_help_lists_and_mistakes_come_without_pytorch(arguments: list[str], code: int, tmp_path) -> None:
    (tmp_path / "photo.png").touch()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(arguments=arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr


def test_restoring_needs_no_compiler() -> None:
    """torch._dynamo, which decorators of torch.compiler import, takes 1.5 s."""
    code = "import sys, mambair.ops; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
