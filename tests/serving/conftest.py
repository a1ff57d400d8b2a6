from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running import Service, png
from stand_in import save_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("weights") / "model.onnx"))


@pytest.fixture(scope="session")
def service(model: str) -> Iterator[Service]:
    """One service for all that leaves no trace in it."""
    with Service("--weights", model, "--workers", "2") as running:
        yield running


@pytest.fixture(scope="session")
def client(service: Service) -> httpx.Client:
    return service.client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that may be read, beside one that may not."""
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    (allowed / "deep").mkdir(parents=True)
    secret.mkdir()
    (allowed / "12.png").write_bytes(png("12"))
    (allowed / "deep" / "3A.png").write_bytes(png("3A"))
    (secret / "99.png").write_bytes(png("99"))
    (allowed / "good-link.png").symlink_to("deep/3A.png")
    (allowed / "bad-link.png").symlink_to(secret / "99.png")
    (allowed / "bad-folder").symlink_to(secret)
    (allowed / "circle.png").symlink_to("circle.png")
    return allowed
