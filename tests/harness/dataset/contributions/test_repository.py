"""The templates of the dataset's repository: what a stranger fills in, and what checks a stranger's file."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import accept, submit
from harness.campaign.options import parse as parse_run
from harness.dataset.contributions.bundle import Bundle, BundledFile
from harness.dataset.contributions.writing import bundle_name
from harness.dataset.schema import Table
from harness.errors import UsageError

yaml = pytest.importorskip("yaml")  # comes with huggingface_hub
ROOT = Path(__file__).resolve().parents[4] / "dataset_card" / "repository"
FORM = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/contribution.yml").read_text())
WORKFLOW_TEXT = (ROOT / ".github/workflows/validate.yml").read_text()
WORKFLOW: dict[Any, Any] = yaml.safe_load(WORKFLOW_TEXT)
STEPS = WORKFLOW["jobs"]["check"]["steps"]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_form_has_what_such_forms_must_have() -> None:
    assert {"name", "description", "body"} <= set(FORM)
    ids = [element["id"] for element in FORM["body"] if element["type"] != "markdown"]
    assert ids == ["lab", "gpu", "bundle", "machine", "agreed"]
    for element in FORM["body"]:
        assert element["type"] in {"markdown", "input", "textarea", "checkboxes"}
        assert "label" in element["attributes"] or element["type"] == "markdown"
    (boxes,) = (element for element in FORM["body"] if element["type"] == "checkboxes")
    assert all(option["required"] is True for option in boxes["attributes"]["options"])
    assert any("CC-BY-4.0" in option["label"] for option in boxes["attributes"]["options"])


def test_the_workflow_may_only_read() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert set(WORKFLOW[True]) == {"pull_request", "workflow_dispatch"}, "never pull_request_target"
    assert "secrets." not in WORKFLOW_TEXT
    checkout = next(step for step in STEPS if str(step.get("uses", "")).startswith("actions/checkout"))
    assert checkout["with"]["persist-credentials"] is False
    assert WORKFLOW["jobs"]["check"]["timeout-minutes"] <= 60


def test_actions_are_pinned_to_commits() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action in used)


def test_nothing_of_a_stranger_becomes_part_of_a_script() -> None:
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert scripts
    assert not any("${{" in script for script in scripts)
    assert not any(re.search(r"pip install[^\n]*(proposal|-e )", script) for script in scripts)


def test_the_workflow_takes_the_names_that_submit_gives() -> None:
    bundle = Bundle(
        harness="0.1.0",
        lab="a" * 40,
        contact=None,
        gpu="cpu: Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz with a long name that goes on",
        created_utc="2026-11-30T10:00:00+00:00",
        files=(BundledFile(table=Table.RUNS, sha256="0" * 64, size_bytes=1, rows=1),),
    )
    pattern = next(
        re.findall(r"=~ (\^contributions\S+\$)", step["run"]) for step in STEPS if "changed" in step.get("run", "")
    )

    assert re.fullmatch(pattern[0], f"contributions/{bundle_name(bundle)}")
    assert not re.fullmatch(pattern[0], "contributions/../x.zip")
    assert not re.fullmatch(pattern[0], "contributions/$(id).zip")


def commands() -> list[str]:
    """Lines of the page that call the harness, without what is said beside them."""
    lines = [line.split("  #")[0].strip() for line in PAGE.splitlines()]
    inline = re.findall(r"`(python -m harness\.[^`]+)`", PAGE.replace("\n   ", " "))
    return [line for line in [*lines, *inline] if re.match(r"python -m harness\.(run|submit|accept) ", line)]


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_page_is_understood(line: str) -> None:
    _, _, module, *arguments = line.split()
    readers: dict[str, Callable[[list[str]], object]] = {
        "harness.run": lambda words: parse_run(words),
        "harness.submit": lambda words: submit.parse(words),
        "harness.accept": lambda words: accept.parse(words),
    }
    text = " ".join(arguments).replace("YOUR-NAME", "green-lab")
    try:
        readers[module](text.split())
    except UsageError as error:
        pytest.fail(f"{line}: {error}")


def test_the_page_names_every_step_of_the_evening() -> None:
    for step in ("doctor", "calibrate", "run --reference-pack", "validate", "submit", "accept", "release"):
        assert f"python -m harness.{step}" in PAGE
    assert len(commands()) >= 8
