"""Adapting the demo server to coded scenes: what it is shown, the course, resuming, what is refused."""

from __future__ import annotations

import itertools
import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sagelink.lab.adaptation import Student, mixed
from sagelink.lab.harness import Harness
from sagelink.lab.held_out import Agreement, HeldOut
from sagelink.lab.trainer import Trainer
from sagelink.lab.training_batches import BatchDataset
from sagelink.lab.unlabelled_frames import Footage, gather
from sagelink.models.loading import Model, read_checkpoint, weights_digest
from sagelink.models.pair import Pair
from sagelink.pipeline.config_file import load_config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.stages.frontier import RateQualityCurve, find_frontier, read_frontier
from sagelink.transport.patch_embedding import Embedding

SIZES = (250, 500)


class World:
    """The demo pair and 140 scenes."""

    def __init__(self) -> None:
        config = load_config(None, {"capture.source": "synthetic:140,seed=3", "models": "demo"})
        self.pair = Pair.load(config)
        self.harness = Harness(self.pair, config.capture.resize)
        self.counted: list[int] = []
        self.learned, self.held_out = gather(config.all_cameras, 140, self.harness, config, self.counted.append)
        self.lines: list[RateQualityCurve] = read_frontier(find_frontier(self.stock.name, None), self.harness.canvas)

    @property
    def stock(self) -> Model:
        return self.pair.server

    def views(self, seed: int = 0, mix: tuple[int, int] = (3, 4)) -> BatchDataset:
        return BatchDataset(self.learned, self.lines, self.harness.canvas, SIZES, mix, seed)

    def student(self) -> Student:
        return Student(self.stock, self.views(mix=(4, 2)), bf16=False)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


class Judge:
    """Stands in for frames held out: the stock server agrees so far, whatever is adapted so far."""

    def __init__(self, stock: Agreement, adapted: Agreement) -> None:
        self.stock, self._adapted = stock, adapted

    def __len__(self) -> int:
        return 100

    def agreement(self, model: Model) -> Agreement:
        return self._adapted


class Silent:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.checks = 0

    def stepped(self, steps: int, loss: float, spent_s: float) -> None:
        self.steps.append(steps)
        self.losses.append(loss)

    def checked(self, agreement: Agreement) -> None:
        self.checks += 1


BETTER = Judge(Agreement((0.5, 0.6), (0.4,)), Agreement((0.6, 0.7), (0.4,)))


def ticks() -> itertools.count:
    """A clock that stands at one second more each time it is read."""
    return itertools.count()


def test_frames_are_split_by_stretches_and_told(world: World) -> None:
    assert (len(world.learned), len(world.held_out)) == (119, 21)
    assert world.counted == list(range(1, 141))
    assert world.learned.frames.shape[1:] == (160, 160, 3)
    assert world.learned.pictures.shape[1:] == (112, 112, 3)
    assert (np.sort(world.learned.orders, axis=1) == np.arange(196)).all()


def test_what_a_step_shows_depends_on_seed_and_step_alone(world: World) -> None:
    whole, chosen = world.views()[5]
    ahead = world.views().from_step(5)
    (again, _), (later, _) = next(ahead), next(ahead)
    other, _ = world.views(seed=1)[5]
    assert (whole.coded == again.coded).all()
    assert whole.units is None
    assert not (whole.clean == later.clean).all()
    assert not (whole.clean == other.clean).all()
    assert all((clean != coded).any() for clean, coded in zip(whole.clean, whole.coded, strict=True))
    assert chosen.units is not None
    assert len(chosen.units) == 4
    assert (np.diff(chosen.units, axis=1) > 0).all()  # ascending, none twice


def test_what_is_coded_of_chosen_units_is_a_rectangle_and_the_rest_of_the_picture_is_black(world: World) -> None:
    views = world.views()
    raw = coded = 0
    for _, chosen in (views[step] for step in range(12)):
        assert chosen.units is not None
        for clean, sent, units in zip(chosen.clean, chosen.coded, chosen.units, strict=True):
            if (clean == sent).all():
                raw += 1
                continue
            coded += 1
            y, x = np.divmod(units, 14)
            assert len(units) == (np.ptp(y) + 1) * (np.ptp(x) + 1)
            seen = sent[8 * y.min() : 8 * y.max() + 8, 8 * x.min() : 8 * x.max() + 8]
            assert seen.sum() == sent.sum()
    assert raw > 0
    assert coded > 0


