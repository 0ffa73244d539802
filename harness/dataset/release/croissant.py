"""``croissant.json``: the release for machines, Croissant 1.1 with the vocabulary for responsible AI (RAI 1.0).

http://mlcommons.org/croissant/1.1 and http://mlcommons.org/croissant/RAI/1.0. One record set per table, one field per
column with its unit, one file object with its hash per Parquet file.
"""

import json
from collections.abc import Iterator
from typing import Any

from harness.dataset.manifest import ListedFile, Manifest
from harness.dataset.release.croissant_context import CONTEXT, UNITS
from harness.dataset.release.fact_records import ReleaseFacts, TableSize
from harness.dataset.release.front_matter import TAGS
from harness.dataset.release.licences import OWN, address
from harness.dataset.release.limits import (
    COLLECTION,
    MAINTENANCE,
    MISSING,
    PERSONAL,
    PREPROCESSING,
    SOCIAL_IMPACT,
    USES,
    biases,
    limitations,
)
from harness.dataset.release.record import ReleaseRecord
from harness.dataset.release.terms import MEANINGS
from harness.dataset.release.titles import NAME, citation_text, summary, title
from harness.dataset.schema import Column, Table, columns_of
from harness.records import Provenance

_PARQUET = "application/x-parquet"
_TYPES = {str: "sc:Text", int: "sc:Integer", float: "sc:Float", bool: "sc:Boolean"}
_KEYS = {
    Table.RUNS: ("run_id",),
    Table.PHASES: ("run_id", "phase"),
    Table.KERNELS: ("run_id", "phase", "rank", "kernel_id"),
    Table.KERNEL_ENERGIES: ("run_id", "phase", "rank", "kernel_id", "method"),
    Table.GRAPHS: ("graph_id",),
    Table.ENVIRONMENTS: ("environment_id",),
    Table.SOURCES: ("source",),
}
_COLLECTION_TYPES = {
    Provenance.MEASURED: "Direct measurement",
    Provenance.ESTIMATED: "Others (estimated with a power model)",
    Provenance.SIMULATED: "Others (simulated)",
    Provenance.IMPORTED: "Secondary Data analysis",
}


def croissant(record: ReleaseRecord, facts: ReleaseFacts, manifest: Manifest) -> str:
    """The document; keys without a value are left out."""
    filled = [size for size in facts.tables if size.rows]
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": NAME,
        "alternateName": title(facts),
        "description": summary(facts),
        "url": record.url,
        "version": record.version,
        "datePublished": record.date,
        "license": [address(OWN), *_source_licences(facts)],
        "keywords": [*TAGS, *facts.included],
        "creator": [
            {"@type": "sc:Organization", "name": "The Joulegraph developers"},
            *({"@type": "sc:Organization", "name": count.lab} for count in facts.labs),
        ],
        "citeAs": citation_text(record, facts),
        "isLiveDataset": False,
        **_responsibility(facts),
        "distribution": [
            *(_file_object(file) for file in manifest.files),
            *(_file_set(size) for size in filled),
        ],
        "recordSet": [_record_set(size.table) for size in filled],
    }
    return json.dumps(_known(document), indent=1, ensure_ascii=False) + "\n"


def _source_licences(facts: ReleaseFacts) -> Iterator[str]:
    """Licences of imported sources, by address where there is one."""
    for licence in facts.licences:
        if licence is not None and licence != OWN:
            yield address(licence) or licence


def _responsibility(facts: ReleaseFacts) -> dict[str, Any]:
    """The RAI fields; those on annotators have no answer here, since nobody annotates."""
    totals = facts.totals
    times = [time for time in (totals.first_start_utc, totals.last_start_utc) if time]
    provenances = dict.fromkeys(count.provenance for count in facts.provenances)
    words = [f"Rows named {count.word}: {MEANINGS[count.word]}." for count in facts.words]
    return {
        "rai:dataCollection": COLLECTION,
        "rai:dataCollectionType": [_COLLECTION_TYPES[provenance] for provenance in provenances],
        "rai:dataCollectionMissingData": MISSING,
        "rai:dataCollectionRawData": "Every window as the meter gave it is in the table `readings`.",
        "rai:dataCollectionTimeframe": times or None,
        "rai:dataImputationProtocol": "None: nothing is imputed.",
        "rai:dataPreprocessingProtocol": [PREPROCESSING],
        "rai:dataManipulationProtocol": "Rows are selected, merged and sorted; values are not changed.",
        "rai:dataAnnotationProtocol": "None: nothing is labelled by people.",
        "rai:dataUseCases": list(USES),
        "rai:dataLimitations": [*limitations(facts), *words],
        "rai:dataBiases": list(biases(facts)),
        "rai:personalSensitiveInformation": [PERSONAL],
        "rai:dataSocialImpact": SOCIAL_IMPACT,
        "rai:dataReleaseMaintenancePlan": MAINTENANCE,
    }


def _file_object(file: ListedFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path.rpartition("/")[2],
        "description": f"{file.rows:,} rows of {file.table.title}.",
        "contentUrl": file.path,
        "contentSize": f"{file.size_bytes} B",
        "encodingFormat": _PARQUET,
        "sha256": file.sha256,
    }


def _file_set(size: TableSize) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{size.table.title}-files",
        "name": f"{size.table.title} files",
        "description": f"All files of {size.table.title}: {size.rows:,} rows.",
        "encodingFormat": _PARQUET,
        "includes": f"data/{size.table.title}/*.parquet",
    }


def _record_set(table: Table) -> dict[str, Any]:
    key = [{"@id": f"{table.title}/{name}"} for name in _KEYS.get(table, ())]
    return {
        "@type": "cr:RecordSet",
        "@id": table.title,
        "name": table.title,
        "description": " ".join((table.row_class.__doc__ or "").split()),
        "key": key or None,
        "field": [_field(table, column) for column in columns_of(table)],
    }


def _field(table: Table, column: Column) -> dict[str, Any]:
    unit = next((unit for ending, unit in UNITS if column.name.endswith(ending)), None)
    notes = [column.description]
    notes += [f"one of {', '.join(column.choices)}"] if column.choices else []
    notes += [f"unit: {unit.text}"] if unit else []
    return {
        "@type": "cr:Field",
        "@id": f"{table.title}/{column.name}",
        "name": column.name,
        "description": "; ".join(notes),
        "dataType": _TYPES[column.scalar],
        "unitText": unit.text if unit else None,
        "unitCode": unit.code if unit else None,
        "source": {"fileSet": {"@id": f"{table.title}-files"}, "extract": {"column": column.name}},
    }


def _known(value: Any) -> Any:
    """The same without keys that have no value."""
    if isinstance(value, dict):
        return {key: _known(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_known(inner) for inner in value]
    return value
