"""Whole-system tests: the real binary on this machine, stock kubectl, the Python client, a real registry."""
import os
import tempfile

# The cluster is on this machine; proxies of the environment are for the package registries.
for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
    os.environ.pop(name, None)
os.environ["KUBECONFIG"] = "/etc/rk/kubeconfig.yaml"
# What kubectl remembers of another cluster, or of another build, is no business of these tests.
os.environ["KUBECACHEDIR"] = tempfile.mkdtemp(prefix="kubectl-cache-")
