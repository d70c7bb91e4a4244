"""Which modules of a model can be read, and what their names are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
SHOWN = 12


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside data-parallel and compile wrappers; calling those on one rank alone would hang or abort."""
    while (name := _wrapped_child(model)) in ("module", "_orig_mod"):
        model = model.get_submodule(name)
    return model


def site_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module below the model by its dotted name, in the model's order.

    What compile, checkpoint, FSDP and DDP wrappers put into names is left out, so that a site keeps its name when
    the model is wrapped. A module shared by two parents appears under both names.
    """
    return {name: module for name, module in named_modules(model) if name}


def named_modules(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Names without wrappers and modules, the model itself under ``""``; a wrapped module comes after its wrapper."""
    yield name, model
    wrapped = _wrapped_child(model)
    for child_name, child in model._modules.items():
        if child is not None:
            own = () if child_name == wrapped else (child_name,)
            yield from named_modules(child, ".".join(filter(None, (name, *own))))


def _wrapped_child(module: nn.Module) -> str | None:
    if isinstance(module, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return "module"
    return next((name for name in module._modules if name in WRAPPERS), None)


def match_sites(names: Iterable[str], patterns: str | Sequence[str]) -> list[str]:
    """The names that match any pattern, in the order of ``names``.

    Patterns are matched segment by segment: ``*`` stands for (part of) one segment, ``**`` for any number of them.

    Raises:
        ValueError: if no pattern is given or one matches nothing, with the nearest names.
    """
    known = list(dict.fromkeys(names))
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    if not wanted:
        raise ValueError("no site was given: name at least one module whose output is to be read, or a pattern of them")
    found = {pattern: {name for name in known if _matches(name.split("."), pattern.split("."))} for pattern in wanted}
    for pattern, matched in found.items():
        if not matched:
            raise ValueError(_no_match(known, pattern))
    chosen = set().union(*found.values())
    return [name for name in known if name in chosen]


def _matches(segments: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not segments
    if pattern[0] == "**":
        return any(_matches(segments[skip:], pattern[1:]) for skip in range(len(segments) + 1))
    return bool(segments) and fnmatchcase(segments[0], pattern[0]) and _matches(segments[1:], pattern[1:])


def _no_match(names: Sequence[str], pattern: str) -> str:
    candidates = dict.fromkeys([*(_towards(name, pattern) for name in names), *names])
    near = difflib.get_close_matches(pattern, candidates, n=3, cutoff=0.5)
    if any(_matches(name.split("."), ["**", *pattern.split(".")]) for name in names):
        near.insert(0, f"**.{pattern}")  # the end of a name
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else "."
    more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
    return f"no module matches site {pattern!r}{hint} The model has: {', '.join(names[:SHOWN])}{more}"


def _towards(name: str, pattern: str) -> str:
    """The pattern corrected by a name of as many segments, its wildcards kept where they fit."""
    segments, wanted = name.split("."), pattern.split(".")
    if len(segments) != len(wanted):
        return name
    return ".".join(want if fnmatchcase(own, want) else own for own, want in zip(segments, wanted, strict=True))
