"""YAML as configurations need it: what scalars mean, and that what is written is read back."""

import random

import yaml

from infocomp import yaml_text


def test_words_and_numbers_mean_what_they_mean_in_yaml_1_2():
    scalars = "[no, yes, on, 1e-3, 010, 12:30, 0x1f, 0o17, 1_000, .inf, 2026-01-01, ~, True, -1.5E3, 1., .5]"
    assert yaml_text.parse(scalars, "here") == [
        *[
            "no",
            "yes",
            "on",
            0.001,
            10,
            "12:30",
            31,
            15,
            1000,
            float("inf"),
            "2026-01-01",
            None,
            True,
            -1500.0,
            1.0,
            0.5,
        ]
    ]
    assert yaml_text.parse("a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}", "here")["b"] == {"x": 1, "y": 2}


def test_strings_survive_yaml_and_mean_the_same_to_a_1_1_reader():
    letters = "abny~-0123456789eE._xo:+#'\"\\ \n\r\t{}[],&*!|>%@`<=é😀\x85\u2028\ufeff\x00\x1b\x7f\xa0"
    words = ["no", "yes", "on", "null", "~", "1e-3", "1e5", "1_000", "0o17", "0x1F", "010", "12:30", ".inf", ".nan"]
    words += ["<<", "=", "2026-01-01", "true", "y", "-", "?", "", " ", "a\nb\n", "a\r\nb"]
    draw = random.Random(0)
    strings = words + ["".join(draw.choices(letters, k=draw.randint(1, 8))) for _ in range(1500)]
    value = {text: [text, {"inner": text}] for text in strings}
    assert yaml_text.parse(yaml_text.dump(value), "here") == value
    assert yaml.safe_load(yaml_text.dump(value)) == value
