"""Makes the site's pages of what is kept elsewhere, or in another form.

Links are written for readers of the repository. Those that leave `docs/` lead to the
page or the picture that the site has of it; else their text is left.
"""

import os
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
IMAGE = re.compile(r'(<img[^>]* src=")([^"]+)(")')
SETTINGS = """# Settings

`--config.NAME=VALUE` sets one on the command line, `config.NAME = value` in a config.
None is chosen from the other settings (`configs/presets.py`) or, in `sharding`, for the
machine. An estimator has those of `estimator` that it reads.

| name | default | what it is | what it may be |
|---|---|---|---|
"""
BLANK = re.compile(r"(\n\s*\n)")
CODE = re.compile(r"<code>[^<]*</code>")
FLAG = re.compile(r"--\w+")
BREAK = re.compile(
    r"[ \n](?=[±=<] ?[-\d])|(?<=[±=<])[ \n](?=[-\d])"
    r"|(?<=\d)[ \n](?=(?:s|ms|h|min|MiB|GiB|nats)\b)"
)
EXPONENT = re.compile(r"(?<=\de-)(?=\d)")
CELL = re.compile(r"^# %%(?P<kind> \[markdown\])?[^\n]*\n", re.MULTILINE)


def on_files(files, config):
    """Adds the pages of the root, of the gallery, and pictures outside `docs/`."""
    docs = Path(config.docs_dir)
    for source, page in PAGES.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "settings.md", content=settings()))
    for script in sorted((docs / "gallery").glob("*.py")):
        page, text = f"gallery/{script.stem}.md", notebook(script.read_text())
        files.append(File.generated(config, page, content=text))
    for path in outside_pictures(docs):
        files.append(File.generated(config, f"files/{path}", abs_src_path=ROOT / path))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links that leave `docs/` into links within the site."""
    uri = page.file.src_uri
    sources = {target: source for source, target in PAGES.items()}
    folder = (ROOT / sources.get(uri, f"docs/{uri}")).parent

    def target(link):
        path = os.path.relpath(folder / link, ROOT)
        place = PAGES.get(path, path.removeprefix("docs/"))
        if place.startswith("gallery/"):
            place = place.replace(".py", ".md")
        if place == path:
            place = f"files/{path}"
        if files.get_file_from_path(place) is None and not path.startswith("docs/"):
            return None
        return os.path.relpath(place, Path(uri).parent)

    def link(match):
        mark, text, to, anchor = match.groups()
        if "://" in to:
            return match[0]
        new = target(to)
        return text if new is None else f"{mark}[{text}]({new}{anchor or ''})"

    def image(match):
        return match[1] + (target(match[2]) or match[2]) + match[3]

    markdown = whole_numbers(markdown)
    return IMAGE.sub(image, LINK.sub(link, markdown))


def on_page_content(html, page, config, files):
    """Keeps the dashes of an option in the text on the line of its name."""
    return CODE.sub(
        lambda code: FLAG.sub(r'<span class="flag">\g<0></span>', code[0]), html
    )


def whole_numbers(markdown):
    """Markdown whose numbers keep their exponent, error and unit on one line."""
    blocks, is_code = BLANK.split(markdown), False
    for i, block in enumerate(blocks):
        if not is_code and "```" not in block and not block.startswith(("    ", "#")):
            blocks[i] = unbroken(block)
        is_code ^= block.count("```") % 2 == 1
    return "".join(blocks)


def unbroken(text):
    """Text whose numbers keep their exponent, error and unit on one line."""
    text, *rest = text.split("`", 1)
    text = EXPONENT.sub("\u2060", BREAK.sub("\u00a0", text))
    if not rest:
        return text
    code, _, after = rest[0].partition("`")  # code is to be copied: left as it is
    return f"{text}`{code}`{unbroken(after)}"


def outside_pictures(docs):
    """Pictures of the repository outside `docs/` that its pages show."""
    for page in sorted(docs.rglob("*.md")):
        for _, to, _ in IMAGE.findall(page.read_text()):
            path = (page.parent / to).resolve()
            if not path.is_relative_to(docs):
                yield path.relative_to(ROOT)


def settings():
    """Markdown of all settings of `configs/default.py`."""
    sys.path.append(str(ROOT))
    from configs.default import SETTINGS as KNOWN

    text = SETTINGS
    for name, known in KNOWN.items():
        default = None if isinstance(known.default, type) else known.default
        allowed = known.allowed or known.kind.__name__
        if isinstance(allowed, tuple) and isinstance(allowed[0], str):
            allowed = ", ".join(allowed)
        text += f"| `{name}` | `{default!r}` | {known.help} | {allowed} |\n"
    return text


def notebook(script):
    """Markdown of a script in the percent format: its text, and its code in fences."""
    _, *cells = CELL.split(script)
    parts = []
    for kind, body in zip(cells[::2], cells[1::2]):
        if kind:
            parts.append(re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip())
        else:
            parts.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(parts) + "\n"
