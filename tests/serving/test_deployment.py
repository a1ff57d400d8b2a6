"""The systemd unit and the container file start the service with options that it has."""

import re
import shlex

from running import ROOT

from serving.__main__ import _parser


def arguments(command: list[str]) -> list[str]:
    assert command[1:3] == ["-m", "serving"]
    return command[3:]


def test_the_systemd_unit() -> None:
    unit = (ROOT / "deploy" / "captcha-reader.service").read_text()
    command = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command is not None
    assert _parser().parse_args(arguments(shlex.split(command[1]))).host == "127.0.0.1"


def test_the_container_file() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text()
    command = re.search(r"^ENTRYPOINT \[(.*)\]$", text, re.MULTILINE)
    assert command is not None
    assert _parser().parse_args(arguments(shlex.split(command[1].replace(",", "")))).host == "0.0.0.0"
    for name in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in name.split()), name
