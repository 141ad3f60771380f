"""Adapting the demo server to coded scenes: training batches, training loop, resuming, and the command `adapt`."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sagelink.lab.adapt.adaptation import Student, mixed, save_adapted
from sagelink.lab.adapt.held_out import Agreement, HeldOut
from sagelink.lab.adapt.trainer import Trainer
from sagelink.lab.adapt.training_batches import Batch, BatchDataset
from sagelink.lab.adapt.unlabelled_frames import AdaptationFrames, gather
from sagelink.lab.harness import Harness
from sagelink.models.heads.apply import with_classes
from sagelink.models.heads.readout import LinearReadout
from sagelink.models.loading import Model, load, read_checkpoint, weights_digest
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.stages.frontier import RateQualityCurve, find_frontier, read_frontier
from sagelink.transport.patch_embedding import Embedding
from tests.heads import SITE, random_head
from tests.pipeline.files.test_private_files import file_size_limit

SIZES = (250, 500)  # bytes per message


class Setup:
    """The demo pair with 140 scenes, split into training and held-out frames."""

    def __init__(self, config: Config, harness: Harness) -> None:
        self.harness = harness
        self.stock: Model = harness.pair.server
        self.progress: list[int] = []
        self.training, self.held_out = gather(config.all_cameras, 140, harness, config, self.progress.append)
        self.curves: list[RateQualityCurve] = read_frontier(find_frontier(self.stock.name, None), harness.canvas)

    def batches(self, seed: int = 0, batch_sizes: tuple[int, int] = (3, 4)) -> BatchDataset:
        return BatchDataset(self.training, self.curves, self.harness.canvas, SIZES, batch_sizes, seed)

    def student(self, batch_sizes: tuple[int, int] = (2, 1)) -> Student:
        return Student(self.stock, InProcessBatches(self.batches(batch_sizes=batch_sizes)), bf16=False)

    def trainer(self, held_out: HeldOut, limit_s: float) -> Trainer:
        return Trainer(self.student(), self.stock, held_out, 500, limit_s)


class InProcessBatches(BatchDataset):
    """The same batches, made in this process: worker processes take longer to start than the test needs."""

    def __init__(self, batches: BatchDataset) -> None:
        self._source = batches

    def from_step(self, step: int) -> Iterator[tuple[Batch, Batch]]:
        return (self._source[number] for number in itertools.count(step))


@pytest.fixture(scope="module")
def setup(demo_config: Config, demo_harness: Harness) -> Setup:
    return Setup(demo_config, demo_harness)


class FakeHeldOut(HeldOut):
    """Returns given agreements: one for the stock server, the others for the adapted models in turn."""

    def __init__(self, stock: Agreement, *adapted: Agreement) -> None:
        self.stock = stock
        self._adapted = itertools.chain(adapted, itertools.repeat(adapted[-1]))

    def __len__(self) -> int:
        return 100

    def agreement(self, model: Model) -> Agreement:
        return next(self._adapted)


class RecordingObserver:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.checks = 0

    def on_step(self, steps: int, loss: float, spent_s: float) -> None:
        self.steps.append(steps)
        self.losses.append(loss)

    def on_check(self, agreement: Agreement) -> None:
        self.checks += 1


STOCK = Agreement((0.5, 0.6), (0.4,))
BETTER = Agreement((0.6, 0.7), (0.4,))


def improving() -> HeldOut:
    return FakeHeldOut(STOCK, BETTER)


def ticking_clock() -> Callable[[], int]:
    """A clock that is one second later each time it is read."""
    return itertools.count().__next__


def never() -> bool:
    return False


def no_save() -> None:
    pass


def test_frames_are_split_by_sections_with_progress(setup: Setup) -> None:
    assert (len(setup.training), len(setup.held_out)) == (119, 21)
    assert setup.progress == list(range(1, 141))
    assert setup.training.padded_views.shape[1:] == (160, 160, 3)
    assert setup.training.pictures.shape[1:] == (112, 112, 3)
    assert (np.sort(setup.training.orders, axis=1) == np.arange(196)).all()


def test_batches_depend_on_seed_and_step_only(setup: Setup) -> None:
    whole, chosen = setup.batches()[5]
    from_workers = setup.batches().from_step(5)
    (again, _), (later, _) = next(from_workers), next(from_workers)
    other_seed, _ = setup.batches(seed=1)[5]
    assert (whole.coded == again.coded).all()
    assert whole.units is None
    assert not (whole.clean == later.clean).all()
    assert not (whole.clean == other_seed.clean).all()
    assert all((clean != coded).any() for clean, coded in zip(whole.clean, whole.coded, strict=True))
    assert chosen.units is not None
    assert len(chosen.units) == 4
    assert (np.diff(chosen.units, axis=1) > 0).all()  # ascending, none twice


def test_coded_units_are_a_rectangle_and_the_rest_is_black(setup: Setup) -> None:
    batches = setup.batches()
    raw = coded = 0
    for _, chosen in (batches[step] for step in range(12)):
        assert chosen.units is not None
        for clean, partial, units in zip(chosen.clean, chosen.coded, chosen.units, strict=True):
            if (clean == partial).all():
                raw += 1
                continue
            coded += 1
            y, x = np.divmod(units, 14)
            assert len(units) == (np.ptp(y) + 1) * (np.ptp(x) + 1)
            inside = partial[8 * y.min() : 8 * y.max() + 8, 8 * x.min() : 8 * x.max() + 8]
            assert inside.sum() == partial.sum()
    assert raw > 0
    assert coded > 0


def test_chosen_units_follow_the_order_in_mirrored_frames_too(setup: Setup) -> None:
    """Marks each frame's best unit with white pixels; most choices contain the marked unit."""
    marked = np.zeros_like(setup.training.pictures)
    best = setup.training.orders[:, 0]
    for picture, unit in zip(marked, best, strict=True):
        y, x = divmod(int(unit), 14)
        picture[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 255
    frames = replace(setup.training, pictures=marked)
    batches = BatchDataset(frames, setup.curves, setup.harness.canvas, SIZES, (1, 8), 0)
    found, mirrored = 0, 0
    for _, chosen in (batches[step] for step in range(24)):
        assert chosen.units is not None
        for picture, units in zip(chosen.clean, chosen.units, strict=True):
            cells = picture.reshape(14, 8, 14, 8, 3).max((1, 3, 4)).ravel()
            y, x = divmod(int(np.flatnonzero(cells)[0]), 14)
            found += 14 * y + x in units
            mirrored += 14 * y + 13 - x in units
    assert found >= 135  # of 192; 3 of 10 choices are random and contain it by chance only
    assert found - mirrored > 20


@pytest.mark.campaign
def test_the_loss_falls_and_the_patch_embedding_is_not_trained(setup: Setup) -> None:
    student = setup.student(batch_sizes=(4, 2))
    for _ in range(5):
        student.step(0.1)
    untrained = setup.student(batch_sizes=(4, 2))
    untrained.steps = student.steps  # so that it gets the same batches
    assert sum(student.step(0.1) for _ in range(3)) < sum(untrained.step(1.0) for _ in range(3))
    weights, stock = student.weights(), setup.stock.vit.state_dict()
    assert torch.equal(weights["patch_embed.proj.weight"], stock["patch_embed.proj.weight"])
    assert not torch.equal(weights["blocks.0.attn.qkv.weight"], stock["blocks.0.attn.qkv.weight"])


@pytest.mark.campaign
def test_a_resumed_training_gives_identical_results(setup: Setup, tmp_path: Path) -> None:
    uninterrupted, observer = setup.trainer(improving(), limit_s=8), RecordingObserver()
    assert uninterrupted.train(ticking_clock(), never, observer, no_save)
    assert observer.steps == list(range(1, observer.steps[-1] + 1))

    state, first = tmp_path / "adapted.resume", setup.trainer(improving(), limit_s=8)
    assert not first.train(ticking_clock(), lambda: first.steps == 3, RecordingObserver(), no_save)
    first.save(state, {"seed": 0})
    second, remaining = setup.trainer(improving(), limit_s=8), RecordingObserver()
    second.resume(state, {"seed": 0})
    assert second.steps == 3
    assert second.train(ticking_clock(), never, remaining, no_save)
    assert remaining.steps == observer.steps[3:]
    assert remaining.losses == observer.losses[3:]
    one, other = (trainer.result(lambda *_: None).model for trainer in (uninterrupted, second))
    assert weights_digest(one) == weights_digest(other) != weights_digest(setup.stock)


def test_a_state_of_another_training_is_refused(setup: Setup, tmp_path: Path) -> None:
    state, trainer = tmp_path / "adapted.resume", setup.trainer(improving(), limit_s=1)
    trainer.save(state, {"sources": ["a"], "seed": 0})
    with pytest.raises(UsageError, match=r"another sources: \['a'\], here \['b'\]"):
        trainer.resume(state, {"sources": ["b"], "seed": 0})
    state.write_bytes(b"PK no state")
    with pytest.raises(UsageError, match="not a state of an adaptation"):
        trainer.resume(state, {"sources": ["a"], "seed": 0})
    with pytest.raises(SagelinkError, match="cannot be written"):
        trainer.save(tmp_path / "none" / "adapted.resume", {})
    before = state.read_bytes()
    with file_size_limit(10_000), pytest.raises(SagelinkError, match="cannot be written: File too large"):
        trainer.save(state, {"sources": ["a"], "seed": 0})
    assert state.read_bytes() == before
    assert [*tmp_path.iterdir()] == [state]


@pytest.mark.campaign
@pytest.mark.parametrize(
    "adapted",
    [
        Agreement((0.4, 0.9), (0.4,)),  # worse at one size
        Agreement((0.5, 0.6), (0.4,)),  # not better
        Agreement((0.9, 0.9), (0.3,)),  # worse with a part of the units
    ],
)
def test_a_result_that_is_not_better_than_stock_is_refused(setup: Setup, adapted: Agreement) -> None:
    trainer = setup.trainer(FakeHeldOut(STOCK, adapted), limit_s=2)
    assert trainer.train(ticking_clock(), never, RecordingObserver(), no_save)
    with pytest.raises(SagelinkError, match="nothing is saved"):
        trainer.result(lambda *_: None)


def test_training_ends_early_without_improvement(setup: Setup) -> None:
    falling = [Agreement((share, share), (0.4,)) for share in (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)]
    observer = RecordingObserver()
    trainer = setup.trainer(FakeHeldOut(STOCK, *falling), limit_s=20)
    assert trainer.train(ticking_clock(), never, observer, no_save)
    assert observer.checks == 5
    assert observer.steps[-1] < 12


def test_the_result_names_the_step_of_its_weights(setup: Setup, tmp_path: Path) -> None:
    def best_at_first() -> HeldOut:
        return FakeHeldOut(STOCK, Agreement((0.9, 0.9), (0.4,)), Agreement((0.7, 0.7), (0.4,)))

    first, state = setup.trainer(best_at_first(), limit_s=20), tmp_path / "adapted.resume"
    assert first.train(ticking_clock(), never, RecordingObserver(), no_save)
    first.save(state, {})
    resumed = setup.trainer(best_at_first(), limit_s=20)
    resumed.resume(state, {})
    assert resumed.steps == first.steps
    assert resumed.result(lambda *_: None).steps == first.result(lambda *_: None).steps == 2 < first.steps


def test_agreement_of_the_stock_server_on_held_out_frames(setup: Setup) -> None:
    progress: list[tuple[int, int]] = []
    held_out = HeldOut(
        setup.held_out,
        setup.curves,
        setup.stock,
        (5, 500, 100_000),
        False,
        lambda done, total: progress.append((done, total)),
    )
    assert 0.0 < held_out.stock.units[0] < held_out.stock.units[1] < 1.0
    assert held_out.stock.sizes[0] == 0.0  # no message is so short
    assert held_out.stock.sizes[1] < held_out.stock.sizes[2]
    assert progress == [(done, 63) for done in range(1, 64)]


def test_mixed_weights_lie_between_both(setup: Setup) -> None:
    stock = setup.stock.vit.state_dict()
    other = {key: value + 1 for key, value in stock.items()}
    model = mixed(setup.stock, other, 0.5, 500)
    assert model.vit is setup.stock.vit
    assert model.partial is not None
    half = model.partial.vit.state_dict()
    assert all(torch.allclose(half[key], stock[key] + 0.5, atol=2e-3) for key in stock)


def test_a_server_with_a_head_is_adapted_and_the_checkpoint_has_its_own_classes(setup: Setup, tmp_path: Path) -> None:
    readout = LinearReadout(torch.randn(3, 2 * setup.stock.vit.embed_dim), torch.zeros(3), "token+mean")
    taught = with_classes(setup.stock, SITE, readout, random_head(setup.harness.pair))
    student = Student(taught, InProcessBatches(setup.batches(batch_sizes=(2, 1))), bf16=False)
    assert student.step(0.0) > 0
    out = tmp_path / "adapted.safetensors"
    save_adapted(mixed(taught, student.weights(), 0.5, 500), setup.stock, out, 0.5, student.steps)
    model = load(ModelConfig(checkpoint=out), "demo-server")
    assert model.labels == setup.stock.labels
    assert weights_digest(replace(model, partial=None)) == weights_digest(setup.stock)
    assert model.partial is not None


# The fastest selection: these tests are not about it.
DEMO = ("--models", "demo", "--set", "select.importance=last", "--set", "select.selector=topk")


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few frames per step, because these tests are about the command and not about the training."""
    monkeypatch.setattr("sagelink.lab.adapt.adaptation.BATCH_SIZES", (4, 2))


def fake_agreement(monkeypatch: pytest.MonkeyPatch, adapted: float) -> None:
    """The stock server, which is measured first, has an agreement of 0.5, every adapted model the given one."""
    answers = itertools.chain([0.5], itertools.repeat(adapted))
    monkeypatch.setattr(HeldOut, "agreement", lambda self, model: Agreement((next(answers),), ()))


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.campaign
def test_the_command_continues_after_ctrl_c_and_writes_a_checkpoint(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "adapted.safetensors"
    sources = ("synthetic:70,seed=1,size=112x112", "synthetic:70,seed=2,size=112x112")
    adapt = ("adapt", *sources, *DEMO, "--bytes", "300", "--out", out)
    step = Student.step

    def interrupted_step(self: Student, progress: float) -> float:
        if self.steps == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, progress)

    with monkeypatch.context() as patched:
        fake_agreement(patched, 0.6)
        patched.setattr(Student, "step", interrupted_step)
        code, printed = command(*adapt, "--minutes", "60")
    assert code == 1, printed
    assert "120 frames to learn from, 20 held out" in printed
    assert f"interrupted after step 2; progress is in {out}.resume: the same command continues" in printed
    assert [*out.parent.iterdir()] == [out.with_name(out.name + ".resume")]

    fake_agreement(monkeypatch, 0.6)
    code, printed = command(*adapt, "--minutes", "0.001")
    assert code == 0, printed
    assert "after step 2" in printed
    assert [*out.parent.iterdir()] == [out]
    assert len(json.loads(read_checkpoint(out)[1]["classes"])) == 16
    config = load_config(None, {"models": "demo", "server.checkpoint": str(out)})
    adapted, stock = Pair.load(config).server, Pair.load(load_config(None, {"models": "demo"})).server
    assert weights_digest(adapted) != weights_digest(stock)
    assert weights_digest(replace(adapted, partial=None)) == weights_digest(stock)
    assert adapted.partial is not None
    assert (adapted.partial.max_bytes, adapted.partial.max_units) == (300, 167)
    assert adapted.labels == stock.labels
    assert Embedding(*adapted.embedding()).digest == Embedding(*stock.embedding()).digest  # tokens stay valid


@pytest.mark.campaign
@pytest.mark.usefixtures("_small_batches")
def test_the_command_saves_nothing_without_an_improvement(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_agreement(monkeypatch, 0.5)
    out = tmp_path / "adapted.safetensors"
    code, printed = command(
        "adapt", "synthetic:140,size=112x112", *DEMO, "--minutes", "0.001", "--bytes", "300", "--out", out
    )
    assert code == 1
    assert "nothing is saved" in printed
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["synthetic:60,size=64x64"],
            "60 frames in 'synthetic:60,size=64x64', too few to hold out 20; accepted: 140 or more",
        ),
        (["absent"], "source 'absent' does not exist"),
        (["synthetic:140", "--minutes", "0"], "--minutes 0; accepted: more than 0"),
        (["synthetic:140", "--minutes", "nan"], "--minutes nan; accepted: more than 0"),
        (["synthetic:140", "--bytes", "some"], "--bytes 'some'; accepted: whole numbers"),
        (["synthetic:140", "--out", "/proc/adapted.safetensors"], "output '/proc'"),
        (["synthetic:140", "--out", "adapted.pt"], "--out 'adapted.pt'; accepted: a .safetensors file to write"),
        (
            ["synthetic:140", "--server-checkpoint", "absent.safetensors"],
            "checkpoint 'absent.safetensors' does not exist",
        ),
        (["synthetic:140", "--set", "ship.server=mqtt://broker:1883"], "ship.server"),
        ([], "Missing argument"),
    ],
)
def test_invalid_arguments_are_refused(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed = command("adapt", *arguments, *DEMO)
    assert code == 2, printed
    assert message in " ".join(printed.split())
    assert not [*tmp_path.iterdir()]


def test_a_recorded_run_is_a_source(command, demo_harness: Harness, tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    code, printed = command("run", "synthetic:30,size=64x64", *DEMO, "--record", recording, "--out", tmp_path / "run")
    assert code == 0, printed
    config = load_config(None, {"capture.source": str(recording), "models": "demo"})
    training, held_out = gather(config.all_cameras, 20, demo_harness, config, lambda done: None)
    assert len(training) + len(held_out) == 20
    assert isinstance(training, AdaptationFrames)
