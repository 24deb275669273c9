"""Breadth-first search over all states: the shortest way to a broken promise, or the proof that there is none."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .promises import PROMISES, at_rest, broken_by, broken_in, somebody_is_served, somebody_waits
from .state import DESKTOP, JOB, Faults, Rules, State, first_state
from .trace import Line, written_out
from .world import steps


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A broken promise and the shortest run that breaks it."""

    promise: str
    run: tuple[Line, ...]

    def __str__(self) -> str:
        return f"{self.promise} is broken: {PROMISES[self.promise]}\n{written_out(self.run)}"


@dataclass(frozen=True, slots=True)
class Result:
    """How many states were reached, and what was found there."""

    states: int
    counterexample: Counterexample | None


@dataclass(slots=True)
class Space:
    """The states found so far, in the order of finding, and how each was reached first."""

    states: list[State] = field(default_factory=list)
    number: dict[State, int] = field(default_factory=dict)
    reached: list[tuple[int, str]] = field(default_factory=list)
    helpful_into: list[list[int]] = field(default_factory=list)

    def add(self, state: State, origin: int, label: str) -> int:
        """The number of a state, known or new."""
        found = self.number.setdefault(state, len(self.states))
        if found == len(self.states):
            self.states.append(state)
            self.reached.append((origin, label))
            self.helpful_into.append([])
        return found

    def from_the_front(self) -> Iterator[int]:
        """Number after number, while the space grows."""
        number = 0
        while number < len(self.states):
            yield number
            number += 1

    def run_to(self, last: int) -> tuple[Line, ...]:
        """How a state is reached from the first one."""
        lines: list[Line] = []
        while last >= 0:
            origin, label = self.reached[last]
            lines.append(Line(label, self.states[last]))
            last = origin
        return tuple(reversed(lines))


def explore(rules: Rules, faults: Faults, kinds: tuple[str, ...] = (DESKTOP, JOB)) -> Result:
    """Visit every state that can be reached; stop at the first broken promise."""
    space = Space()
    space.add(first_state(rules, faults, kinds), -1, "the beginning")
    found = _unsafe(space, rules) or _restless(space, rules) or _unserved(space, rules)
    return Result(len(space.states), found)


def _unsafe(space: Space, rules: Rules) -> Counterexample | None:
    """Fill the space, and stop at the first step that must never happen."""
    for origin in space.from_the_front():
        before = space.states[origin]
        for step in steps(before, rules):
            is_new = step.state not in space.number
            promise = (is_new and broken_in(step.state)) or broken_by(before, step)
            if promise:
                return Counterexample(promise, (*space.run_to(origin), Line(step.label, step.state)))
            number = space.add(step.state, origin, step.label)
            if step.helps:
                space.helpful_into[number].append(origin)
    return None


def _restless(space: Space, rules: Rules) -> Counterexample | None:
    """A state from which no helpful steps lead to rest."""
    calm = _can_reach(space, at_rest)
    if all(calm):
        return None
    number = calm.index(False)
    return Counterexample("rest", space.run_to(number) + _left_alone(space.states[number], rules))


def _unserved(space: Space, rules: Rules) -> Counterexample | None:
    """A state in which somebody waits, and from which no helpful steps lead to anybody being served."""
    hopeful = _can_reach(space, somebody_is_served)
    for number, state in enumerate(space.states):
        if somebody_waits(state) and not hopeful[number]:
            return Counterexample("served", space.run_to(number) + _left_alone(state, rules))
    return None


def _can_reach(space: Space, goal: Callable[[State], bool]) -> list[bool]:
    """For each state whether helpful steps lead to the goal, found by walking backwards from there."""
    can = [goal(state) for state in space.states]
    to_visit = [number for number, there in enumerate(can) if there]
    while to_visit:
        for origin in space.helpful_into[to_visit.pop()]:
            if not can[origin]:
                can[origin] = True
                to_visit.append(origin)
    return can


def _left_alone(state: State, rules: Rules) -> tuple[Line, ...]:
    """The shortest way to rest when nothing goes wrong and nobody interferes; or, without one, as far as it goes."""
    space = Space()
    space.add(state, -1, "")
    for origin in space.from_the_front():
        if at_rest(space.states[origin]):
            return space.run_to(origin)[1:]
        for step in steps(space.states[origin], rules):
            if step.helps:
                space.add(step.state, origin, step.label)
    return space.run_to(len(space.states) - 1)[1:]
