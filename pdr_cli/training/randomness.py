"""The random generators of a training: seeded at its start, and kept in its state so that a resumed run draws the same.

torch, NumPy and Python have one each. Modules of others may keep further ones, as attributes of the network or as names of
their file.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pdr_cli import families

CPU, CUDA, OTHERS = "random.cpu", "random.cuda", "random.others"  # tensors of a training's state
OURS = ("pdr_cli", "torch")


@dataclass(frozen=True)
class Kind:
    """How generators of a type give their state as JSON has it, take it back, and begin anew."""

    type: type
    get: Callable[[Any], Any]
    set: Callable[[Any, Any], object]
    seed: Callable[[Any, int], object]


def _python_state(generator: random.Random, state: list[Any]) -> None:
    generator.setstate((state[0], tuple(state[1]), state[2]))


def _begin_anew(generator: np.random.Generator, seed: int) -> None:
    generator.bit_generator.state = type(generator.bit_generator)(seed).state


KINDS = (
    Kind(
        torch.Generator,
        lambda g: g.get_state().tolist(),
        lambda g, state: g.set_state(torch.tensor(state, dtype=torch.uint8)),
        lambda g, seed: g.manual_seed(seed),
    ),
    Kind(
        np.random.Generator,
        lambda g: g.bit_generator.state,
        lambda g, state: setattr(g.bit_generator, "state", state),
        _begin_anew,
    ),
    Kind(
        np.random.RandomState,
        lambda g: g.get_state(legacy=False),
        lambda g, state: g.set_state(state),
        lambda g, seed: g.seed(seed),
    ),
    Kind(random.Random, lambda g: g.getstate(), _python_state, lambda g, seed: g.seed(seed)),
)
NUMPY: np.random.RandomState = np.random.mtrand._rand  # of np.random.rand and the like
PYTHON: random.Random = random._inst  # of random.random and the like


class Randomness:
    """The generators that a network may draw from.

    Args:
        network: that is trained.
        device: of the training.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.device = device
        self.others = {"python": PYTHON, "numpy": NUMPY} | kept_by(network) | named_in(families.FOREIGN)

    def tensors(self) -> dict[str, Tensor]:
        """The states, as a training's state keeps them."""
        others = json.dumps(self._states(), default=_plain).encode()
        kept = {CPU: torch.get_rng_state(), OTHERS: torch.frombuffer(bytearray(others), dtype=torch.uint8)}
        return kept | ({CUDA: torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {})

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the states that a training's state has; one of an older version has fewer."""
        torch.set_rng_state(tensors[CPU])
        if CUDA in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors[CUDA], self.device)
        if OTHERS in tensors:
            self._set(json.loads(tensors[OTHERS].numpy().tobytes()))

    def snapshot(self) -> Callable[[], None]:
        """A function that sets all generators to their states of now."""
        cpu, others = torch.get_rng_state(), self._states()
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None

        def restore() -> None:
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state(cuda, self.device)
            self._set(others)

        return restore

    def begin(self, entropy: Sequence[int]) -> None:
        """Begin all generators anew, each differently."""
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        _seed_each(entropy, self.others)

    def _states(self) -> dict[str, Any]:
        return {name: kind_of(generator).get(generator) for name, generator in self.others.items()}

    def _set(self, states: Mapping[str, Any]) -> None:
        for name, generator in self.others.items():
            if name in states:
                kind_of(generator).set(generator, states[name])


def seed_all(seed: int, further: Mapping[str, Any]) -> None:
    """Seed torch, NumPy and Python, and further generators."""
    torch.manual_seed(seed)
    seed_each(seed, {"python": PYTHON, "numpy": NUMPY, **further})


def seed_each(seed: int, generators: Mapping[str, Any]) -> None:
    """Seed generators by their names, each differently."""
    _seed_each([seed], generators)


def _seed_each(entropy: Sequence[int], generators: Mapping[str, Any]) -> None:
    for name, generator in generators.items():
        of_name = np.random.SeedSequence([*entropy, *name.encode()])
        kind_of(generator).seed(generator, int(of_name.generate_state(1)[0]))


def kind_of(generator: object) -> Kind:
    """The kind of a generator."""
    return next(kind for kind in KINDS if isinstance(generator, kind.type))


def kept_by(network: nn.Module) -> dict[str, Any]:
    """Generators that modules of others have as attributes, by the name of the attribute."""
    others = ((n, m) for n, m in network.named_modules() if type(m).__module__.partition(".")[0] not in OURS)
    return dict(_generators((f"{name}.{key}", value) for name, module in others for key, value in vars(module).items()))


def named_in(modules: Iterable[str]) -> dict[str, Any]:
    """Generators that are names of modules, by module and name."""
    loaded = ((name, vars(sys.modules[name])) for name in sorted(modules) if name in sys.modules)
    return dict(_generators((f"{name}:{key}", value) for name, names in loaded for key, value in names.items()))


def _generators(named: Iterable[tuple[str, object]], deeper: bool = True) -> Iterator[tuple[str, Any]]:
    """Those of some objects, and with `deeper` of the lists and dictionaries among them, that have a state."""
    for name, value in named:
        if deeper and isinstance(value, dict):
            yield from _generators(((f"{name}.{key}", entry) for key, entry in value.items()), deeper=False)
        elif deeper and isinstance(value, (list, tuple)):
            yield from _generators(((f"{name}.{index}", entry) for index, entry in enumerate(value)), deeper=False)
        elif isinstance(value, tuple(kind.type for kind in KINDS)) and not isinstance(value, random.SystemRandom):
            yield name, value


def _plain(value: Any) -> Any:
    return value.tolist()
