"""What is chosen and how results are read; needs no cluster."""
import json
import re

import choose
import history
import report


def test_names_are_equal_without_their_labels():
    a = "[sig-node] Pods should be updated [Conformance] [NodeConformance]"
    b = "[It] [sig-node] Pods should be updated [NodeConformance] [Conformance]"
    assert choose.key(a) == choose.key(b) == "[sig-node] Pods should be updated"
    assert len({choose.key(name) for name in choose.everything()}) == len(choose.everything()) == 462


def test_focus_takes_one_test_and_no_other_whatever_the_order_of_labels():
    names = choose.everything()
    for name, expression in list(zip(names, choose.focus(names)))[::20]:
        assert [n for n in names if re.search(expression, "Kubernetes e2e suite " + n)] == [name]


def test_lists_are_sorted_and_known():
    names = choose.passing()
    assert names == sorted(set(names)) and set(names) <= set(choose.everything())


def test_a_slice_keeps_to_its_budget_and_rotates():
    names = [f"[sig-a] test {n} [Conformance]" for n in range(1000)]
    one, other = (choose.rotated(names, commit, 60, {}, 8) for commit in ("00000000", "00000100"))
    assert one[0] == names[0] and other[0] == names[256]
    assert 0 < choose.cost(one, {}, 8) <= 60
    first = [names[500]]
    assert choose.rotated(names, "0", 60, {}, 8, first=first)[0] == names[500]
    assert choose.rotated([], "0", 60, {}, 8) == []


def test_every_area_names_tests_that_exist():
    for prefix, expression in choose.areas():
        assert any(re.search(expression, name) for name in choose.everything()), prefix


def test_three_passes_in_a_row_list_a_test(tmp_path):
    name = choose.everything()[0]
    record = history.History(tmp_path / "history.json")
    for passed in (True, True, False, True, True):
        record.add([report.Result(name, passed, 1.0, "", "", "")])
    assert not record.steady(name)
    record.add([report.Result(name, True, 1.0, "", "", "")])
    assert history.History(tmp_path / "history.json").steady(name)
    record.add([report.Result(name, True, 1.0, "", "", "", flaky=True)])
    assert not record.steady(name)


def test_a_failure_keeps_events_and_logs_of_its_time(tmp_path):
    (tmp_path / "rk.log").write_text("2026-01-01T00:00:00.5Z early\n2026-01-01T00:01:00.123456789Z inside\n  more\n2026-01-01T00:09:00Z late\n")
    event = {"metadata": {"namespace": "pods-12"}, "reason": "Killing", "type": "Normal", "message": "m", "involvedObject": {"kind": "Pod", "name": "p"}}
    (tmp_path / "events").write_text(json.dumps(event, indent=1) + "\n" + json.dumps({**event, "metadata": {"namespace": "other-1"}}) + '\n{"cut')
    result = report.Result("[sig-node] Pods", False, 1.0, "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z", 'Destroying namespace "pods-12" for this suite.')
    text = report.keep(result, tmp_path / "failed", {"a": tmp_path / "rk.log"}, tmp_path / "events").read_text()
    assert "inside\n  more\n" in text and "early" not in text and "late" not in text
    assert "Killing Pod/p: m" in text and "other-1" not in text
