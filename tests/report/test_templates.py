"""The templates of the page: what travels with the package, and what may skip the escaping."""

import ast
import fnmatch
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import bigearthnet_cbir
from bigearthnet_cbir.report.render import environment

PACKAGE = Path(bigearthnet_cbir.__file__).parent
TEMPLATES = sorted((PACKAGE / "report" / "templates").glob("*.j2"))


def test_only_our_style_sheet_and_script_are_not_escaped() -> None:
    assert len(TEMPLATES) >= 8
    found = [match for path in TEMPLATES for match in re.findall(r"\{\{[^}]*\bsafe\b[^}]*\}\}", path.read_text())]
    # The style sheet stands in the report and in the page of a query, which has no script.
    assert sorted(found) == ["{{ script | safe }}", "{{ style | safe }}", "{{ style | safe }}"]
    assert not [path for path in TEMPLATES if "autoescape" in path.read_text()]
    assert not [path for path in PACKAGE.joinpath("report").glob("*.py") if "Markup" in path.read_text()]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_compile(path: Path) -> None:
    environment().get_template(path.name)


def test_a_value_that_a_view_lacks_is_refused() -> None:
    with pytest.raises(UndefinedError, match="caption"):
        environment().get_template("macros.html.j2").module.table(object())


def test_every_file_beside_the_modules_is_package_data() -> None:
    settings = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    patterns = ast.literal_eval(re.search(r"^bigearthnet_cbir = (\[.*\])$", settings, re.MULTILINE)[1])
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".py"]
    files = [path for path in files if "__pycache__" not in path.parts]
    assert files
    for path in files:
        name = path.relative_to(PACKAGE).as_posix()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
