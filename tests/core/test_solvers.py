"""Conjugate gradients: exactness, warm start, preconditioning, refusal to run away."""

import pytest
import torch

from qsm_nipype.core.solvers import conjugate_gradient


def _spd(n: int, spread: float = 1e3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q @ torch.diag(torch.logspace(0, torch.log10(torch.tensor(spread)), n).double()) @ q.T


def test_solves_exactly_in_as_many_steps_as_unknowns():
    A = _spd(20, 50.0)
    truth = torch.linspace(-1, 2, 20, dtype=torch.float64)
    x, iterations = conjugate_gradient(
        lambda v: A @ v, A @ truth, tolerance=1e-12, max_iterations=60
    )
    assert iterations <= 25
    assert torch.allclose(x, truth, atol=1e-9)


def test_residual_is_below_the_stated_tolerance_and_volumes_work():
    A = _spd(60)
    b = torch.arange(60, dtype=torch.float64).reshape(3, 4, 5)
    x, _ = conjugate_gradient(
        lambda v: (A @ v.flatten()).reshape(3, 4, 5), b, tolerance=1e-4, max_iterations=500
    )
    assert (A @ x.flatten() - b.flatten()).norm() <= 1.01e-4 * b.norm()


def test_the_solution_as_start_needs_no_step():
    A = _spd(12)
    truth = torch.ones(12, dtype=torch.float64)
    x, iterations = conjugate_gradient(
        lambda v: A @ v, A @ truth, x0=truth, tolerance=1e-8, max_iterations=50
    )
    assert iterations == 0
    assert torch.equal(x, truth)


def test_the_inverse_as_preconditioner_needs_one_step():
    A = _spd(30, 1e4)
    inverse = torch.linalg.inv(A)
    b = torch.ones(30, dtype=torch.float64)
    _, plain = conjugate_gradient(lambda v: A @ v, b, tolerance=1e-6, max_iterations=200)
    _, helped = conjugate_gradient(
        lambda v: A @ v,
        b,
        tolerance=1e-6,
        max_iterations=200,
        preconditioner=lambda v: inverse @ v,
    )
    assert helped == 1 < plain


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_an_operator_without_curvature_stops_with_finite_values(scale):
    b = torch.ones(5)
    x, iterations = conjugate_gradient(lambda v: scale * v, b, tolerance=1e-6, max_iterations=10)
    assert iterations == 0
    assert torch.isfinite(x).all()


def test_zero_right_side_gives_zero():
    x, iterations = conjugate_gradient(
        lambda v: v, torch.zeros(4), tolerance=1e-6, max_iterations=9
    )
    assert iterations == 0
    assert not x.any()
