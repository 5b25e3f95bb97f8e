"""`python -m harness cluster`: what it finds before a cluster costs anything."""

import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.__main__ import main
from harness.cluster import growth, kuberay
from harness.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
Config = dict[str, Any]

STUDY = '''
"""Does it fit?"""
from ray import tune
from harness.sources.nca import NCA
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train

def scratch(seed):
    model = Llama(depth=1, width=16, heads=2, mlp=24, context=32)
    return Train(Corpus(NCA(states=2, grid=4, patch=2), seed), 8 * 64 * 32, model, Recipe(lr=1e-3, batch=64), seed)

def other(seed):
    return scratch(seed + 100)

study = Study("little", __doc__, scratch, [other], {"seed": tune.grid_search([0, 1])})
'''


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the project's directory, as the files say, with a home that has a key and no credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").touch()
    monkeypatch.chdir(ROOT)


def documents(name: str) -> list[Config]:
    """A cluster file of the project, filled in."""
    text = (ROOT / name).read_text()
    for marked, filled in (("[CHANGE, CHANGE]", "[10.0.0.2, 10.0.0.3]"), (" CHANGE\n", " changed\n")):
        text = text.replace(marked, filled)
    lines = [line.split(" # ")[0].replace("CHANGE", "changed") for line in text.splitlines()]
    return list(yaml.safe_load_all("\n".join(lines)))


@pytest.fixture
def cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(name: str, change: Callable[[Config], object] | None = None, *options: str) -> tuple[int, str, str]:
        """(exit code, output, errors) for a file of the project after `change`."""
        whole = documents(name)
        if change is not None:
            change(whole[-1])
        file = tmp_path / "cluster.yaml"
        file.write_text(yaml.safe_dump_all(whole))
        code = main(["cluster", str(file), *options])
        said = capsys.readouterr()
        return code, said.out, said.err.replace(str(file), "FILE")

    return run


@pytest.mark.parametrize(
    ("name", "grows_to"),
    [
        ("cluster.yaml", "384 CPU, 32 GPU"),
        ("clusters/gcp.yaml", "384 CPU, 32 GPU"),
        ("clusters/on-premise.yaml", "32 CPU, 8 GPU"),
        ("clusters/kuberay.yaml", "384 CPU, 32 GPU"),
    ],
)
def test_the_files_are_right_once_they_are_filled_in(cluster: Any, name: str, grows_to: str) -> None:
    code, out, err = cluster(name)
    assert (code, err) == (0, "")
    assert f"grows to {grows_to}" in out


