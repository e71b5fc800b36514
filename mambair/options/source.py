"""Where options come from: the file, the line of every key, and what was noticed while reading it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class OptionSource:
    """Names the place of a key in messages."""

    file: str = ""
    """The option file as the user wrote its path."""
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    """Key path -> line number, from 1."""
    forced: dict[tuple[str, ...], str] = field(default_factory=dict)
    """Key path -> the `--force_yml` argument that set it."""
    warnings: tuple[str, ...] = ()
    """What the log should mention once it exists, such as ignored keys of other programs."""

    def where(self, key: str) -> str:
        """`options/x.yml:12: train.optim_g`, or `--force_yml train:x=1: train.x` where the command line set it.

        A key the file does not have is blamed on the innermost section that it does have.
        """
        path = tuple(key.split(".")) if key else ()
        place = self._place(path)
        return ": ".join(part for part in (place, key) if part)

    def line(self, key: str) -> int:
        """Line of the key, or of the innermost section around it that the file has; 0 for neither."""
        path = tuple(key.split("."))
        return next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 0)

    def _place(self, path: tuple[str, ...]) -> str:
        if path not in self.lines:  # a block that --force_yml made on the way to its key
            for key, argument in self.forced.items():
                if path and key[: len(path)] == path:
                    return f"--force_yml {argument}"
        for length in range(len(path), 0, -1):
            if path[:length] in self.forced:
                return f"--force_yml {self.forced[path[:length]]}"
            if path[:length] in self.lines:
                return f"{self.file}:{self.lines[path[:length]]}"
        return self.file
