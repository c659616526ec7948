"""The benchmark: rivals that compute the same, memory and time of real processes, a report that hides nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import hydra
import pytest
import torch
from torch import Tensor
from torch.profiler import profile

from memlab.__main__ import main
from memlab.benchmark import auditors, measurement, plain_loop, report, whole_commands
from memlab.benchmark.contenders import ARITHMETIC, NEEDS, contenders, period, recall
from memlab.benchmark.material import Material
from memlab.benchmark.measurement import Measured, Settings
from memlab.benchmark.problem import TASKS, Problem
from memlab.benchmark.run import chosen
from memlab.runs.results import write_flipped
from memlab.trained import load
from tests.conftest import REPOSITORY, Outcome
from tests.trained.memories import make, tables

PROBLEM = Problem(
    task="step", support=50, batch=7, embedding=5, classes=4, nearest=8, encoder="linear", device="cpu", dtype="float64"
)
SETTINGS = Settings(chunks=(16,), budgets=(0.5,), threads=1, raised_thresholds=False)


def makers(task: str) -> dict[str, Callable[[Material], Callable[[], Tensor | None]]]:
    return contenders(task, chunks=SETTINGS.chunks, budgets=SETTINGS.budgets)


class TestContenders:
    @pytest.mark.parametrize("encoder", ["linear", "mlp", "conv", "lstm"])
    @pytest.mark.parametrize("name", [name for name in makers("step") if "topk" not in name and name != ARITHMETIC])
    def test_a_step_has_the_loss_and_the_gradient_of_full(self, name: str, encoder: str) -> None:
        results = []
        for who in ("memlab full", name):
            material = Material(replace(PROBLEM, encoder=encoder))
            loss = makers("step")[who](material)()
            results.append([loss, *[parameter.grad for parameter in material.encoder.parameters()]])
        torch.testing.assert_close(*results, rtol=1e-6, atol=1e-9)

    def test_a_resnet_of_chunks_is_that_of_all(self) -> None:
        self.test_a_step_has_the_loss_and_the_gradient_of_full("memlab chunked 16", "resnet18")

    @pytest.mark.parametrize("name", [name for name in makers("read") if name != ARITHMETIC])
    def test_a_read_has_the_loss_of_full(self, name: str) -> None:
        losses = [makers("read")[who](Material(replace(PROBLEM, task="read")))() for who in ("memlab full", name)]
        torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("task", ["read", "evaluation", "search", "step"])
    def test_the_arithmetic_alone_gives_nothing(self, task: str) -> None:
        assert makers(task)[ARITHMETIC](Material(replace(PROBLEM, task=task)))() is None

    def test_the_arithmetic_of_a_read_is_four_products(self) -> None:
        material = Material(replace(PROBLEM, task="read"))
        call = makers("read")[ARITHMETIC](material)
        with profile() as profiler:
            call()
        counts = {each.key: each.count for each in profiler.key_averages()}
        assert counts["aten::mm"] + counts["aten::addmm_"] == 4

    @pytest.mark.parametrize("name", makers("evaluation"))
    def test_an_evaluation_can_be_called(self, name: str) -> None:
        makers("evaluation")[name](Material(replace(PROBLEM, task="evaluation", dtype="float32")))()

    @pytest.mark.parametrize("encoder", ["table", "conv", "lstm"])
    def test_topk_of_all_cells_has_the_gradient_of_full(self, encoder: str) -> None:
        gradients = []
        for who in ("memlab full", "memlab topk exact"):
            material = Material(replace(PROBLEM, encoder=encoder, nearest=PROBLEM.support))
            call = makers("step")[who](material)
            for _ in range(3):
                call()
            gradients.append([parameter.grad for parameter in material.encoder.parameters()])
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)

    def test_topk_is_timed_over_whole_rounds_of_refreshing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measurement, "TURN_SECONDS", 1e-5)
        assert [name for name in makers("step") if period(name) == 20] == ["memlab topk exact", "memlab topk ivf"]
        times: list[None] = []
        measurement._turn(lambda: times.append(None), torch.device("cpu"), 20)
        assert len(times) > 1
        assert (len(times) - 1) % 20 == 0

    @pytest.mark.parametrize("name", [name for name in makers("search") if name != ARITHMETIC])
    def test_a_search_finds_nearly_all_that_is_near(self, name: str) -> None:
        material = Material(replace(PROBLEM, task="search", support=2000, embedding=16, dtype="float32"))
        found = makers("search")[name](material)()
        assert found is not None
        assert found.shape == (7, 8)
        assert (
            recall(material, found) == 1 if "ivf" not in name and "hnsw" not in name else recall(material, found) > 0.8
        )
        assert recall(material, found.flip(0)) < 0.5

    @pytest.mark.parametrize("task", ["read", "step"])
    def test_a_second_call_does_all_the_work_again(self, task: str) -> None:
        call = makers(task)["memlab full"](Material(replace(PROBLEM, task=task)))
        assert torch.equal(*[loss for loss in (call(), call()) if loss is not None])

    def test_those_whose_package_is_missing_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("memlab.benchmark.contenders.find_spec", lambda _: None)
        left = {name for task in TASKS for name in makers(task)}
        assert left
        assert not [name for name in left for word in NEEDS if word in name]


class TestAudit:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        """The memory of a run, of whose objects in three clusters some have wrong labels."""
        store = tables(600)
        store.inputs = store.inputs + 4 * torch.nn.functional.one_hot(store.labels, 5)
        memory = make(tmp_path / "run" / "memory", store)
        memory.relabel(list(range(0, 480, 10)), "other")
        labels, truth = [1 if n % 10 == 0 else 0 for n in range(600)], [0] * 600
        write_flipped(tmp_path / "run", ["right", "wrong"], ids=range(600), labels=labels, truth=truth)
        return tmp_path / "run"

    @pytest.mark.parametrize("name", makers("audit"))
    def test_wrong_labels_have_low_scores(self, name: str, run: Path) -> None:
        material = Material(replace(PROBLEM, task="audit", support=480, run=str(run)))
        scores = makers("audit")[name](material)()
        assert scores is not None
        assert scores.shape == (480,)
        wrong = auditors.audited(str(run), 480).wrong
        assert int(wrong.sum()) == 48
        pairs = (scores[wrong][:, None] < scores[~wrong]).double() + (scores[wrong][:, None] == scores[~wrong]) / 2
        assert auditors.auroc(material, scores) == pytest.approx(float(pairs.mean()))
        assert auditors.auroc(material, -scores) == pytest.approx(1 - float(pairs.mean()))

    def test_the_memory_has_the_scores_of_its_audit(self, run: Path) -> None:
        found = load(run).audit()
        material = Material(replace(PROBLEM, task="audit", support=480, run=str(run)))
        scores = makers("audit")["memlab audit"](material)()
        assert scores is not None
        assert sorted(scores.tolist()) == pytest.approx(found.margin.tolist(), rel=1e-4, abs=1e-4)

    def test_is_measured_of_a_run_and_told(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["bench", "--tasks=audit", "--rounds=1", "--contenders=memlab", f"--output={run / 'b'}"]
        assert main([*words, f"--run={run}"]) == 0
        out = capsys.readouterr().out
        (result,) = json.loads((run / "b" / "benchmark.json").read_text())["results"]
        assert [result["problem"][name] for name in ("support", "embedding", "classes")] == [480, 6, 4]
        assert result["auroc"] > 0.5
        assert f"{result['auroc']:.4f}" in out

    def test_a_run_of_right_labels_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["bench", "--tasks=audit", "--rounds=1", f"--output={tmp_path / 'b'}"]
        assert main([*words, f"--run={tmp_path}"]) == 1
        assert f"--run {tmp_path}: has no flipped.csv; must be a run with data.flip_labels" in capsys.readouterr().err
        assert main([*words[:-1], f"--output={tmp_path / 'c'}"]) == 0
        assert "no --run, so not measured: audit" in capsys.readouterr().out

    def test_a_peer_that_tells_better_is_named(self) -> None:
        problem = replace(PROBLEM, task="audit")
        shares = {"memlab audit": 0.9, "cleanlab, neighbours": 0.95, "cleanlab, regression": 0.8}
        group = [Measured(name, problem, [1.0], 2**20, auroc=share) for name, share in shares.items()]
        columns = {str(column.header): list(column.cells) for column in report.table(group).columns}
        assert columns["AUROC"] == ["0.9000", "0.9500", "0.8000"]
        told = [remark for remark in report.remarks(group) if "AUROC" in remark]
        assert told == ["audit, M = 50: cleanlab, neighbours tells wrong labels better, an AUROC of 0.9500 for 0.9000"]


class TestStart:
    @pytest.mark.parametrize("name", [name for name in makers("start") if "torch" not in name])
    def test_every_command_ends_as_it_should(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert makers("start")[name](Material(replace(PROBLEM, task="start", support=0)))() is None
        assert not list(tmp_path.iterdir())

    def test_one_that_fails_has_no_time_but_a_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = {
            "well": whole_commands._command("-c", "exit(1)", status=1),
            "otherwise": whole_commands._command("-c", "exit(2)", status=1),
            "broken": whole_commands._command("-c", "import nothing", status=1),
        }
        monkeypatch.setattr(measurement, "contenders", lambda *_, **__: made)
        found = measurement.measure(replace(PROBLEM, task="start", support=0), list(made), SETTINGS, rounds=2)
        assert [each.failure for each in found] == [
            None,
            "exit status 2",
            "ModuleNotFoundError: No module named 'nothing'",
        ]
        assert [len(each.seconds) for each in found] == [2, 0, 0]

    @pytest.mark.parametrize("there", [True, False])
    def test_scripts_of_a_clone_are_left_out_elsewhere(
        self, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        script = tmp_path / "train.py"
        if there:
            script.touch()
        monkeypatch.setattr(whole_commands, "TRAIN", script)
        assert sum("train.py" in name for name in makers("start")) == (2 if there else 0)
        assert main(["bench", "--tasks=start", "--contenders=pass", "--rounds=1", f"--output={tmp_path / 'b'}"]) == 0
        assert ("not in a clone, so not measured: train.py" in capsys.readouterr().out) is not there


class TestFit:
    @pytest.mark.parametrize("name", list(makers("fit"))[::3])
    def test_a_training_tells_the_seconds_of_a_step(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(whole_commands, "FIT_STEPS", 30)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        told = makers("fit")[name](Material(replace(PROBLEM, task="fit", support=0)))()
        assert told is not None
        assert 1e-4 < told.item() < 0.5

    def test_what_a_command_tells_is_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measurement, "contenders", lambda *_, **__: {"it": lambda _: lambda: torch.tensor(7.0)})
        (found,) = measurement.measure(replace(PROBLEM, task="fit", support=0), ["it"], SETTINGS, rounds=2)
        assert found.seconds == [7.0, 7.0]

    def test_the_plain_loop_has_the_numbers_of_the_default_configuration(self) -> None:
        with hydra.initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            cfg = hydra.compose("config")
        encoder, augmentation = cfg.encoder, cfg.augmentation
        loop = plain_loop
        sizes = (loop.CHANNELS, loop.KERNEL, loop.POOL, loop.EMBEDDING)
        assert sizes == (encoder.channels, encoder.kernel_size, encoder.pool_size, encoder.embedding_size)
        assert (encoder.normalisation, encoder.dropout) == ("layer", 0)
        assert (cfg.similarity.scale, cfg.similarity.learn_scale) == (loop.SCALE, True)
        assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (loop.LEARNING_RATE, loop.WEIGHT_DECAY)
        assert cfg.optimizer._target_ == "torch.optim.AdamW"
        moves = (augmentation.degrees, augmentation.translate, augmentation.scale)
        assert moves == (loop.DEGREES, loop.TRANSLATE, loop.ZOOM)

    def test_the_plain_loop_has_the_sizes_of_a_run(self, command: Callable[..., Outcome]) -> None:
        folder = command("trainer=smoke", "baselines=[]", "figures=false").run_folders[0]
        sizes = json.loads((folder / "results.json").read_text())["sizes"]
        loop = plain_loop
        found = (sizes["train"], sizes["batch"], sizes["support"])
        assert found == (loop.TRAINING_OBJECTS, loop.BATCH, loop.SUPPORT)

    def test_the_plain_loop_learns(self) -> None:
        losses, accuracies = plain_loop.train(200)
        assert losses[-1] < losses[0] / 2
        assert accuracies[-1] > 0.85


class Words:
    """A connection on which somebody asks so many times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.sent: list[tuple[float, float | None] | str] = []

    def recv(self) -> bool:
        if not self.times:
            raise EOFError
        self.times -= 1
        return True

    def send(self, answer: tuple[float, float | None] | str) -> None:
        self.sent.append(answer)


