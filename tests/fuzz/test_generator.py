"""What is fuzzed with: repeatable, for every method, and harmless."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from google.protobuf import message_factory

from protos.skyrack.v1 import jobs_pb2
from tests.agent.methods import METHODS, Method
from tests.fuzz.cases import CALLERS, Kind, Manner, case
from tests.fuzz.generator import Generator, parsed
from tests.fuzz.harmless import harmless, is_harmless
from tests.fuzz.raw import Door, raw_case
from tests.fuzz.world import ALLOWED, KNOWN, World, valid

MANY = 3_000


def test_a_seed_and_a_number_name_a_case() -> None:
    """The same again gives the same bytes; another seed gives others."""
    numbers = range(-50, 200)
    first, again, other = ([case(seed, number) for number in numbers] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert [raw_case(1, number) for number in numbers] == [raw_case(1, number) for number in numbers]


def test_all_methods_are_called_by_all_in_all_ways() -> None:
    """Nothing that is served is left out, whoever adds it."""
    cases = [case(7, number) for number in range(MANY)]
    assert {each.method.name for each in cases} == {method.name for method in METHODS}
    assert {each.caller for each in cases} == {*CALLERS}
    assert {each.kind for each in cases} == {*Kind}
    assert {each.manner for each in cases} == {*Manner}
    assert {raw_case(7, number).door for number in range(100)} == {*Door}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_is_told_something_that_means_well(method: Method) -> None:
    """Nobody gets far by chance alone: a method whose request has fields is in `world`."""
    messages = valid(method.name, random.Random(1), World())
    if method.of.input_type.fields and "renew" not in method.of.input_type.fields_by_name:
        assert messages or method.name.endswith("Health/List")
    assert all(type(message).DESCRIPTOR is method.of.input_type for message in messages)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_messages_with_any_fields_are_messages(method: Method) -> None:
    """What is drawn for a type can be read as that type; among many, every field of it is set."""
    generator, seen = Generator(random.Random(2), KNOWN), Counter[str]()
    for _ in range(50):
        read = parsed(method.of.input_type, generator.filled(method.of.input_type).SerializeToString())
        assert read is not None
        seen.update(field.name for field, _ in read.ListFields())
    in_oneofs = {field.name for oneof in method.of.input_type.oneofs for field in oneof.fields}
    assert {*method.of.input_type.fields_by_name} - {*seen} <= in_oneofs


def test_what_is_drawn_is_bounded() -> None:
    """No case fills the memory of the machine that makes it, nor goes much beyond what a message may have."""
    largest_bytes = max(sum(map(len, case(100, number).frames)) for number in range(MANY))
    assert 4 * 2**20 <= largest_bytes < 50 * 2**20


def test_a_message_grows_to_the_size_asked_for() -> None:
    """What is to be as large as a message may be is nearly that."""
    for number in range(100):
        message = jobs_pb2.ReturnJobRequest(job=jobs_pb2.Job(spec=jobs_pb2.JobSpec(id="x")))
        message.job.outputs.add(name="y")
        grown = Generator(random.Random(number), KNOWN).grown(message, 1_000_000)
        assert 490_000 < len(grown) <= 1_000_000


def test_no_job_that_is_handed_in_does_anything() -> None:
    """Of all cases, whatever an agent could read as a job has a program that does nothing, and no variable that would
    change what it does."""
    request = jobs_pb2.SubmitRequest.DESCRIPTOR
    commands = 0
    for number in range(MANY):
        made = case(3, number)
        for frame in made.frames if made.method.of.input_type is request else ():
            read = parsed(request, frame)
            if isinstance(read, jobs_pb2.SubmitRequest):
                argv = [*read.spec.command.argv]
                assert not argv or any(argv[: len(allowed)] == allowed for allowed in ALLOWED)
                assert is_harmless(read.spec)
                commands += bool(argv)
    assert commands > 100


def test_a_job_that_would_do_something_is_made_harmless() -> None:
    """Commands, and variables that a loader heeds, are replaced; the rest stays as it was."""
    spec = jobs_pb2.JobSpec(id="x", command=jobs_pb2.JobSpec.Command(argv=["rm", "-rf", "/"]), priority=3)
    spec.environment["LD_PRELOAD"] = "x"
    data = jobs_pb2.SubmitRequest(spec=spec).SerializeToString()
    made = message_factory.GetMessageClass(jobs_pb2.SubmitRequest.DESCRIPTOR).FromString(
        harmless(jobs_pb2.SubmitRequest.DESCRIPTOR, data, random.Random(1))
    )
    assert isinstance(made, jobs_pb2.SubmitRequest)
    assert [*made.spec.command.argv] in ALLOWED
    assert not made.spec.environment
    assert made.spec.priority == 3
