"""HTML pages from templates: their environment, style, script and content security policy."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import jinja2

REPORT = "bench.report.page"


def environment(*packages: str, **options: Any) -> jinja2.Environment:
    """Return an environment for templates.

    Args:
        packages: packages whose templates are found before the report's.
        options: options of :class:`jinja2.Environment`, such as ``autoescape``.
    """
    return jinja2.Environment(
        loader=_loader(*packages),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )


def style_and_script(*packages: str) -> Mapping[str, str]:
    """Return the styles and scripts of packages, and their names in a content security policy.

    Args:
        packages: for each package, the name of the style and script next to its templates is its
            last part: ``bench.report.site`` has ``site.css`` and ``site.js``. The report's come
            first.

    Returns:
        The variables ``style``, ``script``, ``style_hash`` and ``script_hash`` of a page.
    """
    names = ["report", *(package.rpartition(".")[2] for package in packages)]
    style, script = (
        "\n".join(_asset(f"{n}.{kind}", *packages) for n in names) for kind in ("css", "js")
    )
    return {
        "style": style,
        "script": script,
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
    }


def _loader(*packages: str) -> jinja2.BaseLoader:
    return jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in (*packages, REPORT)])


def _asset(name: str, *packages: str) -> str:
    return _loader(*packages).get_source(jinja2.Environment(), name)[0]


def _csp_hash(text: str) -> str:
    """Return the name of an inline script or style in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
