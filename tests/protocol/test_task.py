"""Task files: strict, one line for each mistake, and a digest of all that a result depends on."""

from __future__ import annotations

import math
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.errors import TaskError
from lthbench.io.paths import shipped
from lthbench.protocol import task as task_module
from lthbench.protocol.task import (
    Network,
    Suite,
    Task,
    controlled,
    load_suite,
    load_task,
    matching,
    numbers_of_seeds,
    suite_names,
    task_names,
)
from tests.strategies import moderate

SHIPPED = sorted(shipped("tasks").glob("*.toml"))


def table(name: str = "mlp-digits") -> dict[str, Any]:
    return tomllib.loads((shipped("tasks") / f"{name}.toml").read_text())


def written(folder: Path, text: str, name: str = "mlp-digits") -> str:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


def refusal(folder: Path, text: str) -> str:
    """The one line that a file of this text is refused with."""
    with pytest.raises(TaskError) as caught:
        load_task(written(folder, text))
    line = str(caught.value)
    assert "\n" not in line
    return line


def changed(old: str, new: str) -> str:
    text = (shipped("tasks") / "mlp-digits.toml").read_text()
    assert text.count(old) == 1, old
    return text.replace(old, new)


# --- what ships ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_task_loads(path: Path) -> None:
    task = load_task(path.stem)
    assert task == load_task(str(path))
    assert task.name == path.stem and task.name in task_names()
    assert task.grid[-1] == task.recipe.steps and task.grid[0] == task.score.every
    assert task.chance == 1 / task.data.classes
    constant = task.recipe.schedule == "constant"
    # Of the small pictures an evaluation costs as much as a hundred steps; of sums mod 59 half as
    # many keep a record of ten seeds small.
    fewer = {"resnet8-cifar10": 4, "mlp-modadd59": 50, "transformer-modadd59": 50}
    assert len(task.grid) == fewer.get(task.name, 100 if constant else 20)
    assert task.search.budget == 30
    if task.transfer is not None:
        assert set(task.transfer.densities) <= set(task.ladder.trained)
    rung = task.score.compressed_density
    cheap = any(word in task.name for word in ("digits", "mnist1d", "resnet8"))
    assert bool(rung) == (task.score.kind == "accuracy" and not cheap)


@pytest.mark.parametrize("name", suite_names())
def test_every_shipped_suite_loads(name: str) -> None:
    suite = load_suite(name)
    assert isinstance(suite, Suite) and suite.name == name
    assert set(suite.tasks) <= set(task_names())
    assert suite.ranked == (name != "quick")
    assert (suite.seeds or 0) >= 2 or suite.ranked
    assert all(load_task(task).transfer for task in suite.transfer)


def test_a_task_names_its_published_seeds() -> None:
    """Five where it names none, which moves no digest that was taken before there was the key."""
    task = load_task("mlp-digits")
    assert (task.seeds, "seeds" in task.canonical()) == (5, False)
    ten = task.model_copy(update={"seeds": 10})
    assert ten.canonical()["seeds"] == 10 and ten.digest != task.digest
    assert ten.training_digest == task.training_digest


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ranked": True, "seeds": 5}, "of a ranked suite each task names its own"),
        ({"transfer": ["mlp-digit"]}, "'mlp-digit' is none of the suite's tasks"),
        ({"transfer": True}, "valid tuple"),
    ],
)
def test_a_suite_agrees_with_itself(changes: dict[str, Any], expected: str) -> None:
    table = {"name": "own", "title": "", "tasks": ["mlp-digits"], "ranked": False}
    table |= {"controls": "alternate", "compressed": False}
    assert Suite.model_validate(table).transfer == ()
    with pytest.raises(ValueError, match=expected):
        Suite.model_validate(table | changes)


@given(rungs=st.integers(1, 20))
def test_controlled_rungs_are_counted_from_the_sparsest(rungs: int) -> None:
    ladder = tuple(0.8**n for n in range(1, rungs + 1))
    alternate = controlled(ladder, "alternate")
    assert controlled(ladder, "all") == ladder
    assert controlled(ladder, "one rung") == (ladder[max(rungs - 2, 0)],)
    assert alternate[-1] == ladder[-1] and len(alternate) == (rungs + 1) // 2
    assert all(b == pytest.approx(a * 0.64) for a, b in pairwise(alternate))


