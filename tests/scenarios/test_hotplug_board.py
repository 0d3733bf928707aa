"""Stories of CPUs and memory that come to a running guest."""

from dataclasses import replace

import pytest

from guestlet.qemu.machine import Accelerator
from scenarios.stage import Stage, disk
from unit.guest.guest_samples import KVM

MIB = 1 << 20


def cpus(stage: Stage) -> tuple[int, int | None]:
    cpu = stage.status().cpu
    assert cpu is not None
    return cpu.count, cpu.max_count


def memory(stage: Stage) -> tuple[str, str, str]:
    found = stage.status().memory
    assert found is not None
    return found.at_boot, found.current, found.max


async def test_cpus_are_plugged_up_to_the_maximum(stage: Stage) -> None:
    await stage.create(cpu={"count": 1, "maxCount": 4}, disks=[disk()])
    await stage.edit(cpu={"count": 3, "maxCount": 4})

    assert cpus(stage) == (3, 4)
    assert stage.says("RestartRequired")[0] == "False"
    assert stage.launches == 1


async def test_a_maximum_of_its_own_waits_for_the_next_start(stage: Stage) -> None:
    await stage.create(cpu={"count": 1}, disks=[disk()])
    await stage.edit(cpu={"count": 2})

    assert cpus(stage) == (1, 1)
    assert "cpu.count" in stage.condition("RestartRequired").message


async def test_under_tcg_a_cpu_stays_until_the_next_start(stage: Stage) -> None:
    await stage.create(cpu={"count": 2, "maxCount": 4}, disks=[disk()])
    await stage.edit(cpu={"count": 1, "maxCount": 4})

    assert cpus(stage) == (2, 4)
    assert "under TCG" in stage.condition("RestartRequired").message


async def test_under_kvm_a_cpu_leaves_when_the_guest_lets_it_go(stage: Stage) -> None:
    stage.host.probe = KVM
    await stage.create(cpu={"count": 3, "maxCount": 4}, disks=[disk()])
    assert stage.status().accelerator is Accelerator.KVM
    await stage.edit(cpu={"count": 1, "maxCount": 4})
    await stage.passes(2)

    assert cpus(stage) == (1, 4)
    assert stage.says("RestartRequired")[0] == "False"
    assert not stage.record().pending


async def test_a_cpu_is_not_plugged_into_a_full_translation_cache(stage: Stage) -> None:
    await stage.create(cpu={"count": 1, "maxCount": 2}, disks=[disk()])
    stage.qemu().switches.translation_cache_used = 0.95
    await stage.edit(cpu={"count": 2, "maxCount": 2})

    assert cpus(stage) == (1, 2)
    assert "translation cache" in stage.condition("RestartRequired").message


async def test_more_cpus_than_the_node_has_are_refused_while_the_guest_runs_on(stage: Stage) -> None:
    await stage.create(cpu={"count": 1, "maxCount": 64}, disks=[disk()])
    await stage.edit(cpu={"count": 64, "maxCount": 64})

    assert stage.says("Stalled") == ("True", "InsufficientCpus")
    assert stage.ready()


async def test_memory_is_offered_by_virtio_mem_and_taken(stage: Stage) -> None:
    await stage.create(memory={"size": "512Mi", "maxSize": "2Gi"}, disks=[disk()])
    await stage.edit(memory={"size": "1Gi", "maxSize": "2Gi"})
    await stage.passes(2)

    assert memory(stage) == ("512Mi", "1Gi", "2Gi")
    assert stage.says("RestartRequired")[0] == "False"
    assert not stage.record().pending
    assert stage.launches == 1


async def test_at_the_next_start_all_of_it_is_there_from_the_beginning(stage: Stage) -> None:
    await stage.create(memory={"size": "512Mi", "maxSize": "2Gi"}, disks=[disk()])
    await stage.edit(memory={"size": "1Gi", "maxSize": "2Gi"})
    await stage.edit(restart={"token": "cold"})
    await stage.passes(2)

    assert memory(stage) == ("1Gi", "1Gi", "2Gi")


async def test_a_guest_without_the_driver_gets_a_module(stage: Stage) -> None:
    await stage.create(memory={"size": "512Mi", "maxSize": "2Gi"}, disks=[disk()])
    stage.qemu().switches.takes_memory = False
    await stage.edit(memory={"size": "1Gi", "maxSize": "2Gi"})
    assert stage.says("Reconciling") == ("True", "Plugging")
    await stage.passes(60)

    assert memory(stage) == ("512Mi", "1Gi", "2Gi")
    found = stage.status().memory
    assert found is not None
    assert [each.size for each in found.dimms] == ["512Mi"]
    assert stage.says("Stalled")[0] == "False"
    assert not stage.record().pending


async def test_a_qemu_without_virtio_mem_gets_modules(stage: Stage) -> None:
    plain = replace(stage.host.capabilities, devices=stage.host.capabilities.devices - {"virtio-mem-pci"})
    stage.host.set_capabilities(plain)
    await stage.create(memory={"size": "512Mi", "maxSize": "2Gi"}, disks=[disk()])
    await stage.edit(memory={"size": "1Gi", "maxSize": "2Gi"})

    assert memory(stage) == ("512Mi", "1Gi", "2Gi")


@pytest.mark.parametrize("size", ["513Mi", "1025Mi"])
async def test_a_size_that_is_no_whole_number_of_blocks_is_refused_with_the_block(stage: Stage, size: str) -> None:
    await stage.create(memory={"size": "512Mi", "maxSize": "2Gi"}, disks=[disk()])
    await stage.edit(memory={"size": size, "maxSize": "2Gi"})

    assert stage.says("Stalled") == ("True", "MemoryNotAligned")
    assert "2Mi" in stage.condition("Stalled").message
    assert stage.ready()


async def test_less_memory_waits_for_the_next_start(stage: Stage) -> None:
    await stage.create(memory={"size": "1Gi", "maxSize": "2Gi"}, disks=[disk()])
    await stage.edit(memory={"size": "512Mi", "maxSize": "2Gi"})

    assert "memory.size" in stage.condition("RestartRequired").message
    assert memory(stage)[1] == "1Gi"


async def test_more_memory_than_the_node_has_is_refused(stage: Stage) -> None:
    await stage.create(memory={"size": "512Mi", "maxSize": "200Gi"}, disks=[disk()])
    await stage.edit(memory={"size": "128Gi", "maxSize": "200Gi"})

    assert stage.says("Stalled") == ("True", "InsufficientMemory")
    assert stage.ready()
