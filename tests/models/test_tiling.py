"""The tiler: an identity network returns its input, whatever the shapes; nothing is left out."""

import pytest
import torch

from qsm_nipype.models.inference import batch_size, blending, sliding_window, tile_starts


def _volume(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(70, 50, 90), (16, 33, 40), (48, 48, 48)])
@pytest.mark.parametrize("context", [0, 8])
def test_identity_network_returns_its_input(shape, context):
    def identity(x):
        return x[..., context:-context, context:-context, context:-context] if context else x

    x = _volume(*shape)
    y = sliding_window(x, identity, patch=(48,) * 3, overlap=(8,) * 3, context=context)
    assert y.shape == x.shape
    assert torch.allclose(y, x, atol=2e-6)


def test_overlap_may_be_none_at_all():
    x = _volume(40, 40, 40)
    y = sliding_window(x, lambda t: t, patch=(16,) * 3, overlap=(0,) * 3)
    assert torch.allclose(y, x, atol=1e-6)


def test_context_makes_a_convolution_seamless():
    kernel = torch.rand(1, 1, 5, 5, 5, generator=torch.Generator().manual_seed(2)) / 125
    x = _volume(60, 40, 52)
    whole = torch.nn.functional.conv3d(x[None, None], kernel, padding=2)[0, 0]

    def network(t):
        return torch.nn.functional.conv3d(t, kernel, padding=2)[..., 4:-4, 4:-4, 4:-4]

    y = sliding_window(x, network, patch=(32,) * 3, overlap=(6,) * 3, context=4)
    assert torch.allclose(y, whole, atol=1e-5)


def test_empty_tiles_are_skipped_and_stay_zero():
    x, where = torch.ones(64, 16, 16), torch.zeros(64, 16, 16, dtype=torch.bool)
    where[:10] = True
    seen = []

    def network(t):
        seen.append(t.shape[0])
        return t

    y = sliding_window(x, network, patch=(16,) * 3, overlap=(0,) * 3, where=where)
    assert sum(seen) == 1
    assert y[:16].eq(1).all() and y[16:].eq(0).all()


@pytest.mark.parametrize(
    ("n", "tile", "overlap"), [(100, 48, 8), (48, 48, 8), (49, 48, 47), (5, 8, 2)]
)
def test_tiles_cover_everything_and_share_the_overlap(n, tile, overlap):
    starts = tile_starts(n, tile, overlap)
    assert starts[0] == 0 and starts[-1] + tile >= n
    assert all(b - a <= tile - overlap for a, b in zip(starts, starts[1:], strict=False))
    assert starts[-1] == max(0, n - tile)


def test_blending_is_positive_symmetric_and_flat_in_the_middle():
    w = blending((12, 10, 9), (3, 3, 3), torch.zeros(()))
    assert (w > 0).all() and w[5, 5, 4] == 1
    assert torch.equal(w, w.flip(0, 1, 2))


def test_batches_respect_memory():
    assert batch_size(64**3, torch.device("cpu")) in (3, 4)
    assert batch_size(10**10, torch.device("cpu")) == 1
