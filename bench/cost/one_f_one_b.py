"""Seconds of a 1F1B pipeline whose sends and receives block, followed message by message.

Source: Narayanan et al. 2021, arXiv 2104.04473, section 2.2; torch 2.13, torch/distributed/pipelining/schedules.py, Schedule1F1B:
in the steady state a stage waits for what it sends and what it receives together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

Message = tuple[str, int, int]  # F or B, the stage it comes from, the micro-batch


@dataclass(frozen=True)
class StageTimes:
    """Seconds of what a stage does for one micro-batch."""

    forward_s: float
    backward_s: float
    one_way_s: float  # a message between neighbours
    both_ways_s: float  # two messages between the same neighbours, there and back at once


@dataclass
class _Messages:
    """When each message was offered at both ends; it begins when both are there."""

    times: StageTimes
    offered_s: dict[tuple[Message, str], float] = field(default_factory=dict)
    both_ways: set[Message] = field(default_factory=set)

    def offer(self, batch: list[tuple[Message, str]], now_s: float) -> None:
        for message, end in batch:
            self.offered_s[message, end] = now_s
        if len({end for _, end in batch}) == 2:
            self.both_ways |= {message for message, _ in batch}

    def done_s(self, message: Message) -> float | None:
        ends = [self.offered_s.get((message, end)) for end in ("from", "to")]
        if None in ends:
            return None
        return max(e for e in ends if e is not None) + (self.times.both_ways_s if message in self.both_ways else self.times.one_way_s)


Action = tuple[str, list[tuple[Message, str]]]  # offer or wait, messages with the end that this stage is; or F or B, without


def schedule_s(times: StageTimes, n_stages: int, n_micro_batches: int) -> float:
    """Seconds from the first pass of the first stage to the last of the last.

    >>> schedule_s(StageTimes(1.0, 2.0, 0.0, 0.0), n_stages=2, n_micro_batches=4)
    15.0
    """
    plans = [list(actions(stage, n_stages, n_micro_batches)) for stage in range(n_stages)]
    places, now_s, messages = [0] * n_stages, [0.0] * n_stages, _Messages(times)
    while any(place < len(plan) for place, plan in zip(places, plans, strict=True)):
        before = tuple(places)
        for stage, plan in enumerate(plans):
            while places[stage] < len(plan) and (then := _after(plan[places[stage]], now_s[stage], messages)) is not None:
                now_s[stage] = then
                places[stage] += 1
        assert tuple(places) != before, "every message has two ends"
    return max(now_s)


def _after(action: Action, now_s: float, messages: _Messages) -> float | None:
    """When the action is over; None where it waits for a stage that has not come so far."""
    what, batch = action
    if what == "offer":
        messages.offer(batch, now_s)
    if what == "wait":
        done = [messages.done_s(message) for message, _ in batch]
        return None if None in done else max([now_s, *(d for d in done if d is not None)])
    return now_s + {"F": messages.times.forward_s, "B": messages.times.backward_s}.get(what, 0.0)


def actions(stage: int, n_stages: int, n_micro_batches: int) -> Iterator[Action]:
    """What a stage does, in order."""
    ahead = min(n_micro_batches, n_stages - stage)
    sent: list[tuple[Message, str]] = []
    for m in range(ahead):
        yield from _together(_taken("F", stage - 1, m, n_stages))
        yield "F", []
        yield "wait", sent
        sent = _given("F", stage, m, n_stages)
        if m < ahead - 1:
            yield "offer", sent
    for m in range(n_micro_batches):
        if m <= n_micro_batches - ahead:
            yield from _together([*sent, *_taken("B", stage + 1, m, n_stages)])
            sent = []
        else:
            yield from _together(_taken("B", stage + 1, m, n_stages))
        yield "B", []
        given = _given("B", stage, m, n_stages)
        if ahead + m < n_micro_batches:
            yield from _together([*given, *_taken("F", stage - 1, ahead + m, n_stages)])
            yield "F", []
            sent = _given("F", stage, ahead + m, n_stages)
        else:
            yield "wait", sent
            yield "offer", given
            sent = given
    yield "wait", sent


def _together(batch: list[tuple[Message, str]]) -> Iterator[Action]:
    yield "offer", batch
    yield "wait", batch


def _given(kind: str, stage: int, m: int, n_stages: int) -> list[tuple[Message, str]]:
    """The message that follows a pass, at its beginning; the last stage sends no activations, the first no gradients."""
    has_next = stage < n_stages - 1 if kind == "F" else stage > 0
    return [((kind, stage, m), "from")] if has_next else []


def _taken(kind: str, stage: int, m: int, n_stages: int) -> list[tuple[Message, str]]:
    """The message of another stage that a pass begins with, at its end."""
    return [((kind, stage, m), "to")] if 0 <= stage < n_stages else []
