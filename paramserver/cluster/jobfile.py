"""JOB.yaml: a fit in a file. Its keys are `launch`'s keywords and ``cluster:``; every error says file, line and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from paramserver.cluster import nodes
from paramserver.cluster.request import Request, between
from paramserver.cluster.systems import SYSTEMS
from paramserver.errors import InvalidInput, ParamServerError
from paramserver.plugins import nearest


class Job(NamedTuple):
    """A job file as read."""

    values: dict[str, Any]  #: of `KEYS` but ``cluster``; problem, penalty and consensus as `Named`
    cluster: Request | None
    lines: dict[str, str]  #: key → where it stands, as its errors begin: ``job.yaml:3: ``


def read(path: str) -> Job:
    """The file as keywords.

    Raises
    ------
    InvalidInput
        It cannot be read, is no YAML, or a key or value is not one; the message names file, line and key.
    """
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise InvalidInput(f"{path}:{mark.line + 1 if mark else 1}: no YAML: {error.problem}") from None
    if not isinstance(root, yaml.MappingNode):
        raise InvalidInput(f"{path}:1: must be keys and values, such as\n    X: data/*.parquet\n    y: late")
    return _job(path, root)


def _job(path: str, root: yaml.MappingNode) -> Job:
    values: dict[str, Any] = {}
    lines: dict[str, str] = {}
    for key, written, node in _items(path, root):
        name = written.replace("-", "_")
        lines[name] = begin = f"{path}:{key.start_mark.line + 1}: "
        if name not in KEYS:
            raise InvalidInput(f"{begin}no key {written!r}{nearest(name, KEYS)}; there are {', '.join(sorted(KEYS))}")
        if not nodes.is_null(node):
            values[name] = _value(f"{begin}{written}: ", KEYS[name], node)
    if values.get("X") is None:
        raise InvalidInput(f"{path}:1: X: is missing: 'flights', or the path of Parquet or CSV files")
    wanted = values.pop("cluster", None)
    cluster = None if wanted is None else _cluster(path, wanted)
    return Job(values, cluster, lines)


def _cluster(path: str, node: yaml.Node) -> Request:
    """``cluster: slurm``, or with its keys; what is not ours is dask-jobqueue's."""
    begin = f"{path}:{node.start_mark.line + 1}: cluster: "
    if isinstance(node, yaml.ScalarNode):
        return _request(begin, {}, system=nodes.text(node))
    if not isinstance(node, yaml.MappingNode):
        raise InvalidInput(f"{begin}needs a batch system's name, or keys and values")
    ours: dict[str, Any] = {}
    keywords: dict[str, Any] = {}
    lines: dict[str, str] = {}
    for key, written, item in _items(path, node):
        name = written.replace("-", "_")
        lines[name] = f"{path}:{key.start_mark.line + 1}: cluster: "
        value = _value(f"{lines[name]}{written}: ", CLUSTER.get(name, nodes.plain), item)
        (ours if name in CLUSTER else keywords)[name] = value
    if "system" not in ours:
        raise InvalidInput(f"{begin}says no system: one of {', '.join(SYSTEMS)}")
    return _request(begin, lines, **ours, keywords=keywords)


def _request(begin: str, lines: dict[str, str], **settings: Any) -> Request:
    try:
        return Request(**settings, lines=lines)
    except InvalidInput as error:  # its message begins with the key
        raise InvalidInput(f"{lines.get(str(error).split()[0], begin)}{error}") from None


def _value(begin: str, read: Callable[[yaml.Node], Any], node: yaml.Node) -> Any:
    """A key's value, or an error that begins with where it stands."""
    try:
        return read(node)
    except nodes.Wrong as error:
        got = node.value if isinstance(node, yaml.ScalarNode) else nodes.plain(node)
        raise InvalidInput(f"{begin}needs {error}, got {got!r}") from None
    except ParamServerError as error:
        raise InvalidInput(f"{begin}{error}") from None


def _items(path: str, mapping: yaml.MappingNode) -> list[tuple[yaml.Node, str, yaml.Node]]:
    """Key, its text and its value; each key once."""
    seen: dict[str, int] = {}
    for key, _ in mapping.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise InvalidInput(f"{path}:{line}: a key must be a word")
        if key.value in seen:
            raise InvalidInput(f"{path}:{line}: {key.value}: is in line {seen[key.value]} already")
        seen[key.value] = line
    return [(key, key.value, node) for key, node in mapping.value]


#: `launch`'s keywords, but for ``client``, in whose place there is ``cluster``
KEYS: dict[str, Callable[[yaml.Node], Any]] = {
    "problem": nodes.plugin("problem"),
    "X": nodes.texts,
    "y": nodes.text,
    "sample_weight": nodes.text,
    "offset": nodes.text,
    "exposure": nodes.text,
    "penalty": nodes.plugin("penalty"),
    "consensus": nodes.plugin("consensus"),
    "z0": nodes.array,
    "name": nodes.text,
    "tol": nodes.number,
    "until": nodes.function,
    "max_seconds": nodes.number,
    "max_pushes": nodes.whole,
    "keep": nodes.flag,
    "inference": nodes.flag,
    "checkpoint": nodes.text,
    "checkpoint_every": nodes.number,
    "chunks": nodes.whole,
    "runners_per_worker": nodes.whole,
    "on_chunk_loss": nodes.text,
    "on_chunk_change": nodes.text,
    "require_tls": nodes.flag,
    "cluster": lambda node: node,
}
#: what ``cluster:`` has beside dask-jobqueue's keywords
CLUSTER: dict[str, Callable[[yaml.Node], Any]] = {
    "system": nodes.text,
    "jobs": nodes.whole,
    "adapt": lambda node: between(nodes.text(node)),
    "wait": nodes.number,
    "tls": nodes.flag,
    "warning": nodes.number,
    "head": nodes.keywords,
}
