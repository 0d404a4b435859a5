"""The programs that the tests here use, in one list. Run as a program it builds what the tests of today will ask for, and says what cannot be built."""
import functools
import pathlib
import sys

import build
from build import turns

FOLDER = pathlib.Path(__file__).resolve().parent
HELM = {"helm3": ("helm.sh/helm/v3/cmd/helm", "v3.19.4"), "helm4": ("helm.sh/helm/v4/cmd/helm", "v4.3.1")}
KUBECTL = "v1.37.1"

# Well-known projects: module, version, and the packages of the programs. One of them a day, all with RK_TEST_ALL=1.
PROJECTS = {
    "prometheus-operator": ("github.com/prometheus-operator/prometheus-operator", "v0.85.0", {
        "prometheus-operator": "cmd/operator", "prometheus-config-reloader": "cmd/prometheus-config-reloader"}),
    "cert-manager": ("github.com/cert-manager/cert-manager", "v1.11.5", {
        f"cert-manager-{part}": f"cmd/{part}" for part in ("controller", "webhook", "cainjector")}),
    "sealed-secrets": ("github.com/bitnami-labs/sealed-secrets", "v0.36.0", {
        "sealed-secrets-controller": "cmd/controller", "kubeseal": "cmd/kubeseal"}),
}
WITH_HELM = ("cert-manager", "sealed-secrets")
TODAY = turns.of_the_day(PROJECTS)


def is_due(project):
    return turns.is_due(project, PROJECTS)


def helm(name):
    package, version = HELM[name]
    turn = ("helm", "project") if name == "helm3" and TODAY in WITH_HELM else ("helm",)
    return build.program(package, version, name, turn)


def kubectl():
    return build.of_kubernetes("kubectl", KUBECTL)


def operator():
    return build.module(FOLDER / "operator", "operator", ("operator",))


def kube_rs():
    return build.cargo(FOLDER / "kube-rs", "kube-rs-program", ("operator",))


def node_client():
    return build.node_package("@kubernetes/client-node")


def project(name):
    """The project's programs by name, and the folder of its source."""
    module, version, packages = PROJECTS[name]
    return {called: build.program(f"{module}/{package}", version, called, ("project",)) for called, package in packages.items()}, build.source(module, version)


def main():
    wanted = [node_client, operator, kubectl, *(functools.partial(helm, name) for name in HELM)]
    wanted += [functools.partial(project, name) for name in PROJECTS if is_due(name)]
    for make in [*wanted, kube_rs]:
        try:
            print("programs:", make(), file=sys.stderr)
        except build.NotBuilt as why:
            print("programs: not built:", why, file=sys.stderr)


if __name__ == "__main__":
    main()
