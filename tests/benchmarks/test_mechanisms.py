"""docs/mechanisms.md is what the command writes, and names what there is."""

import re

from benchmarks.mechanisms import MECHANISMS, PAGE, table
from lmoe_studio.routing.presets import PRESETS

TEXT = PAGE.read_text(encoding="utf-8")


def rows_of(text):
    """Without the differences, which depend on the CPU's last digits."""
    return [
        line.rpartition("|")[0].rpartition("|")[0] for line in text.splitlines() if "[`" in line
    ]


def test_the_page_has_the_commands_table():
    assert rows_of(table()) == rows_of(TEXT)


def test_every_difference_is_below_what_the_page_says():
    said = dict(re.findall(r"^\| \[`([\w-]+)`\].* \| (1e-\d+) \|$", TEXT, re.MULTILINE))
    assert said.keys() == {one.preset for one in MECHANISMS} == set(PRESETS)
    for one in MECHANISMS:
        assert one.difference() < float(said[one.preset]) <= 1e-12


def test_each_preset_has_a_section_with_its_example():
    for name in PRESETS:
        section = TEXT.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert re.search(rf"^lmoe .*\b{name}\b", section, re.MULTILINE), name
