"""The page itself: one HTML file with its charts, styles and scripts inside, which asks nothing of a network."""

import base64
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import jinja2
from plotly.offline import get_plotlyjs

from harness import __version__
from harness.carbon import CarbonFactors
from harness.dataset.reading import open_dataset
from harness.dataset.schema import Table
from harness.dataset.summary import Summary, summarise
from harness.errors import CannotWrite
from harness.report import overview, provenance, repeats, requests
from harness.report.blocks import FileLink, Page, Section
from harness.report.breakdown import kernel_section
from harness.report.calibration import calibration_section
from harness.report.collectives import collective_section
from harness.report.emissions import carbon_section
from harness.report.intervals import interval_section
from harness.report.kernel_graphs import graph_section
from harness.report.kernel_methods import method_section
from harness.report.ledger import ledger_section, ledger_tiles
from harness.report.phases import phase_section, token_section
from harness.report.ranks import rank_section
from harness.report.setups import Scene
from harness.report.text import plural

REPORT_NAME = "report.html"


def write_report(dataset_folder: Path, out: Path, carbon: CarbonFactors | None = None) -> Path:
    """Write the page about a dataset to ``out``, replacing it at once or not at all; grams of CO2 with ``carbon``.

    Raises ``DatasetError`` (also ``CorruptFile`` and ``NewerSchema``) for a folder that cannot be read, and
    ``CannotWrite``.
    """
    if not out.name or out.is_dir():
        raise CannotWrite(f"{out} is a folder, and the page is a file.\nName a file with --out.")
    page = build_page(summarise(dataset_folder), _file_links(dataset_folder, out.parent), carbon)
    unfinished = out.with_name(out.name + ".tmp")
    try:
        unfinished.write_text(render(page), encoding="utf-8")
        unfinished.replace(out)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise CannotWrite(
            f"{out} cannot be written: {error.strerror}.\nFree space or change the permissions; "
            f"`python -m harness.report {dataset_folder}` writes the page again, the dataset is not touched."
        ) from error
    return out


def build_page(summary: Summary, links: tuple[FileLink, ...], carbon: CarbonFactors | None = None) -> Page:
    """Choose and order what the page shows."""
    scene = Scene.of(summary)
    mark = provenance.mark(summary)
    return Page(
        title=provenance.marked(overview.title(summary), mark),
        mark=mark,
        subtitle=overview.subtitle(summary),
        banners=provenance.banners(summary),
        tiles=(*overview.tiles(summary), *ledger_tiles(scene)),
        sections=tuple(_sections(scene, carbon)),
        methods=overview.METHODS,
        files=links,
        footer=f"joulegraph {__version__}",
    )


def _sections(scene: Scene, carbon: CarbonFactors | None) -> Iterator[Section]:
    """In the order of the page; those about methods, ranks, graphs and calibrations only where there are any."""
    yield overview.setup_section(scene)
    yield phase_section(scene)
    yield token_section(scene)
    yield interval_section(scene)
    yield carbon_section(scene, carbon)
    yield ledger_section(scene)
    yield kernel_section(scene)
    yield from filter(None, (make(scene) for make in (method_section, collective_section, rank_section, graph_section)))
    yield repeats.agreement_section(scene)
    yield repeats.repeat_section(scene)
    yield from filter(None, (calibration_section(scene),))
    yield requests.request_section(scene)
    yield requests.failure_section(scene)
    yield requests.run_section(scene)
    yield overview.environment_section(scene.summary)


def render(page: Page) -> str:
    """Write a page as HTML; every text in it is escaped here."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": _own_file("template.html")}),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    scripts = tuple(_Script(text) for text in (get_plotlyjs(), _own_file("report.js")))
    return environment.get_template("page").render(page=page, style=_own_file("style.css"), scripts=scripts)


class _Script:
    """A script of the page. Its hash goes into the page's policy, so that browsers run these scripts and no others."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _own_file(name: str) -> str:
    return files("harness.report").joinpath(name).read_text(encoding="utf-8")


def _file_links(folder: Path, page_folder: Path) -> tuple[FileLink, ...]:
    """Addresses of the dataset's files as seen from the page."""
    return tuple(
        FileLink(href=quote(Path(os.path.relpath(path, page_folder)).as_posix()), name=name, note=note)
        for path, name, note in _found_files(folder)
    )


def _found_files(folder: Path) -> Iterator[tuple[Path, str, str]]:
    for name, note in (("README.md", "the card of the dataset"), ("manifest.json", "files, row counts, hashes")):
        if (folder / name).is_file():
            yield folder / name, name, note
    dataset = open_dataset(folder)
    for table in Table:
        if paths := dataset.paths(table):
            noun = plural(len(paths), "Parquet file")
            yield paths[0].parent, f"data/{table.title}/", f"{noun}: {_first_line(table.row_class.__doc__)}"


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n", 1)[0]