def test_how_many_seeds_a_suite_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's own number, or what its tasks name, from the fewest to the most."""
    assert numbers_of_seeds(load_suite("lite").model_copy(update={"seeds": 3})) == "3"
    seeds = iter([5, 10, 5])
    known = load_task("mlp-digits")
    monkeypatch.setattr(
        task_module, "load_task", lambda name: known.model_copy(update={"seeds": next(seeds)})
    )
    three = load_suite("lite").model_copy(update={"tasks": ("a", "b", "c")})
    assert numbers_of_seeds(three) == "5 to 10"


def test_ladders_are_powers_of_four_fifths() -> None:
    for task in map(load_task, task_names()):
        exponents = [round(n) for n in map(log_four_fifths, task.ladder.trained)]
        assert task.ladder.trained == pytest.approx([0.8**n for n in exponents], rel=1e-12)
        expected = [0.8**n for n in (1, 2, 3, 5, 7, 10)]
        assert task.ladder.untrained == pytest.approx(expected, rel=1e-12)


def log_four_fifths(density: float) -> float:
    return math.log(density) / math.log(0.8)


# --- mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("\nbatch = 60", "\nbatsh = 60", "[recipe] batsh: unknown key (did you mean batch?)"),
        ("version = 1", "version = 1\nverion = 2", "verion: unknown key (did you mean version?)"),
        ("folds = 5", "fold = 5", "[data] fold: unknown key (did you mean folds?)"),
        ("\nbatch = 60", "\nbatch = 60\nzzz = 1", "[recipe] zzz: unknown key"),
        ("[search]", "[serach]", "serach: unknown key (did you mean search?)"),
        ("value = 0.0", "valeu = 0.0", "[network.init.1] valeu: unknown key (did you mean value?)"),
        ("rate = 1.2e-3", 'rate = "f"', "[recipe] rate: input should be a valid number, not 'f"),
        ("rate = 1.2e-3", "rate = true", "[recipe] rate: input should be a valid number, not True"),
        ("rate = 1.2e-3", "rate = 0.0", "[recipe] rate: input should be greater than 0, not 0.0"),
        ("rate = 1.2e-3", "rate = -1", "[recipe] rate: input should be greater than 0, not -1"),
        ("rate = 1.2e-3", "rate = nan", "[recipe] rate: input should be a finite number"),
        ("rate = 1.2e-3", "rate = inf", "[recipe] rate: input should be a finite number"),
        ("rate = 1.2e-3", "", "[recipe] rate: field required"),
        ("steps = 1500", "steps = 1500.0", "[recipe] steps: input should be a valid integer"),
        ("steps = 1500", "steps = 0", "[recipe] steps: input should be greater than 0"),
        ("\nbatch = 60", "\nbatch = -1", "[recipe] batch: input should be greater than or equal"),
        ("\nbatch = 60", "\nbatch = 60\nleave_out = 1.0", "[recipe] leave_out: input should"),
        ("\nbatch = 60", "\nbatch = 60\nmomentum = 1.0", "[recipe] momentum: input should be less"),
        ('schedule = "linear"', 'schedule = "square"', "[recipe] schedule: input should be"),
        ('schedule = "linear"', 'schedule = "drops"', 'schedule "drops" needs drops'),
        ("\nbatch = 60", "\nbatch = 60\ndrops = [9]", 'schedule "drops" needs drops'),
        ("\nbatch = 60", "\nbatch = 60\nwarm_up = 1500", "must rise in this order"),
        ('schedule = "linear"', 'schedule = "drops"\ndrops = [9, 9]', "must rise in this order"),
        ('schedule = "linear"', 'schedule = "drops"\ndrops = [1500]', "must rise in this order"),
        ("\nbatch = 60", '\nbatch = 60\naugment = "crop-flip"', "augment is for networks on im"),
        ('family = "mlp"', 'family = "resnet"', "inputs of family resnet must be channels"),
        ('optimiser = "adam"', 'optimiser = "lion"', "[recipe] optimiser: input should be"),
        ('source = "digits"', 'source = "letters"', "[data] source: input should be"),
        ("classes = 10\nfolds", "classes = 9\nfolds", "data.classes and network.classes"),
        ("every = 75", "every = 70", "score.every must divide recipe.steps"),
        ("every = 75", "every = 75\ncompressed_density = 0.5", "compressed_density must be a rung"),
        ("rewind_limit = 0", "rewind_limit = 151", "at most a tenth of recipe.steps"),
        ("trained = [0.262144,", "trained = [0.1,", "trained: densities must fall"),
        ("trained = [0.262144,", "trained = [0.134217728,", "trained: densities must fall"),
        ("untrained = [0.8, ", "untrained = [1.5, ", "for 1.5 % write 0.015"),
        ("untrained = [0.8, ", "untrained = [0.0, ", "untrained"),
        ("name = ", "nam = ", "nam: unknown key (did you mean name?)"),
        ('name = "mlp-digits"', 'name = "mlp-digit"', "must be the file's name"),
        ('name = "mlp-digits"', 'name = "MLP digits"', "name: string should match"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(
    old: str, new: str, expected: str, tmp_path: Path
) -> None:
    line = refusal(tmp_path, changed(old, new))
    assert expected in line
    assert line.startswith("mlp-digits.toml ")


def test_the_limits_themselves_are_allowed(tmp_path: Path) -> None:
    for old, new in [
        ("rewind_limit = 0", "rewind_limit = 150"),
        ("untrained = [0.8, ", "untrained = [1.0, "),
        ("rate = 1.2e-3", "rate = 1"),
        ("every = 75", "every = 75\ncompressed_density = 0.262144"),
    ]:
        load_task(written(tmp_path, changed(old, new)))


def test_an_empty_ladder_is_none(tmp_path: Path) -> None:
    text = changed("trained = [0.262144, 0.134217728, 0.068719476736]", "trained = []")
    assert "densities must fall" in refusal(tmp_path, text)


@pytest.mark.parametrize("text", ["name = ", "[data\n", "name = 'a'\nname = 'b'", "\x00"])
def test_what_is_not_toml_says_so(text: str, tmp_path: Path) -> None:
    assert "not valid TOML" in refusal(tmp_path, text)


def test_bytes_that_are_no_text_say_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(TaskError, match="not valid TOML"):
        load_task(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"nothing\.toml: No such file"):
        load_task(str(tmp_path / "nothing.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(TaskError, match=r"folder\.toml: Is a directory"):
        load_task(str(tmp_path / "folder.toml"))


@pytest.mark.parametrize("name", ["mlp-digts", "MLP-digits", "mlp_digits"])
def test_an_unknown_task_names_the_nearest(name: str) -> None:
    with pytest.raises(TaskError, match=r"did you mean mlp-digits\?"):
        load_task(name)


@pytest.mark.parametrize("name", ["", "../pyproject", "suites/quick", "qwertz", "mlp-digits/"])
def test_other_names_are_no_tasks(name: str) -> None:
    with pytest.raises(TaskError, match="no task"):
        load_task(name)


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(
        TaskError, match=r"no suite 'quik' \(did you mean quick\?\); there are lite"
    ):
        load_suite("quik")


def test_models_are_frozen() -> None:
    task = load_task("mlp-digits")
    for model, name in ((task, "name"), (task.recipe, "rate"), (task.data, "folds")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(model, name, None)
    assert isinstance(task.network.prunable, tuple) and isinstance(task.recipe.betas, tuple)


NET = {"family": "conv", "depth": 2, "inputs": 48, "width": 4, "hidden": 4, "classes": 2}
NET |= {"channels": 3, "side": 4, "prunable": (), "init": ()}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"inputs": 49}, "inputs of family conv must be channels"),
        ({"inputs": 0, "channels": 0}, "inputs of family conv must be|greater than 0"),
        ({"depth": 3}, "halves its side depth times"),
        ({"hidden": 0}, "halves its side depth times and needs hidden"),
        ({"family": "vit", "heads": 2}, "patch must divide side"),
        ({"family": "vit", "patch": 3, "heads": 2}, "patch must divide side"),
        ({"family": "vit", "patch": 2, "heads": 3}, "heads that divide width"),
        ({"family": "vit", "patch": 2}, "heads that divide width"),
    ],
)
def test_an_image_must_come_out_even(changes: dict[str, Any], expected: str) -> None:
    Network.model_validate(NET)
    with pytest.raises(ValueError, match=expected):
        Network.model_validate(NET | changes)


