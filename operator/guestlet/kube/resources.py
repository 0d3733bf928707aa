"""The kinds that the program speaks of, as values. Nothing else."""

from typing import Final

from guestlet.api.guest import GROUP, PLURAL, VERSION
from guestlet.kube.client import Resource

GUESTS: Final = Resource(group=GROUP, version=VERSION, plural=PLURAL)
NODES: Final = Resource(group="", version="v1", plural="nodes")
LEASES: Final = Resource(group="coordination.k8s.io", version="v1", plural="leases")
EVENTS: Final = Resource(group="events.k8s.io", version="v1", plural="events")
