"""The README says what is: its commands are those that are run, its links lead somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def test_the_first_two_commands_are_one_line_each_and_set_everything_up_themselves() -> None:
    main, tests = (block.strip() for block in blocks()[:2])

    assert "\n" not in main
    assert "\n" not in tests
    assert main.startswith("python3 -m venv .venv && ")
    assert "-m harness.run" in main
    assert tests.startswith("python3 -m venv .venv && ")


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    assert blocks()[1].strip() in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_demo_environment_runs_the_readmes_main_command() -> None:
    flags = re.search(r"-m harness\.run (.*)--out", blocks()[0])
    assert flags is not None

    assert flags[1] in (ROOT / "tox.ini").read_text()


def test_every_link_to_a_file_leads_to_one() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "DESIGN.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_screenshot_is_a_picture() -> None:
    assert (ROOT / "docs" / "report.png").read_bytes().startswith(b"\x89PNG")
