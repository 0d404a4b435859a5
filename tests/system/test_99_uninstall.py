"""After `rk uninstall` the machine is as it was."""
import json

import lab
from lab import run


def test_uninstall_leaves_nothing():
    before = json.loads((lab.CACHE / "host-before.json").read_text())
    print(run("rk", "uninstall", timeout=300).stdout)
    after = lab.host_state()
    differences = {k: sorted(after[k] ^ set(before[k])) for k in after if after[k] != set(before[k])}
    assert not differences, differences
