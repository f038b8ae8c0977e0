"""What a result tells of the machine holds no secret."""

from bench.run.environment import masked

PLANTED = {
    "NCCL_DEBUG": "INFO",
    "OMP_NUM_THREADS": "4",
    "TORCH_HUB_TOKEN": "planted-1",
    "CUDA_API_KEY": "planted-2",
    "SLURM_JWT_SECRET": "planted-3",
    "NCCL_PROXY": "http://user:planted-4@host:80/",
    "HF_TOKEN": "planted-5",
    "HOME": "/home/planted-6",
}


def test_secrets_are_masked_and_strangers_left_out() -> None:
    kept = masked(PLANTED)
    assert "planted" not in str(kept)
    assert kept["NCCL_DEBUG"] == "INFO"
    assert kept["TORCH_HUB_TOKEN"] == "***"
    assert kept["NCCL_PROXY"] == "http://***@host:80/"
    assert "HOME" not in kept
