"""Hook of mkdocs: links that lead out of docs/ still lead somewhere on the site.

Pictures of the repository are copied beside the pages. Other files (README.md, CONTRIBUTING.md) have no page:
their link becomes the file's path. A link to a file that does not exist stays, and --strict refuses it.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s:]+)\)")
PICTURES = {".png", ".jpg", ".svg"}


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by mkdocs with the text of every page; returns the text to render."""
    from mkdocs.structure.files import File

    source = Path(page.file.abs_src_path)
    docs = Path(config["docs_dir"]).resolve()

    def mended(link: re.Match[str]) -> str:
        bang, text, name = link.groups()
        target = (source.parent / name).resolve()
        if target.is_relative_to(docs) or not (target.is_relative_to(ROOT) and target.exists()):
            return link.group(0)
        path = target.relative_to(ROOT).as_posix()
        if target.suffix not in PICTURES:
            return f"{text} (`{path}`)"
        if files.get_file_from_path(path) is None:
            files.append(File.generated(config, path, abs_src_path=str(target)))
        up = "../" * page.file.src_uri.count("/")
        return f"{bang}[{text}]({up}{path})"

    return LINK.sub(mended, markdown)
