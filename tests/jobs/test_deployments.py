"""The files of cluster/: that what reads them takes them, and that they say what the jobs need. All of it offline."""

from __future__ import annotations

import ast
import configparser
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, get_args

import dask.utils
import jsonschema
import kubernetes_validate
import pytest
import yaml

from emolib.errors import SettingsError
from jobs import backends, console
from jobs.cluster import connect
from jobs.fanout import _GRACE_S
from jobs.nightly import nightly
from jobs.runs import Options
from jobs.specs import ClusterSpec, cluster_spec
from jobs.workers import ENVIRONMENT, ONE_THREAD
from tests.conftest import wait_for
from tests.faults.world import untrained_model, write_archive
from tests.jobs.conftest import run_emolib

CLUSTER = Path(__file__).parents[2] / "cluster"
_SPECS = {kind.model_fields["kind"].default or get_args(kind.model_fields["kind"].annotation)[0]: kind
          for kind in get_args(ClusterSpec)}  # fmt: skip
_KINDS = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(ClusterSpec)}
_FILES = sorted(path for path in CLUSTER.rglob("*.toml") if "[cluster]" in path.read_text())
_OPTION = re.compile(r"^(# )?([a-z_]+) = (.+)$", re.MULTILINE)


def _name(path: Path) -> str:
    return str(path.relative_to(CLUSTER))


# What `--cluster` takes


def test_every_kind_has_its_file() -> None:
    kinds = {tomllib.loads(path.read_text())["cluster"]["kind"] for path in _FILES}
    assert kinds == _KINDS


@pytest.mark.parametrize("path", _FILES, ids=_name)
def test_a_file_names_every_option_of_its_kind_and_each_is_one(path: Path) -> None:
    text = path.read_text()
    spec = cluster_spec(str(path))
    head, _, options = text.partition("[cluster.options]")
    found = {name: (commented, value) for commented, name, value in _OPTION.findall(head)}
    unused = set(re.findall(r"\w+", "".join(re.findall(r"# (.*) ha(?:s|ve) no meaning here", head))))
    assert set(found) | unused | ({"options"} if options else set()) >= set(type(spec).model_fields)
    sizes = {"workers", "minimum", "maximum"}
    for name, (commented, value) in found.items():
        if commented:
            taken = {**tomllib.loads(f"{name} = {value}"), **({"maximum": 10_000} if name == "minimum" else {})}
            left_out = sizes if name in sizes else set()
            type(spec).model_validate({**spec.model_dump(exclude_none=True, exclude=left_out), **taken})


def test_options_of_clouds_reach_their_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Provider:
        @staticmethod
        def EC2Cluster(**options: Any) -> None:  # noqa: N802
            asked.append(options)
            raise OSError("no cloud here")

    monkeypatch.setattr(backends, "_library", lambda name, extra: Provider)
    text = (CLUSTER / "cloud/aws.toml").read_text() + 'env_vars = { LANG = "C" }\n'
    (tmp_path / "aws.toml").write_text(text)
    with pytest.raises(SettingsError, match="no cloud here"), connect(cluster_spec(str(tmp_path / "aws.toml"))):
        pass
    assert asked[0]["env_vars"] == {**ENVIRONMENT, "LANG": "C"}
    assert asked[0]["worker_options"] == {"nthreads": 1, "memory_limit": "2GiB"}
    assert (asked[0]["n_workers"], asked[0]["security"], asked[0]["region"]) == (16, True, "eu-central-1")


# Kubernetes