@pytest.mark.parametrize(
    "name", ["cluster.yaml", "clusters/gcp.yaml", "clusters/on-premise.yaml", "clusters/kuberay.yaml"]
)
def test_the_files_as_they_come_are_refused_for_what_is_left_to_fill_in(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cluster", name]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors and all(line.endswith(": replace CHANGE") for line in errors)


@pytest.fixture
def ray_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """`caplog` has what Ray logs, which it keeps from the root logger."""
    logging.getLogger("ray").addHandler(caplog.handler)
    yield
    logging.getLogger("ray").removeHandler(caplog.handler)


def head(config: Config) -> Config:
    return config["available_node_types"]["head"]


def gpu(config: Config) -> Config:
    return config["available_node_types"]["gpu"]


def pods(job: Config) -> Config:
    return job["spec"]["rayClusterSpec"]


def limits(job: Config) -> Config:
    return pods(job)["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.usefixtures("ray_logs")
@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("cluster.yaml", lambda c: c.update(max_wokers=3), "max_wokers"),
        ("cluster.yaml", lambda c: gpu(c).update(max_wokers=gpu(c).pop("max_workers")), "max_wokers"),
        ("cluster.yaml", lambda c: gpu(c).update(minworkers=1), "available_node_types.gpu: .*minworkers"),
        ("cluster.yaml", lambda c: c.update(max_workers="many"), "max_workers: 'many'"),
        ("cluster.yaml", lambda c: c.update(head_node_type="haed"), "head_node_type"),
        ("cluster.yaml", lambda c: c["provider"].pop("region"), "provider.region: missing; provider aws needs it"),
        (
            "cluster.yaml",
            lambda c: c["provider"].update(availability_zone="us-east-1a"),
            "us-east-1a.* not in region 'us-west-2'",
        ),
        ("cluster.yaml", lambda c: head(c).update(resources={"CPU": 8}), r"head.resources.CPU = 8: .*use 0"),
        ("cluster.yaml", lambda c: head(c).update(resources={}), r"head.resources.CPU = 'missing': .*use 0"),
        ("cluster.yaml", lambda c: head(c).update(resources={"CPU": 0, "GPU": 1}), r"head.resources.GPU = 1"),
        ("cluster.yaml", lambda c: gpu(c).pop("resources"), "gpu: 'resources' is a required property"),
        ("cluster.yaml", lambda c: gpu(c).update(resources={}), "gpu.resources: empty; an autoscaler"),
        ("cluster.yaml", lambda c: gpu(c)["node_config"].pop("InstanceType"), "gpu.node_config.InstanceType: missing"),
        (
            "cluster.yaml",
            lambda c: gpu(c)["node_config"].update(InstanceType="g6e.12xlrge"),
            r"gpu.node_config.InstanceType = 'g6e.12xlrge': botocore \S+ knows no such type; write g6e.12xlarge, or",
        ),
        (
            "cluster.yaml",
            lambda c: gpu(c)["node_config"].update(InstanceMarketOption={"MarketType": "spot"}),
            r"gpu.node_config.InstanceMarketOption: .* no such field; write InstanceMarketOptions, or",
        ),
        (
            "cluster.yaml",
            lambda c: gpu(c)["node_config"]["BlockDeviceMappings"][0]["Ebs"].update(VolumeSiz=1),
            r"gpu.node_config.BlockDeviceMappings\[0\].Ebs.VolumeSiz: .* write VolumeSize, or",
        ),
        (
            "cluster.yaml",
            lambda c: head(c)["node_config"].update(ImageId=3),
            "head.node_config: Invalid type for parameter ImageId, value: 3",
        ),
        (
            "cluster.yaml",
            lambda c: c["provider"].update(region="us-wst-2", availability_zone=None),
            "provider.region = 'us-wst-2': botocore .* write us-west-2, or",
        ),
        ("cluster.yaml", lambda c: gpu(c).update(max_workers=0), "no node that offers CPUs can ever come"),
        ("cluster.yaml", lambda c: c["file_mounts"].update({"~/a": "no/such"}), "file_mounts.~/a = 'no/such': no such"),
        ("cluster.yaml", lambda c: c["auth"].update(ssh_private_key="~/key"), "auth.ssh_private_key = '~/key'"),
        ("clusters/gcp.yaml", lambda c: c["provider"].pop("project_id"), "provider.project_id: missing"),
        ("clusters/gcp.yaml", lambda c: c["provider"].pop("availability_zone"), "provider.availability_zone: missing"),
        ("clusters/on-premise.yaml", lambda c: c["provider"].pop("head_ip"), "provider.head_ip: missing"),
        ("clusters/on-premise.yaml", lambda c: c.update(min_workers=0), "min_workers = 0: use 2"),
        ("clusters/on-premise.yaml", lambda c: c.pop("head_start_ray_commands"), "add --num-cpus=0"),
        ("clusters/kuberay.yaml", lambda c: c["spec"].pop("entrypoint"), "spec.entrypoint: missing"),
        ("clusters/kuberay.yaml", lambda c: c["spec"].pop("submissionMode"), "submissionMode = 'missing': .*HTTPMode"),
        ("clusters/kuberay.yaml", lambda c: limits(c).pop("cpu"), "resources.limits.cpu: missing"),
        ("clusters/kuberay.yaml", lambda c: limits(c).update(memory="lots"), "memory = 'lots': no quantity"),
        ("clusters/kuberay.yaml", lambda c: limits(c).update(cpu="24"), "'CPU=384,GPU=32'; .* is CPU=192,GPU=32"),
        ("clusters/kuberay.yaml", lambda c: pods(c).pop("enableInTreeAutoscaling"), "enableInTreeAutoscaling: missing"),
        ("clusters/kuberay.yaml", lambda c: pods(c).update(rayVersion="2.50.0"), "not of rayVersion '2.50.0'"),
        ("clusters/kuberay.yaml", lambda c: pods(c)["headGroupSpec"].pop("rayStartParams"), "num-cpus = 'missing'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_each(
    cluster: Any, name: str, change: Callable[[Config], object], error: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ray")
    code, out, err = cluster(name, change)
    assert not caplog.records
    assert (code, out) == (2, "")
    assert re.search(error, err), err
    assert all(line.startswith("error: ") for line in err.splitlines())
    assert len(err.splitlines()) <= 2


def test_a_store_that_the_workers_do_not_see_is_refused(cluster: Any) -> None:
    def unmount(job: Config) -> None:
        pods(job)["workerGroupSpecs"][0]["template"]["spec"]["containers"][0].pop("volumeMounts")

    code, _, err = cluster("clusters/kuberay.yaml", unmount)
    assert code == 2 and "every pod must see the store" in err


def test_credentials_are_looked_for_here_alone(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "an instance profile may provide them"
    assert missing in cluster("cluster.yaml")[1]
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").touch()
    assert missing not in cluster("cluster.yaml")[1]
    assert "service account may provide them" in cluster("clusters/gcp.yaml")[1]
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/key.json")
    assert "service account may provide them" not in cluster("clusters/gcp.yaml")[1]


def test_a_profile_that_is_not_there_is_told_in_a_line(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nope")
    code, _, err = cluster("cluster.yaml")
    assert code == 2
    assert (
        err
        == "error: AWS settings: The config profile (nope) could not be found; correct $AWS_PROFILE or ~/.aws/config\n"
    )


def test_what_ray_writes_otherwise_before_it_asks_is_no_error(cluster: Any) -> None:
    def change(config: Config) -> None:
        gpu(config)["node_config"].update(
            SubnetIds=["subnet-1"], LaunchTemplate={"LaunchTemplateId": "a", "Version": 3}
        )

    assert cluster("cluster.yaml", change)[0] == 0


def test_a_study_is_held_against_what_the_cluster_grows_to(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study.py"
    study.write_text(STUDY)
    _, out, _ = cluster("cluster.yaml", None, "--for", str(study), "--workers", "8")
    assert "little: 4 stages; one of 8 workers holds 16 CPU, 8 GPU; 4 run at once" in out
    code, _, err = cluster("cluster.yaml", None, "--for", str(study), "--workers", "64")
    assert code == 2 and "workers = 64: one stage needs 64 GPU and the cluster has 32" in err
    code, _, err = cluster("cluster.yaml", None, "--for", str(study), "--workers", "3")
    assert code == 2 and "does not divide Recipe.batch = 64" in err
    _, out, _ = cluster("cluster.yaml", None, "--for", str(ROOT / "search_spaces" / "tuned.py"))
    assert "tuned-search: 17 stages; one of 1 worker holds" in out  # before its search has run
    assert "\ntuned: " in out


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "just a text",
        "[1, 2]",
        "7",
        "kind: Service",
        "kind: RayJob",
        "{kind: RayCluster, spec: {headGroupSpec: 1, workerGroupSpecs: 2}}",
        "{kind: RayCluster, spec: {headGroupSpec: {template: {}}, workerGroupSpecs: [{}]}}",
        "provider: aws",
        "{provider: {type: local, head_ip: a, worker_ips: [b]}, file_mounts: [x]}",
        "{provider: {type: aws, region: us-east-1}, available_node_types: [head]}",
        "{provider: {type: hetzner}}",
    ],
)
def test_what_is_no_cluster_file_is_refused_in_a_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert main(["cluster", str(tmp_path / "x.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert main(["cluster", str(tmp_path / "none.yaml")]) == 2


def test_the_nodes_with_most_of_a_resource_count_first() -> None:
    config = {
        "max_workers": 3,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}},
            "cpu": {"resources": {"CPU": 16}, "max_workers": 2},
            "gpu": {"resources": {"CPU": 4, "GPU": 8}, "max_workers": 2},
        },
    }
    assert growth.largest(config) == {"CPU": 2 * 16 + 4, "GPU": 2 * 8}


def test_what_an_autoscaler_may_start_is_read_where_it_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "bootstrap.yaml"
    kinds = {"head": {"resources": {"CPU": 0}}, "gpu": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 3}}
    file.write_text(yaml.safe_dump({"max_workers": 3, "head_node_type": "head", "available_node_types": kinds}))
    stand_in = [sys.executable, "-c", "import time; time.sleep(60)", "a/monitor.py"]
    options = ["--gcs-address=10.77.1.1:6379", f"--autoscaling-config={file}"]
    with subprocess.Popen([*stand_in, *options]) as process:
        try:
            deadline = time.monotonic() + 20
            while not (found := growth.of_autoscaler("10.77.1.1:6379")) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert found == {"CPU": 12, "GPU": 3}
            assert growth.of_autoscaler("10.77.1.2:6379") == {}
        finally:
            process.kill()


def test_the_environment_says_what_a_cluster_grows_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert growth.told() == {}
    monkeypatch.setenv(growth.GROWS_TO, "CPU=64, GPU=8")
    assert growth.told() == {"CPU": 64.0, "GPU": 8.0}
    monkeypatch.setenv(growth.GROWS_TO, "64 CPUs")
    with pytest.raises(InputError, match=r"^NCA_GROWS_TO = '64 CPUs': write resources and amounts as CPU=64,GPU=8$"):
        growth.told()


def test_quantities_are_those_of_kubernetes() -> None:
    assert kuberay.quantity("cpu", "500m") == 0.5
    assert kuberay.quantity("memory", "2Gi") == 2**31
    assert kuberay.quantity("cpu", 48) == 48
