import torch

from qsm_nipype.core.magnitude import combined_magnitude


def test_combined_magnitude_is_the_length_over_echoes_and_over_coils():
    torch.manual_seed(0)
    echoes, coils = torch.randn(3, 4, 5, 2), torch.randn(3, 4, 5, 2, 6)
    torch.testing.assert_close(
        combined_magnitude(echoes), torch.linalg.vector_norm(echoes, dim=-1)
    )
    torch.testing.assert_close(combined_magnitude(coils), torch.linalg.vector_norm(coils, dim=-1))
    assert torch.equal(combined_magnitude(echoes[..., 0]), echoes[..., 0].abs())
