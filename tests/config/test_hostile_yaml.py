"""YAML texts that are broken, hostile or merely odd: one ConfigError line each, or the value that was meant."""

import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearthnet_cbir.config import load_config, parse_config, write_config
from bigearthnet_cbir.config.loader import read_mapping, read_value
from bigearthnet_cbir.errors import ConfigError

PLAIN = """\
name: group
logging_params: {name: run}
train_csv: a/train.csv
val_csv: a/val.csv
test_csv: a/test.csv
bigEarthPthLMDB_S2: a/s2.lmdb
bigEarthPthLMDB_S1: a/s1.lmdb
"""


def load(text: str, tmp_path: Path) -> object:
    path = tmp_path / "args.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return load_config(path, root=tmp_path)


def refusal(text: str, tmp_path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, "more than one line"
    assert len(message) < 2000, "a line that nobody reads"
    return message


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGE_BOMB = (
    "a0: &a0 {"
    + ", ".join(f"k{n}: 1" for n in range(2000))
    + "}\n"
    + "".join(f"b{n}: {{<<: *a0}}\n" for n in range(2000))
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: !!python/object/apply:os.system ['true']\n", "the tag !!python/object/apply:os.system"),
        ("seed: !foo 3\n", "line 8: the tag !foo"),
        ("seed: !!binary aGVsbG8=\n", "the tag !!binary"),
        ("seed: !!set {a, b}\n", "the tag !!set"),
        ("seed: !!int abc\n", "cannot be read as int"),
        ("seed: !!float ''\n", "cannot be read as float"),
        ("seed: !!bool perhaps\n", "cannot be read as bool"),
        (f"seed: {'9' * 400}\n", "seed is "),
        (f"seed: {'9' * 5000}\n", "a number of 5,000 characters"),
        (f"seed: 0x{'f' * 900}\n", "seed is "),
        (f"learning_rate: {'9' * 400}\n", "learning_rate is "),
        (f"learning_rate: '{'9' * 400}'\n", "learning_rate is "),
        ("learning_rate: 1e400\n", "learning_rate is "),
        ("learning_rate: -.inf\n", "learning_rate is -.inf"),
        (f"seed: {':'.join(['59'] * 300)}\n", "seed is "),
        (f"seed: {'[' * 5000}\n", "20 levels"),
        (f"seed: {'{a: ' * 100}1{'}' * 100}\n", "20 levels"),
        ("seed:\n" + "".join(f"{' ' * n}-\n" for n in range(1, 200)), "20 levels"),
        (BOMB + "seed: *a11\n", "seed is [["),
        (MERGE_BOMB, "merges repeat over"),
        ("seed: &a [*a]\n", "an alias is inside the value"),
        ("noise: &a {<<: *a}\n", "an alias is inside the value"),
        ("<<: 3\n", "<< merges mappings"),
        ("<<: *nowhere\n", "not valid YAML at line 8"),
        ("<<: {seed: 1}\n<<: {noise: 1}\n", "<< is given twice"),
        ("1: 2\n", "1 is not a key"),
        ("null: 2\n", "null is not a key"),
        ("[a, b]: 2\n", "line 8: a key is a list or a mapping"),
        ("? {a: b}\n: 2\n", "a key is a list or a mapping"),
        (f"{'k' * 900}: 2\n", "is not a key; remove it"),
        ('"two\\nlines": 2\n', "is not a key"),
        ("".join(f"k{n}: 1\n" for n in range(500)), "480 further problems"),
        ("state_dict: ~nobody-of-that-name/x.pth\n", "state_dict is '~nobody-of-that-name/x.pth'; no such home"),
        ('state_dict: "a\\0b"\n', "control character"),
        ('state_dict: "a\\nb"\n', "control character"),
        ('state_dict: "\\ud800"\n', "control character"),
        (f"state_dict: {'d' * 300}/x\n", "too long"),
        (f"state_dict: {'d/' * 3000}x\n", "too long"),
        ("device: cuda:99999999999999999999\n", "choose one of auto, cpu, cuda, cuda:N"),
        ("device: cuda:\u00b2\n", "choose one of auto, cpu, cuda, cuda:N"),
        ("seed: 9223372036854775808\n", "seed is 9223372036854775808; give a whole number >= 0 and <= 9223372036854"),
        ("---\na: 1\n---\nb: 2\n", "not valid YAML"),
        ("\x07: 1\n", "not valid YAML"),
        ("%YAML 9.9\n---\na: 1\n", "YAML"),
        ("seed: 2024-13-77\n", "seed is '2024-13-77'"),
        ("seed: {1: 2, 1: 3}\n", "1 is given twice"),
        ("logging_params: 3\n", "logging_params is given twice"),
    ],
)  # fmt: skip
def test_odd_yaml_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    assert words in refusal(PLAIN + text, tmp_path)


