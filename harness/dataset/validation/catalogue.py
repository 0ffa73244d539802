"""All rules there are, and the page that lists them."""

from harness.dataset.validation.documents import DOCUMENT_RULES
from harness.dataset.validation.files import FILE_RULES
from harness.dataset.validation.limits import Limits
from harness.dataset.validation.rules import Rule
from harness.dataset.validation.rules_keys import KEY_RULES
from harness.dataset.validation.rules_ledger import LEDGER_RULES
from harness.dataset.validation.rules_power import POWER_RULES
from harness.dataset.validation.rules_provenance import PROVENANCE_RULES
from harness.dataset.validation.rules_statistics import STATISTICS_RULES
from harness.dataset.validation.rules_structure import structure_rules, too_long
from harness.dataset.validation.rules_time import TIME_RULES

JOINED_RULES = (*KEY_RULES, *POWER_RULES, *LEDGER_RULES, *TIME_RULES, *PROVENANCE_RULES, *STATISTICS_RULES)
CHAPTERS = (
    ("Files and manifest", FILE_RULES),
    ("Values", (too_long(Limits()), *structure_rules(), *DOCUMENT_RULES)),
    ("Keys and requests", KEY_RULES),
    ("Power", POWER_RULES),
    ("Sums and the ledger", LEDGER_RULES),
    ("Time, ranks and memory", TIME_RULES),
    ("Provenance", PROVENANCE_RULES),
    ("Statistics", STATISTICS_RULES),
)


def all_rules() -> tuple[Rule, ...]:
    """Every rule, in the order of the page."""
    return tuple(rule for _, rules in CHAPTERS for rule in rules)