class TestMeasurement:
    @pytest.fixture(autouse=True)
    def brief(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measurement, "TURN_SECONDS", 0.01)
        monkeypatch.setattr(torch, "set_num_threads", lambda _: None)

    def serve(self, call: Callable[[], Tensor | None], monkeypatch: pytest.MonkeyPatch, times: int = 2) -> Words:
        monkeypatch.setattr(measurement, "contenders", lambda *_, **__: {"it": lambda _: call})
        words = Words(times)
        measurement._serve(words, PROBLEM, "it", SETTINGS)  # type: ignore[arg-type]
        return words

    def test_then_comes_a_time_for_each_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        words = self.serve(lambda: None, monkeypatch, times=4)
        assert len(words.sent) == 4
        assert all(0 < float(answer[0]) < 1 for answer in words.sent[1:])

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "out of memory"),
            (RuntimeError("shapes differ\nand more"), "shapes differ"),
        ],
    )
    def test_a_failure_is_told(self, error: Exception, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> Tensor:
            raise error

        assert self.serve(fail, monkeypatch).sent == [told]

    def test_real_processes(self) -> None:
        """Full holds a matrix of scores and one of exponentials, 64 MiB each; tiles hold neither."""
        said: list[str] = []
        problem = replace(PROBLEM, task="evaluation", dtype="float32", support=2**16, batch=256)
        names = ["memlab full", "memlab tiles", "nobody"]
        found = measurement.measure(problem, names, SETTINGS, rounds=2, said=said.append)
        assert [each.contender for each in found] == names
        full, tiles, nobody = found
        assert len(full.seconds) == len(tiles.seconds) == 2
        assert full.failure is None
        assert 120 * 2**20 < full.peak_bytes < 170 * 2**20
        assert tiles.peak_bytes < 40 * 2**20
        assert nobody.failure == "its process died (exit status 1)"
        assert any("round 2 of 2" in line for line in said)


def measured(name: str, seconds: float, mebibytes: int, loss: float = 1.0, support: int = 100) -> Measured:
    return Measured(name, PROBLEM.of_size(support), [seconds, seconds, 9.0], mebibytes * 2**20, loss)


class TestReport:
    group = (
        measured("memlab full", 1.0, 100),
        measured("memlab chunked 16", 1.2, 10),
        measured("faster", 0.5, 100),
        measured("leaner", 2.0, 5),
        measured("equal", 0.99, 10, loss=1.0005),
        measured("other", 3.0, 300, loss=1.1),
        Measured("gone", PROBLEM, failure="out of memory"),
    )

    def test_says_where_a_peer_is_ahead_and_who_computes_something_else(self) -> None:
        assert list(report.remarks(list(self.group))) == [
            "step, M = 100: faster is faster, 0.50 of the time of memlab full",
            "step, M = 100: leaner is leaner, 0.50 of the memory of memlab chunked 16",
            "step, M = 100: other computes something else, a loss of 1.1 for 1",
        ]

    def test_table_has_medians_and_ratios_to_full(self) -> None:
        table = report.table(list(self.group))
        columns = [list(column.cells) for column in table.columns]
        assert columns[0][1] == "memlab chunked 16"
        assert [column[1] for column in columns[1:]] == ["1,200.0 ms", "1.20", "9,000.0 ms", "10 MiB", "0.10"]
        assert [column[6] for column in columns] == ["gone", "out of memory", "-", "-", "-", "-"]

    def test_says_how_far_each_is_from_the_arithmetic(self) -> None:
        group = [measured(ARITHMETIC, 0.5, 1), *self.group]
        columns = {str(column.header): list(column.cells) for column in report.table(group).columns}
        assert columns["over arithmetic"] == ["1.00", "2.00", "2.40", "1.00", "4.00", "1.98", "6.00", "-"]
        assert not [remark for remark in report.remarks(group) if ARITHMETIC in remark]

    def test_a_search_has_recall_and_ratios_to_the_exact_one(self) -> None:
        problem = replace(PROBLEM, task="search")
        names = {"memlab exact": (1.0, 1.0), "memlab ivf": (0.1, 0.97)}
        group = [Measured(name, problem, [seconds], 2**20, recall=share) for name, (seconds, share) in names.items()]
        columns = {str(column.header): list(column.cells) for column in report.table(group).columns}
        assert columns["recall"] == ["1.000", "0.970"]
        assert columns["time"] == ["1,000.0 ms", "100.0 ms"]
        assert list(columns)[2] == "over exact"

    def test_json_holds_all_and_the_picture_is_drawn(self, tmp_path: Path) -> None:
        found = [*self.group, measured("memlab full", 2.0, 200, support=200)]
        report.write_json(found, {"rounds": 3}, tmp_path / "benchmark.json")
        held = json.loads((tmp_path / "benchmark.json").read_text())
        assert held["settings"] == {"rounds": 3}
        assert held["results"][0]["seconds"] == [1.0, 1.0, 9.0]
        assert held["results"][0]["median_seconds"] == 1.0
        assert held["results"][6]["failure"] == "out of memory"
        report.draw(found, tmp_path / "benchmark.png", note="settings")
        assert (tmp_path / "benchmark.png").stat().st_size > 10_000


class TestCommand:
    def test_measures_prints_and_writes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--tasks=step", "--sizes=40", "--rounds=1", "--contenders=full", "--encoder=linear", "--batch-size=5"]
        assert main(["bench", *words, f"--output={tmp_path / 'b'}"]) == 0
        assert "step, linear encoder: M = 40, B = 5" in capsys.readouterr().out
        held = json.loads((tmp_path / "b" / "benchmark.json").read_text())
        assert held["settings"]["load_average"] >= 0
        assert "thresholds" in held["settings"]["allocator"]
        assert [result["contender"] for result in held["results"]] == ["memlab full"]
        assert (tmp_path / "b" / "benchmark.png").is_file()

    def test_shares_a_step_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--world=1,2", "--sizes=40,320", "--rounds=1", "--encoder=linear", "--batch-size=6", "--chunks=7"]
        assert main(["bench", *words, "--nearest=4", f"--output={tmp_path / 'b'}"]) == 0
        assert "chunked 7, linear encoder: M = 40, B = 6" in capsys.readouterr().out
        results = json.loads((tmp_path / "b" / "worlds.json").read_text())["results"]
        assert len(results) == 2 * 3 * 3
        found = {(each["memory"], each["company"]["world"], each["problem"]["support"]): each for each in results}
        for memory, size in product(("full", "chunked 7", "topk"), (40, 320)):
            alone, two = found[memory, 1, size], found[memory, 2, size]
            assert two["loss"] == pytest.approx(alone["loss"], rel=1e-4)
            assert two["sent_bytes"] == found[memory, 2, 40]["sent_bytes"] > 0
            assert memory == "topk" or two["encoded"] == alone["encoded"] / 2  # who has which cells is chance

    def test_processes_are_of_a_task_of_their_own(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "--world=2", "--tasks=read", f"--output={tmp_path / 'b'}"]) == 1
        assert "--world: is of the task world; must stand alone, or with it among --tasks" in capsys.readouterr().err

    def test_starts_are_over_a_bare_python(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--tasks=start", "--sizes=40,50", "--rounds=2", "--contenders=pass,memlab --help"]
        assert main(["bench", *words, f"--output={tmp_path / 'b'}"]) == 0
        out = capsys.readouterr().out
        assert "over python -c pass" in out
        assert "memory" not in out
        assert "is faster" not in out
        assert out.endswith(f"written: {tmp_path / 'b' / 'benchmark.json'}\n")
        assert [path.name for path in (tmp_path / "b").iterdir()] == ["benchmark.json"]
        results = json.loads((tmp_path / "b" / "benchmark.json").read_text())["results"]
        assert [result["contender"] for result in results] == ["python -c pass", "memlab --help"]
        assert all(len(result["seconds"]) == 2 for result in results)
        assert all(0 < result["median_seconds"] <= max(result["seconds"]) for result in results)

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["--sizes=0"], "argument --sizes: 0: must be whole numbers of at least 1, with commas between"),
            (["--sizes=10,x"], "argument --sizes: 10,x: must be whole numbers"),
            (
                ["--tasks=reed"],
                "argument --tasks: reed: must be of read, step, evaluation, search, world, audit, fit, start",
            ),
            (["--world=0"], "argument --world: 0: must be whole numbers of at least 1, with commas between"),
            (["--budgets=1.5"], "argument --budgets: 1.5: must be shares from 0.01 to 1"),
            (["--rounds=0"], "argument --rounds: 0: must be a whole number of at least 1"),
            (["--seed=-1"], "argument --seed: -1: must be a whole number of at least 0"),
            (["--encoder=none"], "invalid choice: 'none'"),
        ],
    )
    def test_a_mistake_is_told_in_one_line(
        self, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            main(["bench", *words])
        assert line in capsys.readouterr().err.splitlines()[-1]

    @pytest.mark.parametrize(
        ("asked", "device", "measured"),
        [("", "cpu", False), ("keops,tiles", "cpu", True), ("tiles", "cpu", False), ("", "cuda", True)],
    )
    def test_a_rival_that_takes_minutes_is_measured_if_it_is_named(
        self, asked: str, device: str, measured: bool
    ) -> None:
        pytest.importorskip("pykeops")
        arguments = argparse.Namespace(contenders=asked, device=device, tasks=["read", "evaluation"])
        names, left_out = chosen(arguments, SETTINGS)
        assert ("KeOps" in names["read"]) is measured
        assert ("KeOps" in left_out) is not measured
        assert "memlab tiles" in names["read"]

    def test_refuses_what_would_measure_nothing_or_lose_something(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["bench", "--contenders=nobody", f"--output={tmp_path}"]) == 1
        assert (
            "--contenders nobody: must name some of arithmetic alone, memlab full, memlab tiles"
            in capsys.readouterr().err
        )
        (tmp_path / "mine").touch()
        assert main(["bench", f"--output={tmp_path}"]) == 1
        assert "must be a new or an empty folder" in capsys.readouterr().err

    @pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
    def test_refuses_a_gpu_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "--device=cuda"]) == 1
        assert "--device cuda: this machine has none" in capsys.readouterr().err
