"""Where aiconfigurator keeps its measurements: in a clone of any age, in the installed package, or copied elsewhere.

    <systems>/data/<system>/<family>/<backend>/<version>/<kind>_perf.parquet    kernels
    <systems>/<system>.yaml                                                     figures of a GPU
    <systems>/silicon_sample.csv, tools/accuracy_tracking/silicon_refs.csv      end-to-end latencies

``perf_data_reuse_manifest.yaml`` and ``reuse.yaml`` let aiconfigurator answer from the files of another backend or
version at the time of a query; they add no rows, so there is nothing in them to import.
"""

import re
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from harness.dataset.importers.repeats_files import head_of
from harness.errors import CorruptFile, DatasetError

CLONE, PACKAGE = "aiconfigurator", "aiconfigurator-core"  # keys of the source
_MODULE = "aiconfigurator_core"
_SYSTEMS = (".", "systems", f"aic-core/src/{_MODULE}/systems", "src/aiconfigurator/systems", f"{_MODULE}/systems")
_SAMPLES = ("silicon_sample.csv", "../tools/accuracy_tracking/silicon_refs.csv")
_MOST_BYTES = 1024**3  # of one file; the largest published one has 12 MB
_POINTER = b"version https://git-lfs.github.com/spec/"

# Folders of GPUs, with the name that NVML gives the device and the hardware table knows.
_GPUS = {
    "a100_pcie": "NVIDIA A100 80GB PCIe",
    "a100_sxm": "NVIDIA A100-SXM4-80GB",
    "a30": "NVIDIA A30",
    "b200_sxm": "NVIDIA B200",
    "b300_sxm": "NVIDIA B300 SXM6 AC",
    "b60": "Intel(R) Arc(TM) Pro B60 Graphics",
    "gb200": "NVIDIA GB200",
    "gb300": "NVIDIA GB300",
    "h100_pcie": "NVIDIA H100 PCIe",
    "h100_sxm": "NVIDIA H100 80GB HBM3",
    "h200_sxm": "NVIDIA H200",
    "l4": "NVIDIA L4",
    "l40s": "NVIDIA L40S",
    "rtx_pro_6000_server": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFile:
    """One file of kernel measurements; its place says what its columns may leave out."""

    path: Path
    system: str  # h200_sxm
    backend: str  # vllm, trtllm, sglang, nccl, oneccl
    version: str  # of the backend
    kind: str  # gemm_perf

    @property
    def place(self) -> str:
        """Its place below the data folder, the same in every copy."""
        return "/".join(self.path.parts[-5:])

    @property
    def gpu(self) -> str:
        """Name of the GPU to look for in the hardware table."""
        return gpu_of(self.system)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What of aiconfigurator is there."""

    source: str
    version: str | None  # commit of the clone, or version of the package
    systems: Path
    kernel_files: tuple[KernelFile, ...]
    samples: tuple[Path, ...]  # end-to-end latencies


def gpu_of(system: str) -> str:
    """Name of a system's GPU; an unknown system is looked up under its own name."""
    return _GPUS.get(system, system.replace("_", " "))


def find_layout(path: Path) -> Layout:
    """Look for the data below a folder; raises ``DatasetError`` where there is none, or only pointers to it."""
    for candidate in (*(path / inner for inner in _SYSTEMS), path.parent if path.name == "data" else path):
        files = _kernel_files(candidate / "data")
        samples = tuple(sample for name in _SAMPLES if (sample := candidate / name).is_file())
        if files or samples:
            _refuse_pointers(path, [file.path for file in files] or list(samples))
            package = _package_version(candidate.resolve())
            return Layout(
                source=CLONE if package is None else PACKAGE,
                version=_commit(candidate.resolve()) if package is None else package,
                systems=candidate,
                kernel_files=files,
                samples=samples + _refs_of_a_clone(path, samples),
            )
    if not path.exists():
        raise DatasetError(f"{path} is not there.\nCheck the path.")
    raise DatasetError(
        f"{path} holds no data of aiconfigurator: there is no systems/data/<system>/<family>/<backend>/<version> "
        f"with Parquet files.\nGive the folder of a clone of https://github.com/ai-dynamo/aiconfigurator, or of the "
        f"installed package {_MODULE}."
    )


def is_pointer(path: Path) -> bool:
    """Whether git-lfs left a pointer where a file should be; raises ``DatasetError`` for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions and the disk.") from error


def gpus_per_node(systems: Path, system: str) -> int | None:
    """GPUs of one machine of a system; None where its file does not say."""
    try:
        text = (systems / f"{system}.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^\s*num_gpus_per_node:\s*(\d{1,4})\b", text, re.MULTILINE)
    return int(found[1]) if found else None


def file_hash(path: Path) -> str:
    """Hash of a file's content; raises ``DatasetError`` for one that is too large or cannot be read."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CorruptFile(f"{path} is larger than 1 GiB, which no file of aiconfigurator is.\nCheck the path.")
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions and the disk.") from error


def _kernel_files(data: Path) -> tuple[KernelFile, ...]:
    paths = sorted(data.glob("*/*/*/*/*.parquet"), key=lambda path: path.parts[-5:])
    return tuple(
        KernelFile(
            path=path,
            system=path.parts[-5],
            backend=path.parts[-3],
            version=path.parts[-2],
            kind=path.stem,
        )
        for path in paths
    )


def _refuse_pointers(path: Path, files: list[Path]) -> None:
    if all(file.is_file() and is_pointer(file) for file in files):
        raise DatasetError(
            f"{path} holds pointers of git-lfs where the data should be.\nFetch them: git -C {path} lfs pull"
        )


def _refs_of_a_clone(path: Path, found: tuple[Path, ...]) -> tuple[Path, ...]:
    """The second file of end-to-end latencies, where the data lie deeper in the clone than they used to."""
    refs = path / "tools/accuracy_tracking/silicon_refs.csv"
    known = {sample.resolve() for sample in found}
    return (refs,) if refs.is_file() and refs.resolve() not in known else ()


def _package_version(systems: Path) -> str | None:
    """Version of the installed package that the folder belongs to; None for a clone."""
    if systems.parent.name != _MODULE:
        return None
    for metadata in sorted(systems.parents[1].glob(f"{_MODULE}-*.dist-info")):
        return metadata.name.removeprefix(f"{_MODULE}-").removesuffix(".dist-info")
    return None


def _commit(systems: Path) -> str | None:
    """Commit of a clone, from git's own files or from a note beside copied data."""
    for folder in (systems, *systems.parents[:4]):
        if folder not in {Path(str(systems).removesuffix(inner).rstrip("/")) for inner in _SYSTEMS}:
            continue  # git's files there belong to something else
        note = folder / "SOURCE.txt"
        if note.is_file() and (found := re.search(r"commit: ([0-9a-f]{7,40})\b", note.read_text(errors="replace"))):
            return found[1]
        if (folder / ".git").is_dir():
            return head_of(folder / ".git")
    return None