def test_chosen_units_are_those_of_the_frame_even_turned_over(world: World) -> None:
    """Raw units are the clean picture's own; the best unit of a frame stays the best when it is mirrored."""
    marked = np.zeros_like(world.learned.pictures)
    first = world.learned.orders[:, 0]
    for picture, unit in zip(marked, first, strict=True):
        y, x = divmod(int(unit), 14)
        picture[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 255
    views = BatchDataset(replace(world.learned, pictures=marked), world.lines, world.harness.canvas, SIZES, (1, 8), 0)
    found = 0
    for _, chosen in (views[step] for step in range(6)):
        assert chosen.units is not None
        for picture, units in zip(chosen.clean, chosen.units, strict=True):
            cells = picture.reshape(14, 8, 14, 8, 3).max((1, 3, 4)).ravel()
            found += int(np.flatnonzero(cells)[0] in units)
    assert found >= 40  # of 48; three in ten are drawn by lot, with a fair chance of having it


def test_the_loss_falls_and_the_patch_embedding_stays(world: World) -> None:
    student = world.student()
    for _ in range(40):
        student.step(0.1)
    fresh = world.student()
    fresh.steps = student.steps  # so that it is shown the same
    assert sum(student.step(0.1) for _ in range(8)) < sum(fresh.step(1.0) for _ in range(8))
    weights, stock = student.weights(), world.stock.vit.state_dict()
    assert torch.equal(weights["patch_embed.proj.weight"], stock["patch_embed.proj.weight"])
    assert not torch.equal(weights["blocks.0.attn.qkv.weight"], stock["blocks.0.attn.qkv.weight"])


def test_an_interrupted_course_goes_on_as_if_it_had_not_been(world: World, tmp_path: Path) -> None:
    def trainer() -> Trainer:
        return Trainer(world.student(), world.stock, BETTER, 500, limit_s=8)

    whole, watch = trainer(), Silent()
    assert whole.train(ticks().__next__, lambda: False, watch, lambda: None)
    assert watch.steps == list(range(1, watch.steps[-1] + 1))

    state, first = tmp_path / "adapted.resume", trainer()
    assert not first.train(ticks().__next__, lambda: first.steps == 3, Silent(), lambda: None)
    first.save(state, {"seed": 0})
    second, rest = trainer(), Silent()
    second.resume(state, {"seed": 0})
    assert second.steps == 3
    assert second.train(ticks().__next__, lambda: False, rest, lambda: None)
    assert rest.steps == watch.steps[3:]
    assert rest.losses == watch.losses[3:]
    ours, theirs = (each.result(lambda *_: None).model for each in (whole, second))
    assert weights_digest(ours) == weights_digest(theirs) != weights_digest(world.stock)


def test_a_state_of_something_else_is_refused(world: World, tmp_path: Path) -> None:
    state, trainer = tmp_path / "adapted.resume", Trainer(world.student(), world.stock, BETTER, 500, limit_s=1)
    trainer.save(state, {"sources": ["a"], "seed": 0})
    with pytest.raises(UsageError, match=r"another sources: \['a'\], here \['b'\]"):
        trainer.resume(state, {"sources": ["b"], "seed": 0})
    state.write_bytes(b"PK no state")
    with pytest.raises(UsageError, match="not a state of an adaptation"):
        trainer.resume(state, {"sources": ["a"], "seed": 0})
    with pytest.raises(SagelinkError, match="cannot be written"):
        trainer.save(tmp_path / "none" / "adapted.resume", {})
    assert [*tmp_path.iterdir()] == [state]


@pytest.mark.parametrize(
    "adapted",
    [
        Agreement((0.4, 0.9), (0.4,)),  # worse at one size
        Agreement((0.5, 0.6), (0.4,)),  # no better
        Agreement((0.9, 0.9), (0.3,)),  # worse with a part of the units
    ],
)
def test_what_is_not_better_than_stock_is_not_kept(world: World, adapted: Agreement) -> None:
    trainer = Trainer(world.student(), world.stock, Judge(BETTER.stock, adapted), 500, limit_s=2)
    assert trainer.train(ticks().__next__, lambda: False, Silent(), lambda: None)
    with pytest.raises(SagelinkError, match="nothing is saved"):
        trainer.result(lambda *_: None)


def test_it_ends_early_when_nothing_gets_better(world: World) -> None:
    class Falling(Judge):
        left = 0.9

        def agreement(self, model: Model) -> Agreement:
            self.left -= 0.1
            return Agreement((self.left, self.left), (0.4,))

    watch = Silent()
    assert Trainer(world.student(), world.stock, Falling(BETTER.stock, BETTER.stock), 500, limit_s=20).train(
        ticks().__next__, lambda: False, watch, lambda: None
    )
    assert watch.checks == 5
    assert watch.steps[-1] < 12


def test_the_steps_told_are_those_of_the_weights_kept(world: World, tmp_path: Path) -> None:
    class FirstBest(Judge):
        asked = 0

        def agreement(self, model: Model) -> Agreement:
            self.asked += 1
            return Agreement((0.9, 0.9) if self.asked == 1 else (0.7, 0.7), (0.4,))

    def trainer() -> Trainer:
        return Trainer(world.student(), world.stock, FirstBest(BETTER.stock, BETTER.stock), 500, limit_s=20)

    first, state = trainer(), tmp_path / "adapted.resume"
    assert first.train(ticks().__next__, lambda: False, Silent(), lambda: None)
    first.save(state, {})
    again = trainer()
    again.resume(state, {})
    assert again.steps == first.steps
    assert again.result(lambda *_: None).steps == first.result(lambda *_: None).steps == 2 < first.steps


def test_stock_agrees_with_itself_on_frames_held_out(world: World) -> None:
    told: list[tuple[int, int]] = []
    judge = HeldOut(
        world.held_out, world.lines, world.stock, (5, 500, 100_000), False, lambda done, of: told.append((done, of))
    )
    assert 0.0 < judge.stock.units[0] < judge.stock.units[1] < 1.0
    assert judge.stock.sizes[0] == 0.0  # no message is so short
    assert judge.stock.sizes[1] < judge.stock.sizes[2]
    assert told == [(done, 63) for done in range(1, 64)]


def test_a_mixture_lies_between(world: World) -> None:
    stock = world.stock.vit.state_dict()
    other = {key: value + 1 for key, value in stock.items()}
    model = mixed(world.stock, other, 0.5, 500)
    assert model.vit is world.stock.vit
    assert model.partial is not None
    half = model.partial.vit.state_dict()
    assert all(torch.allclose(half[key], stock[key] + 0.5, atol=2e-3) for key in stock)


DEMO = ("--models", "demo")


def judged(monkeypatch: pytest.MonkeyPatch, adapted: float) -> None:
    """The frames held out say 0.5 of the stock server, which is asked first, and this of all others."""
    answers = itertools.chain([0.5], itertools.repeat(adapted))
    monkeypatch.setattr(HeldOut, "agreement", lambda self, model: Agreement((next(answers),), ()))


def test_the_command_goes_on_after_ctrl_c_and_writes_a_checkpoint(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "adapted.safetensors"
    adapt = ("adapt", "synthetic:70,seed=1", "synthetic:70,seed=2", *DEMO, "--bytes", "300", "--out", out)
    step = Student.step

    def pressed(self: Student, progress: float) -> float:
        if self.steps == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, progress)

    with monkeypatch.context() as patched:
        judged(patched, 0.6)
        patched.setattr(Student, "step", pressed)
        code, printed = command(*adapt, "--minutes", "60")
    assert code == 0, printed
    assert "120 frames to learn from, 20 held out" in printed
    assert f"interrupted after step 2; kept in {out}.resume: the same command goes on" in printed
    assert [*out.parent.iterdir()] == [out.with_name(out.name + ".resume")]

    judged(monkeypatch, 0.6)
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


def test_the_command_saves_nothing_that_is_no_better(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, 0.5)
    out = tmp_path / "adapted.safetensors"
    code, printed = command("adapt", "synthetic:140", *DEMO, "--minutes", "0.001", "--bytes", "300", "--out", out)
    assert code == 1
    assert "nothing is saved" in printed
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synthetic:60"], "60 frames in 'synthetic:60', too few to hold out 20; accepted: 140 or more"),
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
def test_wrong_use(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed = command("adapt", *arguments, *DEMO)
    assert code == 2, printed
    assert message in " ".join(printed.split())
    assert not [*tmp_path.iterdir()]


def test_a_recorded_run_is_a_source(command, tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    code, printed = command("run", "synthetic:30", *DEMO, "--record", recording, "--out", tmp_path / "run")
    assert code == 0, printed
    config = load_config(None, {"capture.source": str(recording), "models": "demo"})
    pair = Pair.load(config)
    learned, held_out = gather(config.all_cameras, 20, Harness(pair, config.capture.resize), config, lambda done: None)
    assert len(learned) + len(held_out) == 20
    assert isinstance(learned, Footage)
