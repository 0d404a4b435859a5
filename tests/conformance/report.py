"""Reads ginkgo's report, keeps what explains a failure, prints the outcome."""
import dataclasses
import datetime
import json
import re

import choose


@dataclasses.dataclass
class Result:
    name: str
    passed: bool
    seconds: float
    start: str
    end: str
    text: str
    flaky: bool = False


def read(path):
    """The results in a report; tests that were skipped or that the run did not reach are not among them."""
    if not path.exists():
        return []
    results = []
    for suite in json.loads(path.read_text()):
        for spec in suite.get("SpecReports") or []:
            if spec["LeafNodeType"] != "It" or spec["State"] in ("skipped", "pending", ""):
                continue
            name = " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]])
            failure = spec.get("Failure") or {}
            place = failure.get("Location") or {}
            steps = [f"{e['TimelineLocation'].get('Time', '')} {e['Message']}" for e in spec.get("SpecEvents") or [] if e.get("Message")]
            text = "\n".join([
                f"{spec['State']}: {failure.get('Message', '')}", f"at {place.get('FileName', '')}:{place.get('LineNumber', '')}", "",
                *steps, "", spec.get("CapturedGinkgoWriterOutput", ""), spec.get("CapturedStdOutErr", "")])
            results.append(Result(name, spec["State"] == "passed", spec["RunTime"] / 1e9, spec["StartTime"], spec["EndTime"], text))
    return results


def moment(text):
    """Seconds since 1970 of an RFC 3339 time with any number of digits."""
    text = re.sub(r"(\.\d{6})\d+", r"\1", text.replace("Z", "+00:00"))
    return datetime.datetime.fromisoformat(text).timestamp()


def keep(result, folder, logs, events):
    """Writes what is known of a failure: the test's own words, the events of its namespaces, rk's logs of that time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (re.sub(r"[^A-Za-z0-9]+", "-", choose.key(result.name)).strip("-")[:150] + ".log")
    start, end = moment(result.start) - 1, moment(result.end) + 1
    namespaces = set(re.findall(r'[Nn]amespace[ :]+"?([a-z0-9-]+-\d+)', result.text))
    parts = [result.name, f"{result.start} to {result.end}", "", result.text, "", f"== events in {', '.join(sorted(namespaces)) or 'no known namespace'}"]
    parts += [line for namespace, line in read_events(events) if namespace in namespaces]
    for machine, log in logs.items():
        parts += ["", f"== rk on {machine}", *lines_between(log, start, end)]
    path.write_text("\n".join(parts) + "\n")
    return path


def read_events(path):
    """(namespace, line) of every event that a watch wrote as JSON objects one after the other."""
    if not path.exists():
        return
    decoder, text, at = json.JSONDecoder(), path.read_text(errors="replace"), 0
    while (at := text.find("{", at)) >= 0:
        try:
            event, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            return  # the watch was cut here
        on = event.get("involvedObject", {})
        when = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
        yield event["metadata"]["namespace"], f"{when} {event.get('type')} {event.get('reason')} {on.get('kind')}/{on.get('name')}: {event.get('message')}"


def lines_between(path, start, end):
    """Lines of a log from one time to another; lines without a time belong to the one before."""
    inside, found = False, []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        line = re.sub(r"\x1b\[[0-9;]*m", "", line)
        stamp = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line)
        if stamp:
            inside = start <= moment(stamp.group()) <= end
        if inside:
            found.append(line)
    return found[-2000:]


def show(results, wanted, listed):
    """Prints the outcome; true if nothing failed and all of `wanted` ran."""
    by_key = {choose.key(r.name): r for r in results}
    missing = [name for name in wanted if choose.key(name) not in by_key]
    failed = [r for r in results if not r.passed]
    flaky = [r for r in results if r.passed and r.flaky]
    passed = [r for r in results if r.passed]
    for r in sorted(results, key=lambda r: (r.passed, not r.flaky, r.name)):
        word = "FAILED" if not r.passed else "flaky " if r.flaky else "passed"
        print(f"{word} {r.seconds:7.1f} s  {r.name}")
    for name in missing:
        print(f"not run            {name}")
    print("\nslowest:")
    for r in sorted(results, key=lambda r: -r.seconds)[:10]:
        print(f"{r.seconds:7.1f} s  {r.name}")
    known = {choose.key(name) for name in listed}
    worse = [r for r in failed if choose.key(r.name) in known]
    better = [r for r in passed if choose.key(r.name) not in known and not r.flaky]
    print(f"\n{len(passed)} passed ({len(flaky)} of them flaky: failed, then passed alone), {len(failed)} failed, {len(missing)} not run")
    if worse:
        print(f"{len(worse)} of the failures are in passing.txt")
    if better:
        print(f"{len(better)} passed and are not in passing.txt; --record counts passes, and lists a test after three in a row")
    return not failed and not missing