def _documents() -> list[dict[str, Any]]:
    return [
        document
        for path in sorted((CLUSTER / "kubernetes").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]


def _one(kind: str, **metadata: str) -> dict[str, Any]:
    (found,) = (each for each in _documents() if each["kind"] == kind and metadata.items() <= each["metadata"].items())
    return found


def _dask_cluster() -> dict[str, Any]:
    return _one("DaskCluster")


@pytest.fixture(scope="module")
def made_by_the_operator() -> dict[str, dict[str, Any]]:
    """What the Dask operator makes of the DaskCluster: deployments of scheduler and worker, and the service."""
    script = (
        "import json, sys\n"
        "from dask_kubernetes.operator.controller import controller as it\n"
        "cluster = json.load(sys.stdin)\n"
        "meta, spec = cluster['metadata'], cluster['spec']\n"
        "name, labels = meta['name'], meta['labels']\n"
        "it.validate_cluster_name(name)\n"
        "print(json.dumps({\n"
        "    'scheduler': it.build_scheduler_deployment_spec(name, spec['scheduler']['spec'], {}, labels),\n"
        "    'service': it.build_scheduler_service_spec(name, spec['scheduler']['service'], {}, labels),\n"
        "    'worker': it.build_worker_deployment_spec(\n"
        "        name + '-default', meta['namespace'], name, '0123456789', spec['worker']['spec'], {}, labels),\n"
        "}))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, input=json.dumps(_dask_cluster()), capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def _pods(made: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the templates of all pods."""
    job = _one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    return {"job": job, **{name: made[name]["spec"]["template"] for name in ("scheduler", "worker")}}


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_manifests_are_valid(version: str, made_by_the_operator: dict[str, dict[str, Any]]) -> None:
    documents = [each for each in _documents() if each["kind"] != "DaskCluster"]
    assert len(documents) >= 9
    for document in [*documents, *made_by_the_operator.values()]:
        kubernetes_validate.validate(document, version, strict=True)
    wrong = copy.deepcopy(_one("CronJob"))
    wrong["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_the_dask_cluster_is_one_to_its_operator() -> None:
    chart = "operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # it is long
    resource = yaml.load(files("dask_kubernetes").joinpath(chart).read_text(), fast)
    (version,) = resource["spec"]["versions"]
    cluster = _dask_cluster()
    assert cluster["apiVersion"] == f"{resource['spec']['group']}/{version['name']}"
    known = jsonschema.Draft202012Validator(_closed(version["schema"]["openAPIV3Schema"]))
    given = {name: value for name, value in cluster.items() if name not in ("apiVersion", "kind", "metadata")}
    known.validate(given)
    given["spec"]["worker"]["spec"]["containers"][0]["resorces"] = {}
    with pytest.raises(jsonschema.ValidationError, match="resorces"):
        known.validate(given)


def _closed(schema: Any) -> Any:
    """Return a schema that takes nothing it does not know: Kubernetes drops that without a word."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(closed.get("properties"), dict) else closed


def test_pods_may_do_little(made_by_the_operator: dict[str, dict[str, Any]]) -> None:
    user = int(re.findall(r"^USER (\d+):\d+$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)[-1])
    for name, template in _pods(made_by_the_operator).items():
        pod = template["spec"]
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
        volumes = {each["name"]: each for each in pod["volumes"]}
        assert "emptyDir" in volumes[mounts["/tmp"]["name"]]
        assert volumes[mounts["/etc/emolib-tls"]["name"]]["secret"]["defaultMode"] == 0o440
        assert [place for place, each in mounts.items() if not each.get("readOnly")] == ["/tmp"]
        assert bool(pod.get("tolerations")) == (name == "worker")
        assert (pod.get("automountServiceAccountToken") is False) == (name != "job")
        assert ("livenessProbe" in container) == (name != "job")
        assert container["image"] == "REGISTRY/emolib:TAG"


def test_selectors_find_their_pods(made_by_the_operator: dict[str, dict[str, Any]]) -> None:
    labels = {name: template["metadata"]["labels"] for name, template in _pods(made_by_the_operator).items()}

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, held in labels.items() if selector.items() <= held.items()}

    policy = _one("NetworkPolicy")["spec"]
    ((source,),) = (each["from"] for each in policy["ingress"])
    for selector in (policy["podSelector"], source["podSelector"]):
        assert found(selector["matchLabels"]) == {"job", "scheduler", "worker"}
    budgets = {each["metadata"]["name"]: each["spec"] for each in _documents() if each["kind"] == "PodDisruptionBudget"}
    assert found(budgets["emolib-job"]["selector"]["matchLabels"]) == {"job"}
    assert found(budgets["emolib-scheduler"]["selector"]["matchLabels"]) == {"scheduler"}
    service = made_by_the_operator["service"]
    assert found(service["spec"]["selector"]) == {"scheduler"}
    assert [each["port"] for each in service["spec"]["ports"]] == [8786]
    space = _dask_cluster()["metadata"]["namespace"]
    address = f"tls://{service['metadata']['name']}.{space}.svc.cluster.local:8786"
    assert address in _pods(made_by_the_operator)["worker"]["spec"]["containers"][0]["args"]
    assert {each["metadata"].get("namespace", space) for each in _documents()} == {space}


def test_a_night_is_ended_gently_and_only_an_interrupted_one_begins_again() -> None:
    cron = _one("CronJob")["spec"]
    job = cron["jobTemplate"]["spec"]
    assert (cron["concurrencyPolicy"], job["template"]["spec"]["restartPolicy"]) == ("Forbid", "Never")
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] > _GRACE_S + 15
    (rule,) = (each["onExitCodes"] for each in job["podFailurePolicy"]["rules"] if each["action"] == "FailJob")
    codes = {value for name, value in vars(console).items() if name.startswith("EXIT_")}
    assert set(rule["values"]) == codes - {console.EXIT_DONE, console.EXIT_INTERRUPTED}
    assert rule["containerName"] == job["template"]["spec"]["containers"][0]["name"]


def test_what_the_job_reads_is_where_its_pod_has_it() -> None:
    (container,) = _one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    arguments = container["args"]
    config = {path.name: path for path in (CLUSTER / "kubernetes").iterdir()}
    options = tomllib.loads(config["nightly.toml"].read_text())["nightly"]
    spec = cluster_spec(str(config["cluster.toml"]))
    named = [arguments[arguments.index("--config") + 1], options["cluster"], getattr(spec, "manifest", "")]
    assert [Path(each).parent for each in named] == [Path("/etc/emolib")] * 3
    assert {Path(each).name for each in named} == {"nightly.toml", "cluster.toml", "daskcluster.yaml"} <= set(config)
    assert getattr(spec, "tls", None) == "/etc/emolib-tls"


class _Api(BaseHTTPRequestHandler):
    """As much of Kubernetes as a job asks for; what it was asked is in `calls`."""

    calls: ClassVar[list[tuple[str, str]]] = []
    there: ClassVar[set[str]] = set()
    busy = left = 0

    @classmethod
    def begin(cls, there: set[str], *, busy: int = 0) -> None:
        """Forget what was; so many requests are answered by "too many"."""
        cls.there, cls.busy, cls.left = set(there), busy, 0
        cls.calls.clear()

    def do_GET(self) -> None:
        self.calls.append(("GET", self.path))
        self._answer(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})

    def do_POST(self) -> None:
        self.calls.append(("POST", self.path))
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = body["metadata"]["name"]
        if self.busy:
            type(self).busy -= 1
            self._answer(429, {"kind": "Status", "message": "too many requests"})
        elif name in self.there:
            type(self).left -= 1  # what is deleted is there a little longer
            if self.left == 0:
                self.there.discard(name)
            self._answer(409, {"kind": "Status", "message": f'daskclusters "{name}" already exists'})
        else:
            self.there.add(name)
            self._answer(201, body)

    def do_DELETE(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body == {"propagationPolicy": "Foreground"}
        self.calls.append(("DELETE", self.path))
        type(self).left = 1
        self._answer(200, {"kind": "Status"})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[_Api]]:
    """Stand for Kubernetes on loopback, under the name that a kubeconfig has for it; kr8s asks for that only once."""
    place = tmp_path_factory.mktemp("kubernetes") / "config"
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as server, pytest.MonkeyPatch.context() as patch:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "me", "user": {"token": "none"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "other"}}],
        }
        place.write_text(yaml.safe_dump(config))
        patch.setenv("KUBECONFIG", str(place))
        patch.setattr(backends, "_AGAIN_S", 0.01)
        try:
            yield _Api
        finally:
            server.shutdown()
            thread.join()


def _kubernetes_spec(folder: Path, *, replace: bool) -> ClusterSpec:
    manifest = CLUSTER / "kubernetes/daskcluster.yaml"
    text = f'kind = "kubernetes"\nmanifest = "{manifest}"\ntls = false\nwait_s = 2\nreplace = {str(replace).lower()}'
    (folder / "cluster.toml").write_text(f"[cluster]\n{text}\n")
    return cluster_spec(str(folder / "cluster.toml"))


@pytest.mark.slow
@pytest.mark.parametrize("there", [set(), {"emolib"}], ids=["nothing there", "a killed job's is there"])
def test_a_job_has_the_rights_that_it_uses(there: set[str], kubernetes: type[_Api], tmp_path: Path) -> None:
    kubernetes.begin(there, busy=1)
    with (
        pytest.raises(SettingsError, match="no worker came"),  # nobody has such a name here
        connect(_kubernetes_spec(tmp_path, replace=True)),
    ):
        pass
    path = "/apis/kubernetes.dask.org/v1/namespaces/emolib/daskclusters"
    asked = [(method, place) for method, place in kubernetes.calls if place != "/version/"]  # which all may ask for
    verbs = [{"POST": "create", "DELETE": "delete"}[method] for method, _ in asked]
    assert verbs == ["create"] + (["create", "delete", "create"] if there else []) + ["create", "delete"]
    assert {place for _, place in asked} == {path, f"{path}/emolib"}
    (rule,) = _one("Role")["rules"]
    assert (set(rule["verbs"]), rule["resources"]) == (set(verbs), ["daskclusters"])
    assert rule["apiGroups"] == ["kubernetes.dask.org"]


@pytest.mark.slow
def test_a_dask_cluster_of_others_is_left_to_them(kubernetes: type[_Api], tmp_path: Path) -> None:
    kubernetes.begin({"emolib"})
    with (
        pytest.raises(SettingsError, match="already exists; delete it if no job uses it"),
        connect(_kubernetes_spec(tmp_path, replace=False)),
    ):
        pass
    assert "DELETE" not in {method for method, _ in kubernetes.calls}


@pytest.mark.slow
def test_scheduler_and_worker_start_with_the_manifest_s_arguments(
    made_by_the_operator: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    tls = tmp_path / "tls"
    assert run_emolib("certs", "--out", tls).exit_code == 0
    pods = _pods(made_by_the_operator)
    (tmp_path / "etc").mkdir()
    shutil.copy(CLUSTER / "dask.yaml", tmp_path / "etc")
    address = tmp_path / "address.json"

    def command(name: str, *replaced: tuple[str, str], more: tuple[str, ...] = ()) -> list[str]:
        (container,) = pods[name]["spec"]["containers"]
        text = json.dumps(container["args"])
        both = [("/etc/emolib-tls", str(tls)), ("$(DASK_WORKER_NAME)", "one"), ("=:8787", "=127.0.0.1:0"),
                ("=:8788", "=127.0.0.1:0"), ("=8786", "=0"), ("/tmp/dask", str(tmp_path / "scratch"))]  # fmt: skip
        for old, new in (*both, *replaced):
            text = text.replace(old, new)
        program, *arguments = json.loads(text)
        assert program == "dask"
        return [sys.executable, "-m", "dask", *arguments, *more]

    environment = {**os.environ, "DASK_CONFIG": str(tmp_path / "etc"), **_environment(pods["scheduler"])}
    log = tmp_path / "log"
    with (
        log.open("w") as file,
        _process(
            command("scheduler", more=("--host", "tls://127.0.0.1", "--scheduler-file", str(address))),
            environment,
            file,
        ),
    ):
        wait_for(lambda: address.exists() and address.stat().st_size, "the scheduler", seconds=120)
        known = json.loads(address.read_text())
        place = re.search(r"dashboard at: +http://(\S+)/status", log.read_text())
        assert place, log.read_text()
        assert urllib.request.urlopen(f"http://{place[1]}/health", timeout=30).read() == b"ok"
        assert b"dask_scheduler" in urllib.request.urlopen(f"http://{place[1]}/metrics", timeout=30).read()
        for page in ("status", "info/main/workers.html", "json/counts.json"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://{place[1]}/{page}", timeout=30)
        service = "tls://emolib-scheduler.emolib.svc.cluster.local:8786"
        with _process(command("worker", (service, known["address"])), environment, file):
            wait_for(lambda: "Registered to" in log.read_text(), "the worker", seconds=120)
    assert known["address"].startswith("tls://")


def _environment(template: dict[str, Any]) -> dict[str, str]:
    (container,) = template["spec"]["containers"]
    return {each["name"]: each["value"] for each in container.get("env", []) if each["name"].endswith("FAILURES")}


@contextmanager
def _process(command: list[str], environment: dict[str, str], log: Any) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


# The image


def test_dask_in_the_image_is_set_as_jobs_set_it() -> None:
    found = yaml.safe_load((CLUSTER / "dask.yaml").read_text())
    same = [name for name in backends.PROCESSES if "MALLOC" in name or "profile" in name]
    assert len(same) == 3
    for name in same:
        assert dask.config.get(name, config=found) == backends.PROCESSES[name]


def test_the_image_has_no_root_no_training_and_no_entry_point() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    steps = [line.split(maxsplit=1) for line in text.splitlines() if re.match("[A-Z]+ ", line)]
    assert [rest for name, rest in steps if name == "CMD"] == ['["emolib", "--help"]']
    assert "ENTRYPOINT" not in dict(steps)
    assert not re.search(r"--extra (train|gpu)|tensorflow-|--group", text)
    assert text.index("USER ") > text.rindex("FROM ")
    for name, value in ONE_THREAD.items():
        assert f"{name}={value}" in text


# Every night


def _nights() -> list[Path]:
    return [CLUSTER / "nightly/nightly.toml", CLUSTER / "kubernetes/nightly.toml"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What takes the place of paths in files of options."""
    folder = tmp_path_factory.mktemp("nights")
    (folder / "calls.csv").write_text("call_id,queue\n1,first\n")
    (folder / "keys").write_text("0123456789abcdef" * 4)
    model = untrained_model(folder / "model")
    calls = write_archive(folder / "calls", recordings=3)
    return {
        **{"archive": str(calls), "model": str(model), "out": str(folder / "P"), "report": str(folder / "nights")},
        **{"calls_table": str(folder / "calls.csv"), "pseudonyms": str(folder / "keys"), "shadow": str(model)},
        **{"metrics": str(folder / "emolib.prom")},
    }


@pytest.mark.parametrize("path", _nights(), ids=_name)
def test_a_night_takes_its_file(path: Path, places: dict[str, str], tmp_path: Path) -> None:
    known = {*signature(nightly).parameters, *(field.name for field in fields(Options))} - {"options"}
    for with_comments in (False, True):
        options: dict[str, Any] = {}
        for commented, name, value in _OPTION.findall(path.read_text()):
            assert name in known
            if with_comments or not commented:
                options |= tomllib.loads(f"{name} = {value}")
        options |= {name: place for name, place in places.items() if name in options}
        for name in ("cluster", "known_audio"):
            options.pop(name, None)
        file = tmp_path / "nightly.toml"
        lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
        file.write_text("\n".join(["[nightly]", *lines, ""]))
        ended = run_emolib("nightly", "--config", file, "--settle-s", "0", "--plan")
        assert ended.exit_code == 0, ended.summary
    assert {"archive", "model", "out", "report", "channels"} <= set(options)


def _commands() -> dict[str, list[str]]:
    """Return the command that each file of nightly/ calls."""
    texts = {path.name: path.read_text() for path in (CLUSTER / "nightly").iterdir() if path.suffix != ".toml"}
    found: dict[str, list[str]] = {}
    for name, text in texts.items():
        if name.endswith(".py"):
            (found[name],) = (
                ast.literal_eval(node.value)
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMMAND"
            )
        elif not name.endswith(".timer"):
            (line,) = re.findall(r"^[^#\n]*?(/\S+/emolib [^>\n]+?)(?: *>>.*)?$", text, re.MULTILINE)
            found[name] = line.split()
    return found


def test_every_schedule_calls_the_command() -> None:
    commands = _commands()
    shown = {"emolib-nightly.service", "crontab", "emolib.sbatch", "scrontab", "airflow_dag.py", "prefect_flow.py",
             "dagster_job.py"}  # fmt: skip
    assert set(commands) == shown
    for command in commands.values():
        assert (Path(command[0]).name, command[1:3]) == ("emolib", ["nightly", "--config"])
        options = [each for each in command[2:] if each.startswith("--")]
        assert set(options) <= {"--config", "--cluster"}
    assert commands["emolib.sbatch"] == commands["scrontab"]
    job = _one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert (job[0], "nightly" in job) == ("emolib", True)


@pytest.mark.parametrize("code", [0, 1, 3, 5])
@pytest.mark.parametrize("path", sorted((CLUSTER / "nightly").glob("*.py")), ids=_name)
def test_orchestrators_run_again_only_what_was_interrupted(path: Path, code: int) -> None:
    assert path.stem not in ("airflow", "prefect", "dagster")  # a script's own folder is searched before libraries
    module = ast.parse(path.read_text())
    compile(module, str(path), "exec")
    (night,) = (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == "night")
    night.decorator_list.clear()
    names = {name: type(name, (Exception,), {"__init__": lambda self, *args, **options: None}) for name in (
        *("AirflowSkipException", "AirflowFailException", "InterruptedNight", "RetryRequested", "Failure"),
    )}  # fmt: skip
    space = {"subprocess": subprocess, "COMMAND": ["sh", "-c", f"exit {code}"], "dg": SimpleNamespace(**names), **names}
    exec(compile(ast.fix_missing_locations(ast.Module([night], [])), str(path), "exec"), space)
    try:
        space["night"]()
        ended = "done"
    except Exception as error:
        ended = type(error).__name__
    again, failed = {
        "airflow_dag": ("RuntimeError", "AirflowFailException"),
        "prefect_flow": ("InterruptedNight", "RuntimeError"),
        "dagster_job": ("RetryRequested", "Failure"),
    }[path.stem]
    at_it = "AirflowSkipException" if path.stem == "airflow_dag" else "done"
    assert ended == {0: "done", 1: failed, 3: at_it, 5: again}[code]


def test_systemd_takes_its_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze found")
    units = []
    for path in sorted((CLUSTER / "nightly").glob("emolib-nightly.*")):
        units.append(tmp_path / path.name)
        units[-1].write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", path.read_text()))
    done = subprocess.run([program, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "emolib" in line]) == (0, [])


def test_systemd_ends_a_night_gently_and_takes_up_only_an_interrupted_one() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(CLUSTER / "nightly/emolib-nightly.service")
    service = unit["Service"]
    assert float(service["TimeoutStopSec"]) > _GRACE_S + 15
    assert service["KillMode"] == "mixed"
    assert service["RestartForceExitStatus"] == str(console.EXIT_INTERRUPTED)
    assert "Restart" not in service
    assert set(map(int, service["SuccessExitStatus"].split())) == {console.EXIT_LOCKED, console.EXIT_INTERRUPTED}


def test_cron_says_a_word_only_where_something_is_wrong(tmp_path: Path) -> None:
    (line,) = re.findall(r"(?m)^\d\S* .*$", (CLUSTER / "nightly/crontab").read_text())
    command = line.split(maxsplit=5)[5]
    assert "%" not in command  # cron would make new lines of them
    program = tmp_path / "emolib"
    program.write_text('#!/bin/sh\necho "{}"\necho said >&2\nexit $CODE\n')
    program.chmod(0o755)
    command = command.replace("/opt/emolib/bin/emolib", str(program)).replace("/srv/emolib", str(tmp_path))
    for code in (0, 1, 2, 3, 4, 5, 6, 70):
        done = subprocess.run(
            ["sh", "-c", command], env={**os.environ, "CODE": str(code)}, capture_output=True, text=True, check=True
        )
        assert (str(code) in done.stdout, done.stderr) == (code not in (0, 3, 5), "")
        assert bool(done.stdout) == (code not in (0, 3, 5))


def test_slurm_ends_a_night_gently() -> None:
    script = CLUSTER / "nightly/emolib.sbatch"
    subprocess.run(["sh", "-n", script], check=True)
    batch = dict(re.findall(r"(?m)^#SBATCH --([a-z-]+)=(\S+)$", script.read_text()))
    cron = dict(re.findall(r"(?m)^#SCRON --([a-z-]+)=(\S+)$", (CLUSTER / "nightly/scrontab").read_text()))
    told, name, grace_s = re.split("[:@]", batch["signal"])
    assert (told, name, float(grace_s) > _GRACE_S + 15) == ("B", "TERM", True)
    assert batch.pop("dependency") == "singleton"
    assert cron.items() - batch.items() == {("open-mode", "append")}
    assert batch.items() <= cron.items()
    assert re.search(r"(?m)^exec ", script.read_text())
    memory = tomllib.loads((CLUSTER / "srun.toml").read_text())["cluster"]["memory"]
    assert dask.utils.parse_bytes(memory) < dask.utils.parse_bytes(f"{batch['mem-per-cpu']}iB")


def test_no_file_names_a_registry_or_somebody_s_home() -> None:
    places = re.compile(r"/home/[a-z]|ghcr\.io|docker\.io|quay\.io|pypi\.org")
    found = {path: places.findall(path.read_text()) for path in CLUSTER.rglob("*") if path.is_file()}
    assert {path: names for path, names in found.items() if names} == {}
