"""What the committed tables (src/api/facts) say about kinds: resources, and the fields of every type."""
import collections
import functools
import pathlib

FACTS = pathlib.Path(__file__).parents[2] / "src/api/facts"

Field = collections.namedtuple("Field", "name type go flags enum strategy merge_key map_keys")
Resource = collections.namedtuple("Resource", "group version plural kind namespaced verbs subresources type")


@functools.cache
def types():
    """Fields by the name of the struct."""
    found, fields = {}, None
    for line in (FACTS / "types.tsv").read_text().splitlines():
        columns = line.split("\t") + [""] * 16
        if columns[0] == "type":
            fields = found[columns[1]] = {}
        else:
            fields[columns[1]] = Field(columns[1], columns[2], columns[3], columns[4], [v for v in columns[13].split(",") if v], columns[7], columns[8],
                                        [key for key in columns[10].split(",") if key])
    return found


@functools.cache
def resources():
    """What is served by default, by (apiVersion, kind)."""
    kinds, found, subs = {}, {}, collections.defaultdict(list)
    lines = [line.split("\t") for line in (FACTS / "resources.tsv").read_text().splitlines()]
    for columns in lines:
        if columns[0] == "kind":
            kinds[columns[1], columns[2], columns[3]] = columns[4]
        elif columns[0] == "sub":
            subs[columns[1], columns[2], columns[3]].append(columns[4])
    for columns in lines:
        if columns[0] == "resource" and columns[8] == "served":
            group, version, plural, kind = columns[1:5]
            api = f"{group}/{version}" if group else version
            found[api, kind] = Resource(group, version, plural, kind, columns[7] == "namespaced", columns[11].split(","),
                                        subs[group, version, plural], kinds[group, version, kind])
    return found


def path(resource, namespace="default", name=""):
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    middle = f"/namespaces/{namespace}" if resource.namespaced else ""
    return f"{root}{middle}/{resource.plural}" + (f"/{name}" if name else "")
