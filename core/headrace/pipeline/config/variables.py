"""`${NAME}` and `${NAME:-default}` in a scalar; `$$` is a dollar.

Expansion comes after parsing, so a value can never change the structure of the file, and what is
in a variable is never read as YAML. A dollar before anything else (`^/x$`) is a plain dollar.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOKEN = re.compile(r"\$\$|\$\{([^}]*)\}|\$\{")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class VariableError(ValueError):
    """A reference that cannot be expanded; the message is fit for a person."""


def has_variables(text: str) -> bool:
    return "$$" in text or "${" in text


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Put the variables in. An empty variable takes the default too, as in the shell.

    Raises:
        VariableError: a variable is not set and has no default, or `${` is not a reference.
    """

    def replace(found: re.Match[str]) -> str:
        token = found[0]
        if token == "$$":
            return "$"
        reference = _REFERENCE.fullmatch(found[1]) if found[1] is not None else None
        if reference is None:
            raise VariableError(
                f"{token} is not a variable; write ${{NAME}} or ${{NAME:-default}}, "
                "and $${ for a dollar and a brace"
            )
        name, default = reference[1], reference[2]
        value = environment.get(name, "")
        if value or (default is None and name in environment):
            return value
        if default is None:
            raise VariableError(
                f"the environment variable {name} is not set; set it, "
                f"or give a default: ${{{name}:-default}}"
            )
        return default

    return _TOKEN.sub(replace, text)
