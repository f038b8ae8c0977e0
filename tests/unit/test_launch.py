"""The role of a process is read from its environment, and only from what makes it a rank."""

import pytest

from bench.run.launch import RankPlace, Role, find_place, find_role

TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}
SRUN = BATCH_SCRIPT | {"SLURM_PROCID": "2", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        (TORCHRUN, RankPlace(rank=3, local_rank=1, world_size=4, local_world_size=2)),
        (BATCH_SCRIPT, None),
        (SRUN, RankPlace(rank=2, local_rank=0, world_size=4, local_world_size=2)),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (SRUN | TORCHRUN, RankPlace(rank=3, local_rank=1, world_size=4, local_world_size=2)),
        (
            {
                "OMPI_COMM_WORLD_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            },
            RankPlace(rank=1, local_rank=1, world_size=2, local_world_size=2),
        ),
        ({"RANK": "one", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, None),
    ],
)
def test_a_place_is_found_where_ranks_were_started(environment: dict[str, str], place: RankPlace | None) -> None:
    assert find_place(environment) == place
    assert find_role(environment) is (Role.RANK if place else Role.LAUNCHER)