def test_a_file_that_is_no_configuration_is_one_line(tmp_path: Path) -> None:
    assert "larger than" in refusal("#" * (1 << 20) + "\n" + PLAIN, tmp_path)
    for odd in ("a\0b", "n" * 300 + ".yaml", "\udcff.yaml"):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            load_config(tmp_path / odd)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_merged_keys_are_read_and_explicit_ones_win(tmp_path: Path) -> None:
    text = (
        "defaults: &defaults\n  batch_size: 7\n  epochs: 3\n  seed: 5\n"
        "small: &small {epochs: 2, noise: 0.5}\n"
        f"{PLAIN}<<: [*small, *defaults]\nseed: 9\n"
    )
    config = load(text, tmp_path)
    assert (config.batch_size, config.epochs, config.noise, config.seed) == (7, 2, 0.5, 9)


def test_merges_nest_and_keep_the_key_that_is_merged_elsewhere(tmp_path: Path) -> None:
    text = f"one: &one {{batch_size: 7, epochs: 3}}\ntwo: &two {{<<: *one, epochs: 4}}\n{PLAIN}<<: *two\n".replace(
        "logging_params: {name: run}", "logging_params: {<<: {save_dir: out}, name: run}"
    )
    config = load(text, tmp_path)
    assert (config.batch_size, config.epochs) == (7, 4)
    assert config.run_folder == tmp_path / "out/group/run"


def test_a_mapping_that_nobody_merges_is_still_an_unknown_key(tmp_path: Path) -> None:
    assert "defaults is not a key" in refusal(f"defaults: &defaults {{seed: 1}}\n{PLAIN}", tmp_path)


@pytest.mark.parametrize(
    ("written", "read"), [("1.10", "1.1"), ("010", "8"), ("1_000", "1000"), ("1:30", "90"), ("0x1F", "31"), ("+5", "5")]
)
@pytest.mark.parametrize("key", ["name", "logging_params"])
def test_a_name_that_yaml_reads_as_another_number_wants_quotes(
    written: str, read: str, key: str, tmp_path: Path
) -> None:
    plain, where = ("name: group", "name") if key == "name" else ("{name: run}", "logging_params.name")
    message = refusal(PLAIN.replace(plain, plain.replace(plain.strip("{}").split()[1], written)), tmp_path)
    assert f'{where} is {written}; YAML reads it as {read}; put it in quotes: "{written}"' in message
    quoted = PLAIN.replace(plain, plain.replace(plain.strip("{}").split()[1], f'"{written}"'))
    config = load(quoted, tmp_path)
    assert written in (config.name, config.logging_params.name)
    write_config(config, tmp_path / "parameters.yaml", root=tmp_path)
    assert load_config(tmp_path / "parameters.yaml", root=tmp_path) == config


@pytest.mark.parametrize("written", ["2", "2024", "1.5", "2024-01-31", "v1"])
def test_names_that_print_as_they_are_written_go_on_to_work(written: str, tmp_path: Path) -> None:
    assert load(PLAIN.replace("name: group", f"name: {written}"), tmp_path).name == written


@pytest.mark.parametrize("written", ["yes", "off", "True"])
def test_a_name_that_yaml_reads_as_a_truth_value_wants_quotes(written: str, tmp_path: Path) -> None:
    assert "put it in quotes" in refusal(PLAIN.replace("name: group", f"name: {written}"), tmp_path)


