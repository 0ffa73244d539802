from pathlib import Path

from harness.meters.host import host_facts


def test_cpuinfo_names_the_cpu_and_gives_a_virtual_machine_away(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD EPYC 7763 64-Core Processor\nflags\t\t: fpu hypervisor lm\n")

    facts = host_facts(cpuinfo)

    assert facts.cpu == "AMD EPYC 7763 64-Core Processor"
    assert facts.virtual_machine is True
    assert facts.cpu_cores >= 1
    assert facts.memory_bytes > 2**20


def test_a_machine_of_metal_has_no_hypervisor_flag(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name : X\nflags : fpu vme lm\n")

    assert host_facts(cpuinfo).virtual_machine is False


def test_what_the_system_does_not_tell_is_unknown(tmp_path: Path) -> None:
    facts = host_facts(tmp_path / "nowhere")

    assert facts.virtual_machine is None
    assert facts.cpu
