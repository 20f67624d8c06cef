"""The page and the picture say what was measured, and nothing else; the servers are filled with the same people."""

import re
from xml.etree import ElementTree

import pytest
import yaml

from bench import picture, population, report
from bench.cases import CASES
from bench.results import Compared, Results, Run, Teamwork

SVG = "{http://www.w3.org/2000/svg}"
BIND, *_, PAP = CASES


def run(cpu_us: float, *, others: float = 0.0) -> Run:
    return Run(cpu_us, 1000.0, 50.0, 99.0, 64.0, others, 0.0)


def results(**found: list[Run]) -> Results:
    """Of the first case."""
    made = Results("a machine", "2000-01-01", {"outpost": "1"}, "bench", 10, 2, 1.0, 3)
    for server, runs in found.items():
        for one in runs:
            made.add(BIND.name, server, one)
    made.commands[BIND.name] = "ldapload -o bind"
    return made


TEAM = Teamwork(
    2,
    {"bind": Compared([10.0, 20.0, 10.0], [11.0, 18.0, 12.5])},
    {"scan": Compared([100.0, 100.0, 100.0], [190.0, 180.0, 200.0])},
    [70.0, 130.0, 6.5],
)
OURS, THEIRS = [run(10.0), run(40.0), run(9.0)], [run(20.0), run(50.0), run(30.0)]


def test_the_ratio_is_the_median_of_the_rounds_own() -> None:
    # 0.5, 0.8, 0.3; a slow second round hits both.
    assert results(outpost=OURS, slapd=THEIRS).ratio(BIND) == 0.5
    assert results(outpost=OURS).ratio(BIND) is None
    assert results().ratio(PAP) is None


def test_the_table_marks_what_is_reached_and_only_that() -> None:
    assert "| **0.50** | 0.50 |" in report.row(BIND, results(outpost=OURS, slapd=THEIRS))
    missed = report.row(BIND, results(outpost=[run(21.0)], slapd=[run(40.0)]))
    assert "| 0.53 | 0.50 |" in missed and "**" not in missed
    assert "| slapd absent | - |" in report.row(BIND, results(outpost=OURS))


def test_a_busy_machine_is_told() -> None:
    assert "The machine was quiet" in report.page(CASES, results(outpost=OURS, slapd=THEIRS))
    disturbed = results(outpost=[run(1.0, others=0.5)] * 3)
    assert "BUSY" in report.page(CASES, disturbed)


def test_figures_survive_their_file() -> None:
    made = results(outpost=OURS, slapd=THEIRS)
    assert Results.from_json(made.to_json()) == made
    made.team = TEAM
    assert Results.from_json(made.to_json()) == made


def test_several_workers_have_their_own_tables_where_they_were_measured() -> None:
    made = results(outpost=OURS)
    assert "workers" not in report.page(CASES, made)
    made.team = TEAM
    page = report.page(CASES, made)
    # The rounds' ratios are 1.1, 0.9 and 1.25.
    assert "| bind | 10.0 | 12.5 | 1.10 (0.90 to 1.25) | 1.82 |" in page
    assert "| scan | 100 | 190 | 1.90 (1.80 to 2.00) |" in page
    assert (
        "70 MiB for one process; 130 MiB for parent and 2 workers together, of which the directories, once, 6.5" in page
    )


def test_the_picture_is_drawn_to_scale() -> None:
    root = ElementTree.fromstring(picture.draw(CASES, results(outpost=OURS, slapd=THEIRS, nullldap=[run(3.0)])))
    bars = {
        kind: [float(r.get("width", "0")) for r in root.iter(f"{SVG}rect") if r.get("class") == kind][1:]
        for kind in ("ours", "peer", "floor")
    }
    # The first of each kind is in the legend; only the work that was measured has a row.
    assert len(bars["ours"]) == len(bars["peer"]) == len(bars["floor"]) == 1
    assert bars["ours"][0] == pytest.approx(bars["peer"][0] * 0.5, abs=0.2)
    said = " ".join(t.text or "" for t in root.iter(f"{SVG}text"))
    assert "10.0 µs" in said and "× 0.50" in said and "slapd 30.0 µs" in said


def test_a_slower_figure_stays_on_the_paper() -> None:
    root = ElementTree.fromstring(picture.draw(CASES, results(outpost=[run(90.0)], slapd=[run(30.0)])))
    widths = [float(r.get("width", "0")) for r in root.iter(f"{SVG}rect") if r.get("class") in {"ours", "peer"}]
    assert max(widths) <= picture.BAR + 0.1


def test_every_server_is_filled_with_the_same_people() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!KeyOf", lambda loader, node: loader.construct_scalar(node))
    users, groups = 7, 6
    file = yaml.load("".join(population.blueprint(users, groups, population.certificate())), Loader)
    ours = {
        e["identifiers"]["username"]: {g.replace("g", "group") for g in e["attrs"]["groups"]}
        for e in file["entries"]
        if e["model"] == "authentik_core.user" and e["identifiers"]["username"] != "ldapservice"
    }
    entries = "".join(population.ldif(users, groups)).split("\n\n")
    theirs = {
        found[1]: set(re.findall(r"^memberOf: cn=(\w+),", entry, re.MULTILINE))
        for entry in entries
        if (found := re.search(r"^uid: (user\d+)$", entry, re.MULTILINE))
    }
    assert ours == theirs and len(ours) == users and all(len(of) == 5 for of in ours.values())
    members = {
        (user, found[1])
        for entry in entries
        if (found := re.match(r"dn: cn=(group\d+),", entry))
        for user in re.findall(r"^member: cn=(\w+),", entry, re.MULTILINE)
    }
    assert members == {(user, group) for user, of in ours.items() for group in of}
    assert [line.split()[0] for line in population.radius_users(users)] == list(ours)
