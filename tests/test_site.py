"""The site of the documents builds without a warning and has every public name."""

import html
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ais_jax
from configs.default import SETTINGS

ROOT = Path(__file__).parents[1]
MODULES = [
    m.name for m in pkgutil.walk_packages(ais_jax.__path__, "ais_jax.") if not m.ispkg
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, whose warnings are errors (`strict` in mkdocs.yml)."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*command, "--site-dir", folder], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def reference(site):
    """Anchor -> its part of the reference as text, up to the next anchor."""
    parts = {}
    for page in sorted((site / "api").glob("*.html")):
        _, *pieces = re.split(r'id="(ais_jax[\w.]*)"', page.read_text())
        for name, piece in zip(pieces[::2], pieces[1::2]):
            parts.setdefault(name, html.unescape(re.sub(r"<[^>]*>", "", piece)))
    return parts


def full_name(item):
    return item.__name__ if inspect.ismodule(item) else _name_of(item)


def _name_of(item):
    return f"{item.__module__}.{item.__qualname__}"


def test_every_public_name_is_in_the_reference_and_its_index(site, reference):
    index = (site / "api" / "index.html").read_text()
    for name in ais_jax.__all__:
        full = full_name(getattr(ais_jax, name))
        assert full in reference, name
        assert f'html#{full}"' in index, name


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_is_there_with_its_annotations(reference, module):
    assert module in reference
    for name, item in vars(import_module(module)).items():
        is_here = getattr(item, "__module__", "") == module
        if name.startswith("_") or not is_here or not inspect.isfunction(item):
            continue
        signature = re.sub(r"\s", "", reference[_name_of(item)].partition(") ->")[0])
        for parameter in inspect.signature(item).parameters:
            assert f"{parameter}:" in signature, f"{module}.{name}({parameter})"


def test_every_setting_is_on_its_page(site):
    page = (site / "settings.html").read_text()
    for name in SETTINGS:
        assert f"<code>{name}</code>" in page


def test_shapes_stand_in_the_reference(reference):
    text = re.sub(r"\s", "", reference["ais_jax.annealing.ais.anneal"])
    assert "T_plus_1" in text


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        assert not re.search(
            r'<(link|script|img)[^>]*(href|src)="https?:', page.read_text()
        )


def test_pictures_outside_the_documents_are_copied(site):
    for page in site.rglob("*.html"):
        for source in re.findall(r'<img[^>]* src="([^"]+)"', page.read_text()):
            assert (page.parent / source).exists(), f"{page.name}: {source}"


def test_a_number_in_a_table_keeps_its_error_and_its_exponent(site):
    page = html.unescape((site / "gradients.html").read_text())
    assert "<td>-117.69\u00a0±\u00a00.12</td>" in page
    assert "rate 3e-\u20603</td>" in page
    assert (
        '<code><span class="flag">--config</span>.num_epochs=100</code>'
        in (site / "experiments.html").read_text()
    )


def test_a_number_in_the_text_keeps_its_error_and_code_stays_as_it_is(site):
    page = html.unescape((site / "gradients.html").read_text())
    assert "7.5\u00a0±\u00a00.2" in page and "7.5 ±" not in page
    for file in site.rglob("*.html"):
        text = html.unescape(file.read_text())
        for code in re.findall(r"<code[ >].*?</code>", text, re.DOTALL):
            assert not re.search("[\u00a0\u2060]", code), code


def test_the_search_works_without_a_server(site):
    assert (site / "search" / "search_index.js").read_text().startswith("var __index")
    assert "js/iframe-worker.js" in (site / "index.html").read_text()