def test_a_rewind_does_not_land_inside_a_warm_up() -> None:
    task = load_task("vit-tiny-cifar10")
    given_table = task.model_dump()
    given_table["search"]["rewind_limit"] = task.recipe.warm_up - 1
    with pytest.raises(ValueError, match=r"not inside recipe\.warm_up"):
        Task.model_validate(given_table)
    given_table["search"]["rewind_limit"] = 0
    Task.model_validate(given_table)


@given(factor=st.sampled_from([2, 4, 8]), name=st.sampled_from(task_names()))
@moderate
def test_a_compressed_schedule_is_the_same_shape(factor: int, name: str) -> None:
    recipe = load_task(name).recipe
    short = recipe.compressed(factor)
    assert type(short).model_validate(short.model_dump()) == short
    assert short.steps == recipe.steps // factor
    places = zip((*short.drops, short.warm_up), (*recipe.drops, recipe.warm_up), strict=True)
    assert all(abs(a / short.steps - b / recipe.steps) < 1.01 / short.steps for a, b in places)


# --- digests -------------------------------------------------------------------------------


def test_titles_and_calibration_do_not_change_the_digest() -> None:
    given_table = table()
    task = Task.model_validate(given_table)
    rows = [{"variant": "rate x3", "score": [0.5]}]
    given_table["title"] = "another"
    given_table["calibration"] = {"command": "c", "reading": "r", "variants": rows}
    other = Task.model_validate(given_table)
    assert other.calibration is not None and other.title != task.title
    assert other.digest == task.digest
    assert other.training_digest == task.training_digest


