"""The names that a Croissant document uses, and the units of columns by the ending of their names."""

from dataclasses import dataclass

# The context of the specification (1.1, appendix 1) and of its reference implementation, mlcroissant 1.1.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "annotation": "cr:annotation",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "excludes": "cr:excludes",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "readLines": "cr:readLines",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "sdVersion": "cr:sdVersion",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "unArchive": "cr:unArchive",
    "value": "cr:value",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit in words, and its UN/CEFACT common code (recommendation 20), which schema.org's ``unitCode`` takes."""

    text: str
    code: str


# Endings of column names; the first that fits counts. Counts (tokens, launches, FLOP) have no unit of their own.
UNITS = (
    ("_flop_per_s", Unit(text="floating-point operations per second", code="C97")),
    ("_bytes_per_s", Unit(text="bytes per second", code="P93")),
    ("_tokens_per_s", Unit(text="tokens per second", code="C97")),
    ("_j", Unit(text="joule", code="JOU")),
    ("_s", Unit(text="second", code="SEC")),
    ("_w", Unit(text="watt", code="WTT")),
    ("_bytes", Unit(text="byte", code="AD")),
    ("_mhz", Unit(text="megahertz", code="MHZ")),
    ("_c", Unit(text="degree Celsius", code="CEL")),
)
