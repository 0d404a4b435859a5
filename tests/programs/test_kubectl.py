"""kubectl of this machine and kubectl of the version that rk is: both must work, on built-in kinds and on others."""
import json
import os

import build
import lab
import programs
import pytest

PROGRAMS = {"machine": lambda: "kubectl", programs.KUBECTL: programs.kubectl}
KIND = (lab.ROOT / "tests/programs/kubectl/definition.yaml").read_text()


@pytest.fixture(params=sorted(PROGRAMS))
def kubectl(request, cluster, tmp_path):
    """A call of one kubectl in a namespace of its own, with a cache of its own."""
    try:
        program = PROGRAMS[request.param]()
    except build.NotBuilt as why:
        pytest.skip(f"kubectl {request.param} is not built: {why}")
    namespace = "kubectl-" + request.param.replace(".", "-")

    def call(*words, input=None, code=0, **environment):
        settings = [f"{name}={value}" for name, value in environment.items()]
        done = cluster.on("hub", "env", *settings, program, "--cache-dir", tmp_path, "-n", namespace, *words, check=False, input=input)
        assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    call.namespace = namespace
    call.new = request.param != "machine"
    call("create", "namespace", namespace)
    yield call
    call("delete", "namespace", namespace, "--timeout=60s")


@pytest.fixture
def boats(kubectl):
    """A kind in two versions, lists merged by name and as a set."""
    kubectl("apply", "-f", "-", input=KIND)
    kubectl("wait", "crd/boats.sea.example.com", "--for=condition=Established", "--timeout=60s")
    yield
    kubectl("delete", "crd", "boats.sea.example.com", "--timeout=60s")


def boat(name="ark", version="v1", **spec):
    return json.dumps({"apiVersion": f"sea.example.com/{version}", "kind": "Boat", "metadata": {"name": name}, "spec": spec})


def deployment(**container):
    container = {"name": "web", "image": lab.DEMO_IMAGE, "imagePullPolicy": "Never", **container}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [container]}}}})


def test_apply_diff_and_edit(kubectl, tmp_path):
    assert kubectl("apply", "-f", "-", input=deployment()) == "deployment.apps/web created\n"
    assert kubectl("apply", "-f", "-", input=deployment()) == "deployment.apps/web unchanged\n"
    assert kubectl("diff", "-f", "-", input=deployment()) == ""
    diff = kubectl("diff", "-f", "-", input=deployment(env=[{"name": "A", "value": "b"}]), code=1)
    assert "+        - name: A\n+          value: b\n" in diff
    diff = kubectl("diff", "--server-side", "--force-conflicts", "-f", "-", input=deployment(workingDir="/tmp"), code=1)
    assert "+        workingDir: /tmp" in diff
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/replicas: 1/replicas: 2/' \"$1\"\n")
    editor.chmod(0o755)
    assert kubectl("edit", "deployment", "web", EDITOR=editor) == "deployment.apps/web edited\n"
    assert kubectl("edit", "deployment", "web", "--subresource=status", EDITOR="true") in ("", "Edit cancelled, no changes made.\n")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    # What the server refuses, the editor is shown again with the reasons.
    editor.write_text(f"#!/bin/sh\ncat $1 >>{tmp_path}/shown\nsed -i 's/replicas: 2/replicas: -2/' $1\n")
    assert 'deployments.apps "web" is invalid' in kubectl("edit", "deployment", "web", code=1, EDITOR=editor)
    assert "# * spec.replicas: Invalid value: -2: must be greater than or equal to 0" in (tmp_path / "shown").read_text()
    assert kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}") == "2"


def test_get_has_columns_and_every_form(kubectl):
    kubectl("apply", "-f", "-", input=deployment())
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    header, line = kubectl("get", "deployment", "-o", "wide").splitlines()
    assert header.split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    assert [line.split()[i] for i in (0, 1, 5, 6, 7)] == ["web", "1/1", "web", lab.DEMO_IMAGE, "app=web"]
    assert kubectl("get", "deploy,rs,po", "-L", "app", "--no-headers", "-l", "app=web").count(" web\n") == 3
    columns = "NAME:.metadata.name,IMAGE:.spec.template.spec.containers[*].image,NO:.spec.nothing"
    assert kubectl("get", "deployment", "-o", f"custom-columns={columns}").splitlines()[1].split() == ["web", lab.DEMO_IMAGE, "<none>"]
    assert kubectl("get", "deployment", "-o", "go-template={{range .items}}{{.metadata.name}} {{.kind}}{{end}}") == "web Deployment"
    assert kubectl("get", "all", "-o", "name").splitlines()[-2].startswith("deployment.apps/web")
    assert kubectl("get", "pods", "--sort-by=.metadata.creationTimestamp", "--field-selector=status.phase=Running", "--chunk-size=1", "--no-headers").count("Running") == 1
    assert "web" in kubectl("describe", "deployment", "web") and "ScalingReplicaSet" in kubectl("events", "--for", "deployment/web")
    assert kubectl("get", "deployment", "web", "--subresource=scale", "-o", "jsonpath={.kind} {.spec.replicas}") == "Scale 1"
    assert kubectl("wait", "deployment/web", "--for=jsonpath={.status.readyReplicas}=1", "--timeout=30s") == "deployment.apps/web condition met\n"
    assert "not found" in kubectl("get", "deployment", "nothing", code=1)