def leaves(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every number, string and list in a table, defaults included."""
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in leaves(one, (*place, key))]
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return [leaf for i, one in enumerate(value) for leaf in leaves(one, (*place, i))]
    return [place]


def other_value(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case _:
            return (other_value(value[0]), *value[1:]) if value else ("x",)


def update(model: Any, place: tuple[Any, ...]) -> Any:
    """A copy of the model with one leaf changed, whatever the rules say."""
    head, *rest = place
    if isinstance(model, tuple):
        return tuple(update(m, tuple(rest)) if i == head else m for i, m in enumerate(model))
    if isinstance(model, dict):
        return {**model, head: other_value(model[head])}
    value = getattr(model, head)
    if head == "drops" and not value:  # steps, where other lists that may be empty hold names
        return model.model_copy(update={head: (1,)})
    new = update(value, tuple(rest)) if rest else other_value(value)
    return model.model_copy(update={head: new})


TASK = load_task("mlp-digits")
LEAVES = leaves(TASK.model_dump(exclude={"title", "calibration"}))


@moderate
@given(place=st.sampled_from(LEAVES))
def test_any_field_of_the_protocol_changes_the_digest(place: tuple[Any, ...]) -> None:
    other = update(TASK, place)
    assert other.digest != TASK.digest
    trained = place[0] in ("data", "network")
    assert (other.training_digest != TASK.training_digest) == trained


def test_there_are_that_many_fields() -> None:
    assert len(LEAVES) > 60
    for part in ("data", "network", "recipe", "score", "ladder", "search", "transfer"):
        assert any(place[0] == part for place in LEAVES)


def test_a_digest_survives_json() -> None:
    for task in map(load_task, task_names()):
        again = Task.model_validate(task.model_dump(mode="json"))
        assert again == task and again.digest == task.digest


def test_digests_differ_between_tasks() -> None:
    tasks = [load_task(name) for name in task_names()]
    assert len({task.digest for task in tasks}) == len(tasks)
    # Tasks that train one network on one data set share what they train: the recipe has its key.
    trained = [(task.data.canonical(), task.network.canonical()) for task in tasks]
    different = [pair for n, pair in enumerate(trained) if pair not in trained[:n]]
    assert len({task.training_digest for task in tasks}) == len(different) == len(tasks) - 1


# --- names and patterns --------------------------------------------------------------------


def test_matching_keeps_the_order_of_names() -> None:
    names = ("b.weight", "a.weight", "a.bias", "ab")
    assert matching(names, ("a*", "b.*")) == names
    assert matching(names, ("*.weight",)) == ("b.weight", "a.weight")
    assert matching(names, ("A*", "weight")) == ()
    assert matching(names, ()) == ()
