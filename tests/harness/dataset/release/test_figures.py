"""Figures are well-formed, show what the facts say, and let no text of the data act."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from harness.dataset.release.fact_records import TokenEnergy
from harness.dataset.release.facts import collect_facts
from harness.dataset.release.figures import figures
from harness.dataset.release.svg import Drawing, shortened
from harness.records import Provenance, Workload
from tests.harness.dataset.release.releasable import dataset, own_run, per_token_j, served_run

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [*(own_run(index) for index in range(3)), own_run(3, cuda=False), served_run(0)]
    return dataset(tmp_path_factory.mktemp("figures") / "a", runs)


def test_runs_kernels_and_energy_per_token_are_drawn(folder: Path) -> None:
    facts = collect_facts(folder)

    drawn = {figure.name: texts(figure.svg) for figure in figures(facts)}

    assert set(drawn) == {"energy_per_output_token.svg", "coverage.svg", "kernels.svg"}
    assert {"NVIDIA A100-SXM4-80GB", "measured, one batch", "estimated, one batch", "imported, server"} <= set(
        drawn["energy_per_output_token.svg"]
    )
    assert drawn["coverage.svg"].count("3") == 1  # runs on the A100
    assert drawn["kernels.svg"].count("6") == 1  # a kernel in each phase of them
    assert "gemm" in drawn["kernels.svg"]


def test_energy_per_token_is_that_of_all_sequences_of_a_batch_and_of_one_of_a_server(folder: Path) -> None:
    points = {(point.gpu, point.workload): point for point in collect_facts(folder).token_energies}

    served = points["NVIDIA H100 80GB HBM3", Workload.SERVER]
    assert served.median_j == pytest.approx(200.0 / 400.0)
    batch = points["cpu: Example CPU @ 2.00GHz", Workload.BATCH]
    assert batch.median_j == pytest.approx(per_token_j(own_run(3, cuda=False).run))


def test_many_models_are_cut_to_those_with_the_most_runs_and_the_caption_says_so(folder: Path) -> None:
    facts = collect_facts(folder)
    points = tuple(
        TokenEnergy(
            model=f"lab/model-{number}",
            gpu="GPU <&>",
            provenance=Provenance.SIMULATED,
            workload=Workload.BATCH,
            runs=number,
            low_j=1.0,
            median_j=1.0,
            high_j=1.0,
        )
        for number in range(50)
    )

    (first, *_) = figures(replace(facts, token_energies=points))

    assert "the 40 of 50 models with the most runs" in first.caption
    assert "lab/model-49" in texts(first.svg)
    assert "lab/model-3" not in texts(first.svg)
    assert "GPU <&>" in texts(first.svg)


def test_text_is_shown_whatever_it_holds() -> None:
    drawing = Drawing(100, 100, "<title>")
    drawing.text(0, 0, "a</text><script>\x00\u202e")
    drawing.dot(1, 1, 2, colour="#102030", filled=0.5, tip="'\"&")

    root = ElementTree.fromstring(drawing.svg())

    assert [node.text for node in root.iter(f"{SVG}text")] == ["a</text><script>  "]
    assert not list(root.iter(f"{SVG}script"))
    assert next(root.iter(f"{SVG}circle")).get("fill") == "#889098"  # half way to white


def test_labels_are_shortened_in_the_middle() -> None:
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert shortened("abc", 5) == "abc"