def test_explain_knows_kinds_and_fields(kubectl, boats):
    said = kubectl("explain", "pod.spec.containers.resources.limits")
    assert said.startswith("KIND:       Pod\nVERSION:    v1\n\nFIELD: limits <map[string]Quantity>")
    assert "maxSurge\t<IntOrString>" in kubectl("explain", "deployment.spec.strategy", "--recursive")
    assert 'field "nothing" does not exist' in kubectl("explain", "pod.spec.nothing", code=1)
    said = kubectl("explain", "boats.spec")
    assert said.startswith("GROUP:      sea.example.com\nKIND:       Boat\nVERSION:    v2\n\nFIELD: spec <Object>\n") and "What the boat is." in said
    assert "crew\t<[]Object>" in said and "sails\t<integer> -required-" in said
    said = kubectl("explain", "boats.spec.flags", "--api-version=sea.example.com/v1")
    assert "VERSION:    v1" in said and "<[]string>" in said


def test_custom_resources_by_apply_from_both_sides(kubectl, boats):
    crew = [{"name": "noah", "role": "captain"}]
    assert kubectl("apply", "-f", "-", input=boat(sails=1, crew=crew)) == "boat.sea.example.com/ark created\n"
    header, line = kubectl("get", "boats").splitlines()
    assert header.split() == ["NAME", "SAILS", "AGE"] and line.split()[:2] == ["ark", "1"]
    assert kubectl("get", "boat.v2.sea.example.com", "ark", "-o", "jsonpath={.apiVersion}") == "sea.example.com/v2"
    assert kubectl("diff", "-f", "-", input=boat(sails=1, crew=crew)) == ""
    diff = kubectl("diff", "-f", "-", input=boat(sails=2), code=1)
    assert "+  sails: 2" in diff and "-  - name: noah" in diff
    kubectl("apply", "-f", "-", input=boat(sails=2))
    assert json.loads(kubectl("get", "boat", "ark", "-o", "json"))["spec"] == {"sails": 2}

    apply = ("apply", "--server-side", "-f", "-")
    assert kubectl(*apply, input=boat(sails=2)) == "boat.sea.example.com/ark serverside-applied\n"
    kubectl(*apply, "--field-manager=one", input=boat(sails=2, crew=crew, flags=["red"]))
    kubectl(*apply, "--field-manager=two", input=boat(sails=2, crew=[{"name": "sem", "role": "cook"}], flags=["blue"]))
    spec = json.loads(kubectl("get", "boat", "ark", "-o", "json"))["spec"]
    assert [c["name"] for c in spec["crew"]] == ["noah", "sem"] and sorted(spec["flags"]) == ["blue", "red"]
    conflict = kubectl(*apply, "--field-manager=three", input=boat(sails=3), code=1)
    assert 'Apply failed with 3 conflicts' in conflict and 'conflicts with "one":\n- .spec.sails' in conflict
    kubectl(*apply, "--field-manager=three", "--force-conflicts", input=boat(version="v2", sails=3))
    kubectl(*apply, "--field-manager=one", input=boat())
    spec = json.loads(kubectl("get", "boat", "ark", "-o", "json"))["spec"]
    assert spec == {"sails": 3, "crew": [{"name": "sem", "role": "cook"}], "flags": ["blue"]}
    assert kubectl("diff", "--server-side", "--field-manager=two", "-f", "-", input=boat(flags=["blue", "green"]), code=1).count("\n+  - green") == 1
    said = kubectl(*apply, input=boat(sails="many"), code=1)
    assert "spec.sails" in said and "expected numeric (int or float), got string" in said
    assert 'unknown field "spec.wings"' in kubectl("apply", "-f", "-", input=boat("other", sails=1, wings=2), code=1)
    assert "spec.sails: Required value" in kubectl("apply", "-f", "-", input=boat("other", crew=crew), code=1)
    assert kubectl("patch", "boat", "ark", "--type=json", "-p", '[{"op":"remove","path":"/spec/flags"}]') == "boat.sea.example.com/ark patched\n"
    assert "strategic merge" not in kubectl("label", "boat", "ark", "wet=yes")


def test_prune_and_kustomize(kubectl, tmp_path, boats):
    first, second = boat("a", sails=1), boat("b", sails=2)
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [json.loads(first), json.loads(second)]})
    labelled = ("apply", "--prune", "-l", "fleet=one", "--prune-allowlist=sea.example.com/v1/Boat", "-f", "-")
    for text in (both, second):
        text = text.replace('"metadata": {', '"metadata": {"labels": {"fleet": "one"}, ')
        said = kubectl(*labelled, input=text)
    assert "boat.sea.example.com/a pruned" in said
    sets = ("apply", "--server-side", "--prune", "--applyset=fleet", "-f", "-")
    kubectl("delete", "boats", "--all")
    kubectl(*sets, input=both, KUBECTL_APPLYSET="true")
    assert "boat.sea.example.com/b pruned" in kubectl(*sets, input=first, KUBECTL_APPLYSET="true")
    (tmp_path / "boat.yaml").write_text(first)
    (tmp_path / "kustomization.yaml").write_text("resources: [boat.yaml]\nnamePrefix: new-\ncommonAnnotations: {from: kustomize}\n")
    assert kubectl("apply", "-k", tmp_path) == "boat.sea.example.com/new-a created\n"
    assert kubectl("delete", "-k", tmp_path, "--wait") == f'boat.sea.example.com "new-a" deleted{" from " + kubectl.namespace + " namespace" if kubectl.new else ""}\n'
