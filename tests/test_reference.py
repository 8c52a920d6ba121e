"""The page of reference says what the registry says."""

from pathlib import Path

import pytest

from slimrank.config import FOLDERS, entries
from slimrank.reference import TITLES, reference

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"


def test_the_page_is_that_of_the_registry() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "python -m slimrank.reference > docs/reference.md"


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_entry_and_every_key_of_it_is_there(kind: str) -> None:
    titles = {**TITLES, "deployed": TITLES["deployment target"]}  # which has the same configs
    chapter = reference().split(f"\n## {titles[kind]}\n")[1].split("\n## ")[0]
    for name, entry in entries(kind).items():
        section = chapter.split(f"\n### `{name}`\n")[1].split("\n### ")[0]
        assert entry.summary in section
        for key in set(entry.config.model_fields) - {"name"}:
            assert f"\n| `{key}` | " in section
