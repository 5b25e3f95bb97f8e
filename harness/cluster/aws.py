"""What AWS would refuse of a cluster file, by botocore's own description of its calls; reads this machine alone."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.errors import InputError

OF_RAY = {"SubnetIds"}
"""Of a node_config, what Ray takes out before it asks for a machine."""
UNKNOWN = re.compile(r'Unknown parameter in (?P<where>\S+): "(?P<name>.*)", must be one of: (?P<known>.*)')


def region(name: str) -> Iterator[str]:
    """What is wrong with a region."""
    session = _session()
    found = [r for part in session.get_available_partitions() for r in session.get_available_regions("ec2", part)]
    if found and name not in found:
        yield f"provider.region = {name!r}: botocore {_version()} knows no such region{_meant(name, found)}"


def node_config(field: str, config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a node_config, whose name is `field`: Ray passes it to RunInstances, all but as it stands."""
    import botocore.validate

    ec2 = _session().get_service_model("ec2")
    asked = {name: value for name, value in config.items() if name not in OF_RAY} | {"MinCount": 1, "MaxCount": 1}
    if isinstance(template := asked.get("LaunchTemplate"), Mapping) and "Version" in template:
        asked["LaunchTemplate"] = {**template, "Version": str(template["Version"])}  # as Ray does
    report = botocore.validate.ParamValidator().validate(asked, ec2.operation_model("RunInstances").input_shape)
    for line in report.generate_report().splitlines():
        unknown = UNKNOWN.fullmatch(line)
        if unknown is None:
            yield f"{field}: {line}"
        else:
            inside = "" if unknown["where"] == "input" else f".{unknown['where']}"
            way_out = _meant(unknown["name"], unknown["known"].split(", "))
            yield f"{field}{inside}.{unknown['name']}: botocore {_version()} knows no such field{way_out}"
    kind = config.get("InstanceType")
    known = ec2.shape_for("InstanceType").enum
    if isinstance(kind, str) and kind not in known:
        yield f"{field}.InstanceType = {kind!r}: botocore {_version()} knows no such type{_meant(kind, known)}"


def _meant(name: str, known: Iterable[str]) -> str:
    """The way out."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; {f'write {close[0]}' if close else 'correct it'}, or update botocore if it is new"


def _session() -> Any:
    """Raises InputError where the settings of this machine are not to be read, or lack the profile that is named."""
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session()
    try:
        session.get_scoped_config()
    except botocore.exceptions.BotoCoreError as e:
        raise InputError(f"AWS settings: {' '.join(str(e).split())}; correct $AWS_PROFILE or ~/.aws/config") from e
    return session


def _version() -> str:
    import botocore

    return str(botocore.__version__)
