"""The weights that the paper's authors published, with the figures of the paper's tables."""

from dataclasses import dataclass

PROJECT_PAGE = "https://github.com/csguoh/MambaIR"
"""The published project; its README links every file below."""
RELEASE = f"{PROJECT_PAGE}/releases/download/v1.0"
"""Where MambaIRv2's files lie."""
HUB_REPOSITORY = "https://huggingface.co/cguoh/MambaIR/resolve/main"
"""And where else."""


@dataclass(frozen=True)
class PublishedWeights:
    """One published file."""

    task: str
    """What it was trained for."""
    scale: int
    """Sides of the result over sides of the input."""
    figures: str
    """PSNR in dB and SSIM that the paper reports, or `page:` and what only the project's page reports."""
    urls: tuple[str, ...]
    """Addresses that answer with the file itself, to be tried in this order."""
    file_name: str
    """Name under which `mambair weights get` keeps it."""
    purpose: tuple[str, int | None]
    """(sr, denoise, jpeg or photo; sigma or quality, None where that says nothing): what --task and --noise ask for."""
    sha256: str | None = None
    """None: the project publishes no checksums."""


def _drive(file_id: str) -> tuple[str, ...]:
    """The address of a file on Google Drive, by its id there."""
    return (f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t",)


def _sr(scale: int, figures: str, drive_id: str, light: bool = False) -> PublishedWeights:
    name = f"{'lightSR' if light else 'SR'}_x{scale}.pth"
    task = "lightweight SR" if light else "classic SR"
    return PublishedWeights(task, scale, figures, _drive(drive_id), name, ("sr", None))


def _denoising(sigma: int, figures: str, drive_id: str) -> PublishedWeights:
    task, name = f"colour denoising, sigma {sigma}", f"ColorDN_{sigma}.pth"
    return PublishedWeights(task, 1, figures, _drive(drive_id), name, ("denoise", sigma))


def _jpeg(quality: int, figures: str, drive_id: str) -> PublishedWeights:
    task, name = f"JPEG artifacts, quality {quality} (gray)", f"CAR_q{quality}.pth"
    return PublishedWeights(task, 1, figures, _drive(drive_id), name, ("jpeg", quality))


def _version_2(
    task: str, file_name: str, purpose: tuple[str, int | None], figures: str, scale: int = 1
) -> PublishedWeights:
    urls = tuple(f"{place}/{file_name}" for place in (RELEASE, HUB_REPOSITORY))
    return PublishedWeights(f"{task}, v2", scale, figures or "in the paper of v2", urls, file_name, purpose)


def _version_2_sr() -> dict[str, PublishedWeights]:
    """MambaIRv2 for super-resolution: light, small, base and large."""
    urban100 = {
        "light": ("33.26/0.9378", "29.01/0.8689", "26.82/0.8079"),
        "Base": ("34.49/0.9468", "30.28/0.8905", "27.89/0.8344"),
    }
    found = {}
    for size, name in (("light", "lightSR"), ("Small", "SRSmall"), ("Base", "SR"), ("Large", "SRLarge")):
        for place, scale in enumerate((2, 3, 4)):
            kind = "lightSR" if size == "light" else f"classicSR_{size}"
            task = "lightweight SR" if size == "light" else f"classic SR, {size.lower()}"
            figures = f"Urban100 {urban100[size][place]}" if size in urban100 else ""
            file_name = f"mambairv2_{kind}_x{scale}.pth"
            found[f"v2_{name}_x{scale}"] = _version_2(task, file_name, ("sr", None), figures, scale)
    return found


# Figures: the paper's Tables 3 to 6; those of JPEG artifact removal are in no table of the paper itself.
PUBLISHED: dict[str, PublishedWeights] = {
    "SR_x2": _sr(2, "Set5 38.57/0.9627, Urban100 34.15/0.9446", "11Kiy_0hmMyDjMvW7MmbUT6tO9n5JrDeB"),
    "SR_x3": _sr(3, "Set5 35.08/0.9323, Urban100 29.93/0.8841", "1u0VcESEduHu-GBCC6vDGQt9qXSX2AKdn"),
    "SR_x4": _sr(4, "Set5 33.03/0.9046, Urban100 27.68/0.8287", "1YXggWIsi-auCjmPQDvW9FjB1f9fZK0hN"),
    "lightSR_x2": _sr(2, "Set5 38.16/0.9610, Urban100 32.92/0.9356", "1eWovtH7YvEn2Bm9wBK5REOhbIgapsLxM", light=True),
    "lightSR_x3": _sr(3, "Set5 34.72/0.9296, Urban100 29.00/0.8689", "1JoC3fwah5Xo0Z1s8DnmXQlsctKQjs1Hx", light=True),
    "lightSR_x4": _sr(4, "Set5 32.51/0.8993, Urban100 26.75/0.8051", "1jIz579k_16569HFVF-76KgqAbJaJoDgF", light=True),
    "RealSR_x4": PublishedWeights(
        "real-world SR",
        4,
        "no ground truth",
        _drive("16BBSRz1HellkTgypu4wu3CHA20CLgpSY"),
        "RealSR_x4.pth",
        ("photo", None),
    ),
    "ColorDN_15": _denoising(15, "Urban100 35.37, McMaster 35.70", "1w5Y502iKSkqhP-OpleppPmk6PAnvWPdr"),
    "ColorDN_25": _denoising(25, "Urban100 33.21, McMaster 33.43", "1qSPy6B7Jvi7PDHM1fl8Q88kn7ckwtusK"),
    "ColorDN_50": _denoising(50, "Urban100 30.30, McMaster 30.35", "1O2o9xPruX8MtUL4qmuxV4Vfsef8L_jLM"),
    "RealDN": PublishedWeights(
        "real denoising",
        1,
        "SIDD 39.89/0.960, DND 40.04/0.956",
        _drive("1iMcapgaT7VPfR2UFYy21KbX3rUHFJCU8"),
        "RealDN.pth",
        ("denoise", None),
    ),
    "CAR_q10": _jpeg(10, "page: Classic5 30.27/0.8256", "1kncutEIAq9MvD8w6If6VZD7hkRkRcXWr"),
    "CAR_q30": _jpeg(30, "page: Classic5 33.74/0.8965", "1hIIJQR59XmizMapxLOWtihhF3R7prYu3"),
    "CAR_q40": _jpeg(40, "page: Classic5 34.53/0.9084", "1XbuIsLuCtwV78cVMYLuWXm-hNQDsbn6M"),
    **_version_2_sr(),
    "v2_ColorDN_15": _version_2(
        "colour denoising, sigma 15", "mambairv2_ColorDN_15.pth", ("denoise", 15), "Urban100 35.42"
    ),
    **{
        f"v2_CAR_q{quality}": _version_2(
            f"JPEG artifacts, quality {quality} (gray)",
            f"mambairv2_jpeg_q{quality}.pth",
            ("jpeg", quality),
            f"Classic5 {figures}",
        )
        for quality, figures in ((10, "30.37/0.8269"), (30, "33.81/0.8970"), (40, "34.64/0.9093"))
    },
}
