"""Load the page's templates and static files. `silo_interaction.page.views` prepares what the templates show."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

_PACKAGE = "silo_interaction.page"
_TEMPLATES = ("notice.html", "pair.html", "question.html", "queue.html")
STATIC_TYPES = {
    "icon.svg": "image/svg+xml",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}


class Renderer:
    """Renders the templates. It escapes everything, and compiles all templates before the first request."""

    def __init__(self, product: str, code_from: str = "") -> None:
        """Take the name of the program that asks, and where it shows codes (with commands between backquotes)."""
        self._environment = Environment(
            loader=PackageLoader(_PACKAGE),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals["product"] = product
        self._environment.globals["code_from"] = [(part, bool(at % 2)) for at, part in enumerate(code_from.split("`"))]
        self._templates = {name: self._environment.get_template(name) for name in _TEMPLATES}

    def html(self, template: str, **context: object) -> str:
        """Return the HTML of a page."""
        return self._templates[template].render(context)


def static_files() -> dict[str, bytes]:
    """Return the contents of the static files by name; they are few and small, so they are kept in memory."""
    folder = resources.files(_PACKAGE) / "static"
    return {name: (folder / name).read_bytes() for name in STATIC_TYPES}
