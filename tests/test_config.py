"""Settings: what is accepted, what is refused and in which words, and the way to TOML and back."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearmargin import config as configuration
from clearmargin.config import (
    check_config,
    dump_config,
    load_recipe,
    parse_settings,
    read_config,
    read_toml,
    recipe_names,
    setting_names,
)
from clearmargin.errors import ClearmarginError, ConfigError, UnknownName, closest, counted, one_line
from clearmargin.settings import AugmentSettings, ImageSettings, RunConfig, SplitSettings, TrainSettings


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"trian": {"epochs": 3}}, "there is no setting 'trian'; did you mean 'train'? "),
            ({"augmnet": {}}, "there is no setting 'augmnet'; did you mean 'augment'? "),
            ({"train": {"epoch": 3}}, "there is no setting 'train.epoch'; did you mean 'train.epochs'? "),
            ({"images": {"szie": [50, 50]}}, "there is no setting 'images.szie'; did you mean 'images.size'? "),
            ({"sed": 1}, "there is no setting 'sed'; did you mean 'seed'? "),
            ({"epochs": 1}, "there is no setting 'epochs'; did you mean 'train.epochs'? "),
            ({"qqq": 1}, "there is no setting 'qqq'. "),
        ],
    )
    def test_is_refused_with_the_nearest_that_exists(self, values: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            check_config(values)
        assert str(caught.value) == message + "docs/settings.md lists them all."

    @pytest.mark.parametrize(
        ("key", "near"),
        [
            ("trian.epochs", "'train.epochs'"),
            ("train.epoch", "'train.epochs'"),
            ("epoch", "'train.epochs'"),
            ("fractoins", r"'split\.fractions'"),
            ("seed.x", "'seed'"),
            ("images.size.width", "'images.size'"),
        ],
    )
    def test_as_a_change_too(self, key: str, near: str) -> None:
        with pytest.raises(ConfigError, match=f"there is no setting '{key}'; did you mean {near}"):
            load_recipe("default", {key: 3})

    def test_a_section_is_no_setting(self) -> None:
        with pytest.raises(ConfigError, match=r"'train' is a section, not a setting: write train\.NAME=VALUE"):
            load_recipe("default", {"train": 3})

    @given(st.text(max_size=12))
    def test_any_key_at_all_is_either_known_or_refused(self, key: str) -> None:
        try:
            check_config({key: 1})
        except ConfigError as error:
            assert str(error).isprintable()
        else:
            assert key in ("seed", "deterministic")


class TestWrongValues:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"train": {"epochs": 0}}, "'train.epochs' cannot be 0: it should be greater than or equal to 1."),
            ({"train": {"epochs": "x"}}, "'train.epochs' cannot be 'x': it should be a valid integer"),
            ({"train": {"epochs": 2.5}}, "'train.epochs' cannot be 2.5: it should be a valid integer"),
            ({"train": {"optimizer": "sgd"}}, "'train.optimizer' cannot be 'sgd': it should be 'adam', 'adamw' or"),
            ({"train": {"learning_rate": float("inf")}}, "'train.learning_rate' cannot be inf: it should be a finite"),
            ({"train": {"learning_rate": float("nan")}}, "'train.learning_rate' cannot be nan"),
            ({"train": {"learning_rate": 0}}, "'train.learning_rate' cannot be 0: it should be greater than 0."),
            ({"images": {"channels": 2}}, "'images.channels' cannot be 2: it should be 1 or 3."),
            ({"images": {"size": "big"}}, "'images.size' cannot be 'big': it should be 'auto' or a list of the right"),
            ({"images": {"size": [4, 50]}}, "'images.size' cannot be [4, 50]: it should be 'auto' or greater than or"),
            ({"images": {"size": [50]}}, "'images.size' cannot be [50]: it should be 'auto' or a list of the right"),
            ({"images": {"std": 0}}, "'images.std' cannot be 0: it should be greater than 0."),
            ({"split": {"fractions": [0.8, 0.2]}}, "'split.fractions' cannot be [0.8, 0.2]: it should be a list of"),
            ({"split": {"fractions": [1.5, -0.3, -0.2]}}, "'split.fractions' cannot be "),
            ({"split": {"by": "slide"}}, "'split.by' cannot be 'slide': it should be 'patient' or 'image'."),
            ({"seed": -1}, "'seed' cannot be -1: it should be greater than or equal to 0."),
            ({"deterministic": "maybe"}, "'deterministic' cannot be 'maybe': it should be a valid boolean"),
            ({"train": 3}, "'train' cannot be 3: it is a section; write its settings below [train]."),
            ({"data": {"tolerance": 1.1}}, "'data.tolerance' cannot be 1.1: it should be less than or equal to 1."),
            ({"data": {"root": "da\udce4ta"}}, "'data.root' cannot be 'da\\udce4ta': it should be Unicode text"),
        ],
    )
    def test_the_message_names_the_key_the_value_and_what_is_right(
        self, values: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            check_config(values)
        assert str(caught.value).startswith(f"the setting {message}")
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.3), (0.9, 0.1, 0.0), (0.5, 0.2, 0.2), (1.0, 0.0, 0.0)])
    def test_fractions_must_be_above_0_and_sum_to_1(self, fractions: tuple[float, ...]) -> None:
        said = ", ".join(f"{share:g}" for share in fractions)
        with pytest.raises(ConfigError, match=rf"^split\.fractions must be three numbers above 0 .*, got {said}\.$"):
            check_config({"split": {"fractions": fractions}})

    @pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (1 / 3, 1 / 3, 1 / 3), (0.7, 0.15, 0.15)])
    def test_fractions_that_sum_to_1_but_for_rounding(self, fractions: tuple[float, ...]) -> None:
        assert check_config({"split": {"fractions": list(fractions)}}).split.fractions == fractions


class TestChanges:
    def test_a_leaf_is_enough_where_it_is_the_only_one(self) -> None:
        config = load_recipe("default", {"epochs": 3, "train.patience": 2, "seed": 7, "size": [32, 48]})
        assert (config.train.epochs, config.train.patience, config.seed) == (3, 2, 7)
        assert config.images.size == (32, 48)

    def test_a_leaf_of_two_sections_is_ambiguous(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = ["seed", "train.rate", "augment.rate"]
        monkeypatch.setattr(configuration, "setting_names", lambda: names)
        with pytest.raises(ConfigError, match=r"'rate' is ambiguous: write one of train\.rate, augment\.rate\."):
            load_recipe("default", {"rate": 1})

    def test_changes_come_on_top_of_a_base_and_leave_it_as_it_is(self) -> None:
        base = load_recipe("cancernet", {"epochs": 3})
        changed = load_recipe("default", {"seed": 5}, base=base)
        assert changed == base.model_copy(update={"seed": 5})
        assert base.seed == 0

    def test_every_setting_can_be_changed_by_its_dotted_name_or_leaf(self) -> None:
        for name in setting_names():
            section, _, leaf = name.rpartition(".")
            holder = getattr(load_recipe("default"), section) if section else RunConfig()
            value = getattr(holder, leaf)
            if value is not None:
                plain = list(value) if isinstance(value, tuple) else value
                load_recipe("default", {name: plain})
                load_recipe("default", {leaf: plain})

    def test_epochs_set_by_hand_have_no_floor(self) -> None:
        assert load_recipe("default").train.min_steps > 0
        assert load_recipe("default", {"epochs": 3}).train.min_steps == 0
        assert load_recipe("default", {"train.epochs": 3, "min_steps": 40}).train.min_steps == 40
        assert load_recipe("default", {"epochs": 3}, base=load_recipe("default")).train.min_steps == 0

    def test_a_change_set_by_hand_holds_for_grey_images_too(self) -> None:
        written = load_recipe("default").augment_grey
        assert written is not None
        config = load_recipe("default", {"zoom": 0.33, "augment.horizontal_flip": False})
        assert (config.augment.zoom, config.augment.horizontal_flip) == (0.33, False)
        assert config.augment_grey == written.model_copy(update={"zoom": 0.33, "horizontal_flip": False})

    def test_a_change_for_grey_images_alone_leaves_the_others(self) -> None:
        config = load_recipe("default", {"augment_grey.zoom": 0.33, "augment.zoom": 0.11})
        assert config.augment_grey is not None
        assert (config.augment.zoom, config.augment_grey.zoom) == (0.11, 0.33)
        assert load_recipe("cancernet", {"augment.zoom": 0.11}).augment_grey is None

    def test_settings_cannot_be_changed_afterwards(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            RunConfig().seed = 3  # type: ignore[misc]


class TestParseSettings:
    @pytest.mark.parametrize(
        ("pair", "key", "value"),
        [
            ("train.epochs=3", "train.epochs", 3),
            (" train.epochs = 3 ", "train.epochs", 3),
            ("train.learning_rate=1e-4", "train.learning_rate", 1e-4),
            ("deterministic=true", "deterministic", True),
            ("images.fit=stretch", "images.fit", "stretch"),
            ('images.fit="stretch"', "images.fit", "stretch"),
            ("split.fractions=[0.6, 0.2, 0.2]", "split.fractions", [0.6, 0.2, 0.2]),
            (r"data.patient_regex=([A-Z]+\d+)_x=1", "data.patient_regex", r"([A-Z]+\d+)_x=1"),
            ("description=2024-01-01", "description", "2024-01-01"),
            ("description=two words", "description", "two words"),
            ("description=", "description", ""),
        ],
    )
    def test_a_value_is_read_as_toml_or_else_as_text(self, pair: str, key: str, value: object) -> None:
        parsed = parse_settings([pair])
        assert parsed == {key: value}
        assert type(parsed[key]) is type(value)
        load_recipe("default", parsed)

    def test_the_last_of_two_counts(self) -> None:
        assert parse_settings(["seed=1", "seed=2"]) == {"seed": 2}

    @pytest.mark.parametrize("pair", ["train.epochs", "", "=3", "  =3"])
    def test_what_is_no_pair_is_refused_with_an_example(self, pair: str) -> None:
        with pytest.raises(ConfigError, match=f"--set {pair}: write it as key=value, for example"):
            parse_settings([pair])


class TestRecipes:
    def test_default_comes_first_and_the_five_systems_are_there(self) -> None:
        names = recipe_names()
        assert names[0] == "default"
        assert {"larger_model", "cbis_ddsm", "cnn_50", "cnn_3conv", "cancernet"} <= set(names)

    @pytest.mark.parametrize("name", recipe_names())
    def test_each_loads_says_what_it_is_and_names_itself(self, name: str) -> None:
        recipe = load_recipe(name)
        assert recipe.recipe == name
        assert recipe.description.endswith(".")
        written = tomllib.loads((configuration.RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
        for section, content in written.items():
            if isinstance(content, dict):
                for leaf, value in content.items():
                    found = getattr(getattr(recipe, section), leaf)
                    assert (list(found) if isinstance(found, tuple) else found) == value

    def test_an_unknown_recipe_lists_all_with_the_nearest(self) -> None:
        with pytest.raises(UnknownName, match=r"no recipe 'cancernt'; did you mean 'cancernet'\? Known: default, "):
            load_recipe("cancernt")

    def test_one_of_your_own(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.toml"
        file.write_bytes("\ufeff[train]\r\nepochs = 4\r\n".encode())
        config = load_recipe(str(file), {"batch_size": 8})
        assert (config.recipe, config.train.epochs, config.train.batch_size) == ("mine", 4, 8)

    def test_a_section_that_is_a_number_in_ones_own(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text("train = 3\n")
        for changes in ({}, {"epochs": 4}):
            with pytest.raises(ConfigError, match="the setting 'train' cannot be 3: it is a section"):
                load_recipe(str(tmp_path / "mine.toml"), changes)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, r"no such file; give the path of a TOML file"),
            (b"epochs = \n", r"not valid TOML \("),
            (b"description = '\xff'", r"not valid TOML \("),
            ("folder", r"cannot be read \(Is a directory\); give a TOML file"),
        ],
    )
    def test_a_file_that_is_none(self, tmp_path: Path, content: bytes | str | None, message: str) -> None:
        file = tmp_path / "mine.toml"
        if content == "folder":
            file.mkdir()
        elif isinstance(content, bytes):
            file.write_bytes(content)
        with pytest.raises(ConfigError, match=message) as caught:
            read_toml(file)
        assert str(caught.value).startswith(str(file))


class TestRoundTrip:
    @pytest.mark.parametrize("name", recipe_names())
    def test_a_recipe_is_read_as_it_was_written(self, name: str, tmp_path: Path) -> None:
        config = load_recipe(name, {"data.root": '/data/größe "x"\n', "data.patient_regex": r"(P\d+)_'"})
        (tmp_path / "config.toml").write_text(dump_config(config), encoding="utf-8", newline="")
        assert read_config(tmp_path / "config.toml") == config

    @settings(max_examples=100)
    @given(
        config=st.builds(
            RunConfig,
            description=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
            seed=st.integers(0, 2**31 - 1),
            deterministic=st.booleans(),
            images=st.builds(ImageSettings, size=st.one_of(st.just("auto"), st.tuples(*[st.integers(8, 2048)] * 2))),
            split=st.builds(SplitSettings, fractions=st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25)])),
            augment=st.builds(AugmentSettings, rotate_degrees=st.floats(0, 180), quarter_turns=st.booleans()),
            train=st.builds(TrainSettings, learning_rate=st.floats(0, exclude_min=True, allow_infinity=False)),
        )
    )
    def test_any_settings_are_read_as_they_were_written(self, config: RunConfig) -> None:
        assert check_config(tomllib.loads(dump_config(config))) == config

    def test_every_setting_is_written_out(self) -> None:
        config = load_recipe(
            "default",
            {
                "data.source": "idc",
                "patient_regex": "x",
                "exclude_file": "x",
                "labels_file": "x",
                "frame": 1,
                "prevalence": 0.1,
                "split.seed": 1,
                "split.folds": 2,
                "split.fold": 0,
            },
        )
        written = tomllib.loads(dump_config(config))
        other = tomllib.loads(dump_config(load_recipe("default", {"split_file": "x"})))
        written["data"] |= other["data"]  # a split file and folds exclude each other
        names = [
            f"{key}.{leaf}" if isinstance(content, dict) else key
            for key, content in written.items()
            for leaf in (content if isinstance(content, dict) else [key])
        ]
        assert sorted(names) == sorted(setting_names())

    def test_names_are_unique(self) -> None:
        assert len(set(setting_names())) == len(setting_names())


class TestErrors:
    def all_errors(self) -> list[type[ClearmarginError]]:
        found, queue = [], [ClearmarginError]
        while queue:
            error = queue.pop()
            found.append(error)
            queue += [each for each in error.__subclasses__() if each.__module__.startswith("clearmargin.")]
        return found

    def test_exit_codes_and_statuses_are_those_of_the_design(self) -> None:
        codes = {error.__name__: (error.exit_code, error.http_status) for error in self.all_errors()}
        assert codes == {
            "ClearmarginError": (1, 500),
            "UsageError": (2, 400),
            "ConfigError": (2, 400),
            "UnknownName": (2, 400),
            "MissingExtra": (2, 400),
            "DataError": (3, 422),
            "ImageError": (3, 422),
            "ArchiveTooLarge": (3, 422),
            "AuditBlocked": (3, 422),
            "SplitError": (3, 422),
            "NotAttainable": (3, 422),
            "BundleError": (4, 500),
            "AllRefused": (5, 422),
            "ServerError": (1, 500),
            "Interrupted": (130, 503),
        }

    @given(st.text())
    def test_a_message_is_one_printable_line(self, text: str) -> None:
        message = str(ConfigError(text))
        assert message.isprintable()
        assert len(message.splitlines()) <= 1
        message.encode("utf-8")
        assert one_line(message) == message

    def test_a_name_of_the_file_system_in_a_message(self) -> None:
        assert str(ConfigError(os.fsdecode(b"a\xffb\n\x1b[0m"))) == r"a\udcffb\n\x1b[0m"

    def test_the_closest_name_is_near_or_none(self) -> None:
        assert closest("Cancernet", ["default", "cancernet"]) == "cancernet"
        assert closest("EPOCH", ["Epochs", "seed"]) == "Epochs"
        assert closest("zzz", ["default", "cancernet"]) is None
        assert closest("", []) is None

    def test_numbers_go_with_their_words(self) -> None:
        said = [counted(number, "image is", "images are") for number in (0, 1, 2, 12345)]
        assert said == ["0 images are", "1 image is", "2 images are", "12,345 images are"]
