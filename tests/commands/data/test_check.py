from pathlib import Path

import pytest

from mambair.commands.data import main

TEMPLATE = """
name: checked
model_type: MambaIRModel
scale: 2
num_gpu: 0
datasets:
  train:
    type: PairedImageDataset
    dataroot_gt: {root}/HR
    dataroot_lq: {root}/LR_bicubic/X2
    filename_tmpl: "{{}}x2"
    gt_size: 32
    batch_size_per_gpu: 1
  val:
    name: photos
    type: SingleImageDataset
    dataroot_lq: {root}/HR
network_g: {{type: MambaIR, upscale: 2}}
train:
  total_iter: 1
  optim_g: {{type: Adam, lr: 1e-4}}
  pixel_opt: {{type: L1Loss}}
"""


@pytest.fixture
def option_file(image_folder, tmp_path) -> Path:
    folder = image_folder("HR", ("a.png", "b.png", "c.png"))
    assert main(["lr", str(folder), "--scale", "2", "--workers", "1"]) == 0
    path = tmp_path / "checked.yml"
    path.write_text(TEMPLATE.format(root=tmp_path))
    return path


def test_good_data_gives_a_table(option_file, capsys):
    capsys.readouterr()
    assert main(["check", "-opt", str(option_file)]) == 0
    printed = capsys.readouterr().out
    assert "datasets.train" in printed and "photos" in printed and "118x130" in printed
    assert "all images are there" in printed


def test_everything_wrong_is_listed_at_once(option_file, tmp_path, capsys):
    lr = tmp_path / "LR_bicubic" / "X2"
    (lr / "ax2.png").unlink()
    content = (lr / "bx2.png").read_bytes()
    (lr / "bx2.png").write_bytes(content[:-200])
    (lr / "cx2.png").write_bytes((tmp_path / "HR" / "c.png").read_bytes())
    assert main(["check", "-opt", str(option_file)]) == 2
    printed = capsys.readouterr().out
    assert "no partner 'ax2'" in printed
    (bad,) = [line for line in printed.splitlines() if "bx2.png" in line]
    assert "truncated" in bad or "damaged" in bad
    assert "cx2.png" in printed and "do not fit" in printed


def test_headers_only_does_not_see_damaged_pixels(option_file, tmp_path):
    path = tmp_path / "LR_bicubic" / "X2" / "bx2.png"
    path.write_bytes(path.read_bytes()[:-200])
    assert main(["check", "-opt", str(option_file), "--headers-only"]) == 0


def test_all_missing_folders_are_listed_at_once(option_file, tmp_path, capsys):
    (tmp_path / "HR").rename(tmp_path / "elsewhere")
    (tmp_path / "LR_bicubic").rename(tmp_path / "there")
    assert main(["check", "-opt", str(option_file)]) == 2
    printed = capsys.readouterr().out
    assert "comparing" not in printed  # nothing is there to compare
    for key in ("datasets.train.dataroot_gt", "datasets.train.dataroot_lq", "datasets.val.dataroot_lq"):
        assert f"{key}: {tmp_path}" in printed
    assert "3 problems" in printed
