"""Links between pages lead somewhere, also to headings; and no page names what has no business in a repository."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_LINK = re.compile(r"(?<!\!)\[[^\]\[]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def _anchor(heading: str) -> str:
    """As GitHub makes one: lower case, signs but `-` and `_` gone, blanks to hyphens."""
    text = re.sub(r"[`*]", "", heading).lower()
    return re.sub(r" ", "-", re.sub(r"[^\w\- ]", "", text))


def test_every_relative_link_leads_to_a_file_and_a_heading(pages, repository):
    broken = []
    for name, text in pages.items():
        for target in _LINK.findall(_CODE.sub("", text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (repository / PurePosixPath(name).parent / path).resolve() if path else repository / name
            if not file.is_relative_to(repository) or not file.exists():
                broken.append(f"{name}: {target}")
            elif anchor and anchor not in {_anchor(found) for found in _HEADING.findall(file.read_text())}:
                broken.append(f"{name}: {target} (no such heading)")
    assert broken == []


def test_the_index_links_every_page(pages, repository):
    linked = {
        (repository / "docs" / target.partition("#")[0]).resolve() for target in _LINK.findall(pages["docs/README.md"])
    }
    for folder in ("docs/adr",):
        linked |= {(repository / folder / target).resolve() for target in _LINK.findall(pages[f"{folder}/README.md"])}
    missing = [
        name
        for name in pages
        if name.startswith("docs/") and name != "docs/README.md" and (repository / name).resolve() not in linked
        and not name.startswith("docs/benchmarks/")
    ]  # fmt: skip
    assert missing == []


def test_no_page_names_a_package_registry_or_a_path_of_somebodys_machine(committed_or_new, repository):
    # Spelt in parts, so that this file does not hold what it looks for.
    refused = re.compile(
        "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "registry" + r"\.npm", r"/ro" + "ot/", r"/wo" + "rk/"])
    )
    found = [
        f"{name}:{number}"
        for name in committed_or_new
        for number, line in enumerate((repository / name).read_text(encoding="utf-8").splitlines(), start=1)
        if refused.search(line)
    ]
    assert found == []
