"""Every method of every service that some agent serves, from the descriptors: who adds one need not name it here."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf import descriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from protos.skyrack.v1 import jobs_pb2, node_pb2, objects_pb2

FILES = (jobs_pb2, objects_pb2, node_pb2, health_pb2, reflection_pb2)
NOBODYS_METHOD = "grpc.health.v1.Health/List"


class Method(NamedTuple):
    """A method of a service that some agent serves."""

    name: str  # skyrack.v1.Jobs/Get
    of: descriptor.MethodDescriptor


METHODS = [
    Method(f"{service.full_name}/{method.name}", method)
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
