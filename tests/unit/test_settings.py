"""Sources in order, complaints with file, line and closest key, and text that loads back as what it was dumped from."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from pamdp.config import Config, EvalConfig
from pamdp.errors import ConfigError
from pamdp.registry import LAYOUTS
from pamdp.reproduce.config import OnlineReproduceConfig, ReproduceConfig
from pamdp.settings import Setting, Settings, dump, explain, flatten, known, load, presets


class Inner(Settings):
    rate: float = Field(default=0.5, gt=0)
    words: tuple[str, ...] = ("a",)
    limit: int | None = None


class Outer(Settings):
    seed: int = 0
    name: str = "x"
    mode: Literal["slow", "fast"] = "slow"
    on: bool = False
    inner: Inner = Inner()
    other: Inner = Inner(rate=2.0)


def write(folder: Path, text: str, name: str = "my.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_later_sources_win_and_tables_merge(tmp_path: Path) -> None:
    first = write(tmp_path, 'seed = 1\n[inner]\nrate = 1.0\nwords = ["b", "c"]\n', "one.toml")
    second = write(tmp_path, "[inner]\nrate = 2.0\n", "two.toml")
    found = load(Outer, [first, second], ["inner.limit=7", "seed=3"])
    assert found == Outer(seed=3, inner=Inner(rate=2.0, words=("b", "c"), limit=7))
    assert load(Outer) == Outer()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("inner.rate=1e-3", "inner.rate", 1e-3),
        ("inner.rate = 3", "inner.rate", 3.0),
        ("name=some words", "name", "some words"),
        ('name="quoted = sign"', "name", "quoted = sign"),
        ("name=a=b", "name", "a=b"),
        ("name=2024", "name", "2024"),
        ("name=", "name", ""),
        ("on=true", "on", True),
        ("on=False", "on", False),
        ("inner.words=[users, user]", "inner.words", ("users", "user")),
        ('inner.words=["users", "user"]', "inner.words", ("users", "user")),
        ("inner.words=[]", "inner.words", ()),
        ("inner.limit=none", "inner.limit", None),
        ("mode=fast", "mode", "fast"),
    ],
)
def test_overrides_by_hand(override: str, key: str, value: object, tmp_path: Path) -> None:
    file = write(tmp_path, "[inner]\nlimit = 5\n")
    assert flatten(load(Outer, [file], [override]))[key] == value


def test_an_unknown_key_in_a_file_is_placed_and_the_closest_named(tmp_path: Path) -> None:
    file = write(tmp_path, 'seed = 1\n\n[inner] # comment\n# rate\nrate = 1.0\nwrods = ["b"]\n')
    with pytest.raises(ConfigError, match=r"my\.toml:6: unknown setting inner\.wrods; did you mean inner\.words\?"):
        load(Outer, [file])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.rat=1", "override inner.rat=1: unknown setting inner.rat; did you mean inner.rate?"),
        ("limit=1", "unknown setting limit; did you mean inner.limit?"),
        ("inner.zzz=1", "unknown setting inner.zzz; there are: inner.rate, inner.words, inner.limit"),
        ("inner.rate=0", "override inner.rate=0: inner.rate: input should be greater than 0, not 0"),
        ("inner.rate=fast", "inner.rate: input should be a valid number"),
        ("inner.rate=nan", "inner.rate: input should be a finite number"),
        ("seed=1.5", "seed: input should be a valid integer"),
        ("mode=quick", "mode: input should be 'slow' or 'fast', not 'quick'"),
        ("inner=3", "inner: input should be a valid dictionary"),
        ("seed", "an override is key=value, such as clone.lr=1e-3; got 'seed'"),
        ("=3", "an override is key=value"),
        ("inner..rate=3", "an override is key=value"),
    ],
)
def test_complaints_about_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Outer, [], [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_value_is_blamed_on_who_set_it_last(tmp_path: Path) -> None:
    good = write(tmp_path, "[inner]\nrate = 1.0\n", "good.toml")
    bad = write(tmp_path, "\n\ninner.rate = -1\n", "bad.toml")
    with pytest.raises(ConfigError, match=r"bad\.toml:3: inner\.rate: .*not -1"):
        load(Outer, [good, bad])
    with pytest.raises(ConfigError, match=r"bad\.toml:3"):
        load(Outer, [bad], ["seed=3"])
    assert load(Outer, [bad, good]).inner.rate == 1.0


def test_several_faults_are_told_together(tmp_path: Path) -> None:
    file = write(tmp_path, "a = 1\nb = 1\nc = 1\nd = 1\nseed = 2\n")
    with pytest.raises(ConfigError, match=r"my\.toml:1: .*; .*my\.toml:2: .*; .*my\.toml:3: .*; and 1 more"):
        load(Outer, [file])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed = 1\nname = \n", r"my\.toml:2: not TOML"),
        (b"seed = 1\nseed = 2\n", r"my\.toml:2: not TOML"),
        (b'name = "\xff"\n', r"my\.toml: not UTF-8"),
    ],
)
def test_an_unreadable_file_is_placed(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(Outer, [tmp_path / "my.toml"])


def test_a_missing_file_and_a_missing_preset_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read settings .*none\.toml: No such file"):
        load(Outer, [tmp_path / "none.toml"])
    with pytest.raises(ConfigError, match=r"no preset 'papre'; did you mean 'paper'\?"):
        load(Config, ["papre"])
    with pytest.raises(ConfigError, match=r"no preset 'zzz'; there are: .*paper"):
        load(Config, ["zzz"])


WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
INNERS = st.builds(
    Inner,
    rate=st.floats(min_value=1e-300, allow_infinity=False, allow_nan=False),
    words=st.lists(WORDS, max_size=3).map(tuple),
    limit=st.none() | st.integers(-(2**63), 2**63 - 1),
)


@given(
    st.builds(Outer, seed=st.integers(), name=WORDS, mode=st.sampled_from(["slow", "fast"]), inner=INNERS, other=INNERS)
)
def test_dumped_settings_load_as_themselves(settings: Outer) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert load(Outer, [write(Path(folder), dump(settings))]) == settings


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().inner.rate = 1.0


@pytest.mark.parametrize("name", presets())
def test_every_preset_fits_the_settings(name: str, tmp_path: Path) -> None:
    config = load(Config, [name])
    assert load(Config, [write(tmp_path, dump(config))]) == config
    assert config != Config(), "a preset that changes nothing"


def test_absent_values_can_be_written() -> None:
    """TOML has no null: a setting that may be None must default to it, or it would come back as its default."""

    def check(kind: type[Settings]) -> None:
        for name, field in kind.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
                check(field.annotation)
            elif type(None) in getattr(field.annotation, "__args__", ()):
                assert field.default is None, f"{kind.__name__}.{name}"

    check(Config)


@pytest.mark.parametrize("name", ["auto", *LAYOUTS])
def test_a_layout_is_named_as_it_is_registered(name: str) -> None:
    assert load(Config, (), [f"data.format={name}"]).data.format == name


def test_an_unknown_layout_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"data\.format: no layout 'alo'; did you mean 'aloe'\? there are: aloe,"):
        load(Config, (), ["data.format=alo"])


def test_the_papers_table_4() -> None:
    config = load(Config, ["paper"])
    clone, rl = config.clone, config.rl
    assert (clone.max_context, clone.max_reply, clone.epochs, clone.batch_size, clone.lr) == (1200, 128, 3, 8, 2e-5)
    assert (rl.epochs, rl.batch_size, rl.actor_every, rl.lr_actor, rl.lr_critic) == (5, 32, 5, 5e-5, 5e-4)
    assert (rl.kl, rl.gamma, rl.horizon, config.model.d_a) == (0.05, 0.99, 6, 64)


@pytest.mark.parametrize("kind", [Config, EvalConfig, ReproduceConfig, OnlineReproduceConfig])
def test_every_setting_has_a_meaning(kind: type[Settings]) -> None:
    settings = explain(kind)
    assert {setting.key: setting.value for setting in settings} == flatten(kind())
    for setting in settings:
        assert setting.meaning and setting.allowed and setting.value == setting.default, setting.key
        assert setting.source == "default", setting.key


class Base(Settings):
    """Where some of it stands.

    Attributes:
      rate, limit: how fast: in
        metres, and how far.
      words: of
        a base.

    Notes:
      mode: not this.
    """

    rate: float = Field(default=0.5, gt=0, le=1)
    limit: int | None = Field(default=None, ge=1)
    words: tuple[Literal["a", "b"], ...] = ("a",)


class Derived(Base):
    """The rest.

    Attributes:
      words: its own.
      layout, urls,
        on: three
        at once.
    """

    layout: Annotated[str, known(LAYOUTS, "auto")] = "auto"
    urls: dict[str, str] = Field(default_factory=dict)
    on: bool = False
    mode: str = "x"


class Whole(Settings):
    """All of it.

    Attributes:
      part: a part.
    """

    part: Derived = Derived(rate=1.0)


def test_a_part_that_is_named_keeps_the_defaults_of_the_whole(tmp_path: Path) -> None:
    assert load(Outer, (), ["other.limit=3"]).other == Inner(rate=2.0, limit=3)
    assert load(Outer, [write(tmp_path, "[other]\nwords = []\n")]).other == Inner(rate=2.0, words=())
    with pytest.raises(ConfigError, match="other: input should be a valid dictionary"):
        load(Outer, (), ["other=3"])


def test_a_setting_is_explained_by_hand(tmp_path: Path) -> None:
    file = write(tmp_path, "[part]\n\nlimit = 3\nwords = ['b']\n[part.urls]\na = 'b'\n")
    found = {setting.key: setting for setting in explain(Whole, [file], ["part.on=true", "part.limit=4"])}
    assert found["part.rate"] == Setting(
        "part.rate", 1.0, 1.0, "number > 0 ≤ 1", "how fast: in metres, and how far.", "default"
    )
    assert found["part.limit"] == Setting(
        "part.limit", 4, None, "whole number ≥ 1, or none", "how fast: in metres, and how far.", "override part.limit=4"
    )
    assert found["part.words"] == Setting("part.words", ("b",), ("a",), "list of a | b", "its own.", f"{file}:4")
    assert found["part.urls"] == Setting("part.urls", {"a": "b"}, {}, "table", "three at once.", f"{file}:5")
    assert found["part.on"].source == "override part.on=true" and found["part.on"].allowed == "true | false"
    assert found["part.layout"].allowed == " | ".join(("auto", *LAYOUTS))
    assert found["part.mode"].meaning == "", "another section is not about settings"


def test_who_set_it_last_is_its_source() -> None:
    found = {setting.key: setting.source for setting in explain(Config, ["paper", "prefeval"], ["rl.kl=0.1"])}
    assert found["rl.kl"] == "override rl.kl=0.1" and found["seed"] == "default"
    assert found["data.folds"].startswith("preset prefeval:") and found["rl.gamma"].startswith("preset paper:")
    with pytest.raises(ConfigError, match=r"rl\.kl: .*not -1"):
        explain(Config, (), ["rl.kl=-1"])