def test_names_from_python_are_held_to_the_same_rule() -> None:
    values = read_value(PLAIN)
    assert parse_config({**values, "name": 7}).name == "7"
    for name in (1.1, True, 10**5000, None, "x" * 201, b"x"):
        with pytest.raises(ConfigError, match="name is"):
            parse_config({**values, "name": name})


def test_large_whole_numbers_keep_every_digit() -> None:
    for seed in (2**53 + 1, str(2**53 + 1), 2**63 - 1):
        assert parse_config({**read_value(PLAIN), "seed": seed}).seed == int(seed)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"batch_size": 8, "micro_batch_size": 3},
            "micro_batch_size is 3; batch_size is 8: give a smaller",
        ),
        (
            {"batch_size": 8, "micro_batch_size": 8},
            "micro_batch_size is 8; batch_size is 8: give a smaller",
        ),
        ({"batch_size": 8, "micro_batch_size": 1}, "micro_batch_size is 1; a batch norm needs two pairs"),
        ({"batch_size": 1}, "batch_size is 1; the contrastive loss of one pair is always 0"),
        ({"learn_temperature": True, "temperature": 0.01}, "temperature is 0.01; a learned one stays above 0.01"),
        ({"window": 121}, "window is 121; give a whole number >= 32 and <= 120"),
        ({"init_weights_s1": "s1.pth"}, "init_weights_s1 is for the separate type"),
        ({"projection_dim": 10**9}, "projection_dim is 1000000000"),
        ({"num_workers": 10**6}, "num_workers is 1000000"),
        ({"temperature": 1e30}, "temperature is 1e+30"),
    ],
)
def test_settings_that_mean_nothing_are_refused(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**read_value(PLAIN), **keys})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        {"batch_size": 1, "loss_func": "classification"},
        {"batch_size": 1, "memory_size": 8},
        {"batch_size": 8, "micro_batch_size": 2, "memory_size": 8, "accumulate_steps": 2},
        {"temperature": 0.01},
        {"temperature": 0.011, "learn_temperature": True},
        {"init_weights_s1": "s1.pth", "type": "separate"},
    ],
)
def test_settings_next_to_them_are_taken(keys: dict[str, object]) -> None:
    parse_config({**read_value(PLAIN), **keys})


PIECES = (
    *"\t\n :-?[]{},#&*!|>'\"%@`~=<0123456789.eE+_x", "<<: ", "&a ", "*a ", "!!", "!foo ", "!!int ", "- ", "? ", "\n  ",
    "seed: ", "name: ", "{name: ", "null", "1e999", "\\ud800", "\x00", "\ufeff", "---\n", "logging_params:\n", ".nan",
)  # fmt: skip


def mangled(draw: random.Random) -> str:
    """PLAIN with a few cuts, doubled parts and strange pieces put in."""
    text = PLAIN + draw.choice(["", "seed: 3\n", "b: &a {seed: 3}\n<<: *a\n"])
    for _ in range(draw.randint(1, 6)):
        at, to = sorted(draw.choices(range(len(text) + 1), k=2))
        what = draw.randrange(4)
        if what == 0:
            text = text[:at] + text[to:]
        elif what == 1:
            text = text[:to] + text[at:to] * draw.randint(1, 3) + text[to:]
        else:
            text = text[:at] + "".join(draw.choices(PIECES, k=draw.randint(1, 4))) + text[at:]
    return text


@pytest.mark.parametrize("seed", range(20))
def test_mangled_files_give_a_configuration_or_one_line(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    refused: list[str] = []
    for _ in range(50):
        try:
            load(mangled(draw), tmp_path)
        except ConfigError as error:
            refused.append(str(error))
    assert len(refused) > 10, "the texts are not broken enough to test anything"
    assert all(len(message.splitlines()) == 1 for message in refused)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from(string.printable + "\u00e9\u2028"), max_size=60))
def test_a_value_on_the_command_line_is_always_read(text: str) -> None:
    read_value(text)


def test_the_keys_of_a_base_file_leave_templates_out(tmp_path: Path) -> None:
    path = tmp_path / "base.yaml"
    path.write_text("common: &common {epochs: 3}\n<<: *common\nseed: 4\n")
    assert read_mapping(path) == {"epochs": 3, "seed": 4}
