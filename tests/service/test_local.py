"""What the embedded cluster tells its workers."""

from __future__ import annotations

import pytest

from engine.data.errors import InvalidInput
from engine.service.local import LocalCluster
from engine.service.local_options import local_options


@pytest.mark.parametrize(
    ("device", "workers", "devices", "shares"),
    [
        (None, 3, [None] * 3, [3] * 3),
        ("cpu", 2, ["cpu"] * 2, [2] * 2),
        ("cuda:0,cuda:1", 2, ["cuda:0", "cuda:1"], [1, 1]),
        ("cuda:0, cuda:1", 3, ["cuda:0", "cuda:1", "cuda:0"], [2, 1, 2]),
    ],
)
def test_workers_take_the_devices_in_turn_and_share_those_that_they_have_in_common(
    device: str | None, workers: int, devices: list[str | None], shares: list[int]
) -> None:
    cluster = LocalCluster(local_options(model="gpt2:tiny", num_workers=workers, device=device))
    made = [cluster.worker_options(index) for index in range(workers)]
    assert [one.device for one in made] == devices and [one.share_with for one in made] == shares


@pytest.mark.parametrize("device", [",", "cuda:0,", "cuda:0, ,cuda:1", ""])
def test_a_list_of_devices_with_an_empty_name_is_refused(device: str) -> None:
    with pytest.raises(InvalidInput, match=r"--device .* has an empty name: .*cuda:0,cuda:1"):
        local_options(model="gpt2:tiny", num_workers=2, device=device)
