"""The manifests of examples/deployment: valid by Kubernetes' schemas, and true of the service."""

from pathlib import Path
from typing import Any

import h5py
import httpx
import pytest

from asgihive import H5App, H5Settings, cli
from asgihive.cli import options
from asgihive.service import operations
from asgihive.service.operations import TIMEOUT_SECONDS, Instruments
from asgihive.settings import ENVIRONMENT_PREFIX
from tests.cli.site import read
from tests.service import servers

PYTHON_BYTES = 90 << 20
"""What a worker takes beside its caches (docs/operation.md, Memory)."""

UNITS = {"Gi": 1 << 30, "Mi": 1 << 20}

REASON = "is not installed: extra test-kubernetes"


@pytest.fixture
def manifests() -> dict[str, Any]:
    """By their kind."""
    yaml = pytest.importorskip("yaml", reason=f"yaml {REASON}")
    return {each["kind"]: each for each in yaml.safe_load_all(read("kubernetes.yaml"))}


@pytest.fixture
def container(manifests: dict[str, Any]) -> Any:
    (found,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


@pytest.fixture
def settings(container: Any) -> H5Settings:
    environment = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    ours = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX)]
    names = {name.removeprefix(ENVIRONMENT_PREFIX).lower() for name in ours}
    assert names <= set(H5Settings.__struct_fields__)
    return H5Settings.from_environment(environment)


def test_they_follow_the_schemas(manifests: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason=f"kubernetes-validate {REASON}")
    assert len(manifests) == 4
    for each in manifests.values():
        validate.validate(each, validate.latest_version(), strict=True)
    manifests["Deployment"]["spec"]["template"]["spec"]["containers"][0]["arg"] = []
    with pytest.raises(validate.ValidationError):
        validate.validate(manifests["Deployment"], validate.latest_version(), strict=True)


def test_they_name_each_other(manifests: dict[str, Any], container: Any) -> None:
    deployment, service = manifests["Deployment"], manifests["Service"]
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    budget = manifests["PodDisruptionBudget"]["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    (port,) = container["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    scaler = manifests["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    # One may always go.
    assert scaler["minReplicas"] > budget["maxUnavailable"]
    volumes = {each["name"] for each in template["spec"]["volumes"]}
    assert {each["name"] for each in container["volumeMounts"]} == volumes


def test_the_autoscaler_asks_for_what_is_counted(manifests: dict[str, Any]) -> None:
    pytest.importorskip("prometheus_client")
    counted = {
        sample.name
        for family in Instruments().registry.collect()
        for sample in family.samples
        if family.type == "gauge"
    }
    scaler = manifests["HorizontalPodAutoscaler"]["spec"]
    asked = [each["pods"]["metric"]["name"] for each in scaler["metrics"] if "pods" in each]
    assert asked
    assert set(asked) <= counted


def test_the_memory_holds_what_the_settings_keep(container: Any, settings: H5Settings) -> None:
    kept = (
        settings.chunk_cache_bytes
        + settings.answer_cache_bytes
        + settings.zarr_cache_bytes
        + settings.max_in_flight_bytes
    )
    lanes = 3 * settings.decode_lanes * settings.max_chunk_bytes
    text = container["resources"]["limits"]["memory"]
    limit = int(text[:-2]) * UNITS[text[-2:]]
    assert (PYTHON_BYTES + kept) * 4 / 3 + lanes <= limit <= 2 * (PYTHON_BYTES + kept + lanes)
    assert int(container["resources"]["requests"]["cpu"]) == settings.decode_lanes


def test_nobody_is_root_and_nothing_is_written(manifests: dict[str, Any], container: Any) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"USER {pod['securityContext']['runAsUser']}:" in read("Containerfile")
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (data,) = (each for each in container["volumeMounts"] if each["mountPath"] == "/data")
    assert data["readOnly"] is True


def test_a_pod_has_the_time_to_end(
    manifests: dict[str, Any], container: Any, tmp_path: Path
) -> None:
    command = ["serve", str(tmp_path), "--host", "0.0.0.0", *container["args"]]
    given = options.read_options(cli.parse_arguments(command))
    assert given.server.port == container["ports"][0]["containerPort"]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > before + given.server.graceful_seconds
    assert container["readinessProbe"]["timeoutSeconds"] > TIMEOUT_SECONDS


def test_the_probes_are_answered(
    container: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a token, and where the volume is gone: then no request comes, and no restart."""
    root = tmp_path / "data"
    root.mkdir()
    with h5py.File(root / "x.h5", "w") as file:
        file["values"] = [1]
    paths = {
        name: container[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    }
    app = H5App(root, H5Settings(token="open-sesame"))
    headers = {"user-agent": "kube-probe/1.37", "accept": "*/*"}

    def ask(client: httpx.Client) -> dict[str, int]:
        return {name: client.get(path, headers=headers).status_code for name, path in paths.items()}

    with servers.serving(app, "uvicorn-httptools") as url, servers.client(url) as client:
        assert ask(client) == dict.fromkeys(paths, 200)
        root.rename(tmp_path / "gone")
        monkeypatch.setattr(operations, "KEPT_SECONDS", 0.0)
        assert ask(client) == {"startup": 200, "liveness": 200, "readiness": 503}
