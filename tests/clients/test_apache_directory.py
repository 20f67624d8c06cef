"""The subschema and every entry by the Apache Directory API, which is strict about both."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.process.running import BASE, ROOT, SERVICE_DN, appliance

HERE = Path(__file__).parent / "apache_directory"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mvn") is None or shutil.which("java") is None, reason="no mvn or no java"),
]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("apache_directory")
    target = f"-DoutputDirectory={place}"
    command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies", target]
    if subprocess.run(command, capture_output=True, timeout=600, check=False).returncode != 0:
        pytest.skip("mvn could not fetch the Apache Directory API")
    return place


def read(libraries: Path, directory: Path, settings: Path) -> tuple[int, list[str]]:
    with appliance(directory, "--config", str(settings)) as running:
        while running.get("/-/ready")[0] != 200:
            pass
        program = ["java", "-cp", f"{libraries}/*", str(HERE / "Subschema.java")]
        done = subprocess.run(
            [*program, "127.0.0.1", str(running.ports["ldap"]), SERVICE_DN, "service-pw", BASE],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "outpost.toml"
    path.write_text("version = 1\n[provider.ldap]\nsamba = true\nshadow = true\nactive_directory = true\n")
    return path


def directory(tmp_path: Path, custom: str) -> Path:
    path = tmp_path / "directory.yaml"
    example = (ROOT / "examples" / "directory.yaml").read_text()
    known = "loginShell: /bin/zsh"
    assert example.count(known) == 1
    path.write_text(example.replace(known, f"{known}\n        {custom}"))
    return path


def test_schema_and_entries(libraries: Path, tmp_path: Path, settings: Path) -> None:
    status, said = read(libraries, directory(tmp_path, "favourite-colour: red"), settings)
    assert not [line for line in said if line.startswith("flaw")], said
    assert status == 0 and said[-1].startswith("read ")
    counts = {line.split()[2]: int(line.split()[1]) for line in said if line.startswith("parsed")}
    assert counts["attributeTypes"] > 80 and counts["objectClasses"] > 20


def test_a_name_that_is_no_descriptor_costs_only_itself(libraries: Path, tmp_path: Path, settings: Path) -> None:
    """The schema is loaded all the same; what has the attribute is not understood by who insists on the schema."""
    _, said = read(libraries, directory(tmp_path, "shoe_size: 43"), settings)
    [flaw] = [line for line in said if line.startswith("flaw")]
    assert "shoe_size" in flaw
    assert len([line for line in said if line.startswith("parsed")]) == 5
