"""Writes the drawing and the table of docs/architecture.md anew: `python -m tools.architecture`."""

from pathlib import Path

from tools.architecture.page import rewritten

if __name__ == "__main__":
    root = Path(__file__).parents[2]
    page = root / "docs" / "architecture.md"
    page.write_text(rewritten(page.read_text(), root))
