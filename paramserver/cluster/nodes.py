"""Values of a job file, from YAML's nodes: each reader says what it needs, and its caller where.

The nodes' own text counts: YAML 1.1 takes 1e-6 for a string, 1:30:00 for 5400, and a column "no" for False.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import yaml

from paramserver.plugins import Named, first_setting, make


class Wrong(ValueError):
    """What was needed instead."""


def text(node: yaml.Node) -> str:
    """A scalar, as it is written."""
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise Wrong("a word")
    return str(node.value)


def texts(node: yaml.Node) -> list[str]:
    """One or a list of them."""
    if isinstance(node, yaml.SequenceNode):
        return [text(item) for item in node.value]
    try:
        return [text(node)]
    except Wrong:
        raise Wrong("a path or a list of them") from None


def number(node: yaml.Node) -> float:
    """1e-6 too."""
    try:
        return float(text(node))
    except ValueError:
        raise Wrong("a number") from None


def whole(node: yaml.Node) -> int:
    """A whole number."""
    try:
        return int(text(node))
    except ValueError:
        raise Wrong("a whole number") from None


def flag(node: yaml.Node) -> bool:
    """true or false, and YAML's other words for them."""
    if node.tag != "tag:yaml.org,2002:bool":
        raise Wrong("true or false")
    return bool(plain(node))


def function(node: yaml.Node) -> Callable[..., Any]:
    """``package.module:function``; found from the working directory too, and sent by value, for workers may lack it."""
    module, _, name = text(node).partition(":")
    if not name:
        raise Wrong("package.module:function")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise Wrong(f"a module that can be imported ({error})") from None
    finally:
        sys.path.remove(str(Path.cwd()))
    if not callable(getattr(found, name, None)):
        raise Wrong(f"a function of {module}")
    cloudpickle.register_pickle_by_value(found)
    return getattr(found, name)  # type: ignore[no-any-return]


def array(node: yaml.Node) -> Any:
    """The array in a .npy file."""
    try:
        return np.load(text(node), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Wrong(f"the path of a .npy file ({error})") from None


def plugin(kind: str) -> Callable[[yaml.Node], Named]:
    """Of problems, penalties or rules."""

    def read(node: yaml.Node) -> Named:
        named = _named(kind, node)
        make(kind, named)  # here, where the line is known
        return named

    return read


def _named(kind: str, node: yaml.Node) -> Named:
    """``l1``, ``{l1: 3}`` or ``{elasticnet: {alpha: 2, l1_ratio: 0.3}}``."""
    if isinstance(node, yaml.ScalarNode):
        return Named(text(node), {})
    if not isinstance(node, yaml.MappingNode) or len(node.value) != 1:
        raise Wrong("a name, or one name with its settings, {l1: {alpha: 3}}")
    key, value = node.value[0]
    name = text(key)
    if isinstance(value, yaml.MappingNode):
        return Named(name, {text(setting): plain(item) for setting, item in value.value})
    first = first_setting(kind, name)
    return Named(name, {} if is_null(value) or first is None else {first: plain(value)})


def plain(node: yaml.Node) -> Any:
    """What YAML makes of it, but that 1e-6 is a number and 1:30:00 a text."""
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {text(key): plain(item) for key, item in node.value}
    if ":" in node.value:
        return node.value
    value = yaml.SafeLoader("").construct_object(node)
    if isinstance(value, str) and node.style is None and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    return value


def keywords(node: yaml.Node) -> dict[str, Any]:
    """Keys, with dashes or underscores, and their values."""
    if not isinstance(node, yaml.MappingNode):
        raise Wrong("keys and values")
    return {text(key).replace("-", "_"): plain(item) for key, item in node.value}


def is_null(node: yaml.Node) -> bool:
    """Nothing, or ``null``."""
    return bool(node.tag == "tag:yaml.org,2002:null")
