"""Tables in Markdown."""

from collections.abc import Collection, Sequence


def markdown_table(lines: Sequence[Sequence[str]], words: Collection[int] = (0,)) -> str:
    """A table of a header and rows. Columns numbered in `words` stand to the left, those of figures to the right."""
    ruler = ["---" if column in words else "---:" for column in range(len(lines[0]))]
    cells = [[escape_markdown(cell) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in (cells[0], ruler, *cells[1:]))


def escape_markdown(text: str) -> str:
    """Text that does not end the cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
