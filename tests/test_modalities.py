"""Pictures, sound and 7-bit text: shapes by hand, nothing lost, what lost bits cost, three rules, and the guards."""

import math

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from infocomp.coding.modalities import (
    Mapped,
    audio_pieces,
    audio_samples,
    decode_lost_bits,
    encode_lost_bits,
    from_ascii,
    grey_pixels,
    image_patches,
    lost_bits_coded,
    mapped_rates,
    to_ascii,
)

UTF8 = "Zoë’s “naïve” café — she said: “Où est l’été?” and left.\n".encode() * 60
NOISE = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8).tobytes()


def save_sound(path, samples, rate=16000):
    soundfile.write(path, np.asarray(samples, dtype=np.int16), rate, subtype="PCM_16")
    return path


def test_patches_go_left_to_right_and_then_down_and_drop_the_rest():
    image = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    expected = [[0, 1, 2, 7, 8, 9], [3, 4, 5, 10, 11, 12], [14, 15, 16, 21, 22, 23], [17, 18, 19, 24, 25, 26]]
    assert image_patches(image, height=2, width=3).tolist() == expected


def test_patches_of_a_file_are_those_of_its_pixels(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (70, 130), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    patches = image_patches(tmp_path / "grey.png")
    assert patches.shape == (4, 2048) and patches.dtype == np.uint8
    assert (patches[1] == pixels[:32, 64:128].ravel()).all()
    assert (image_patches(pixels) == patches).all()


def test_colour_becomes_the_mean_of_its_channels_cut_to_an_integer(tmp_path):
    colour = np.array([[[0, 0, 2], [255, 255, 254]], [[1, 1, 0], [10, 20, 33]]], dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(colour).convert("RGBA").save(tmp_path / "transparent.png")
    for source in (colour, tmp_path / "colour.png", tmp_path / "transparent.png"):
        assert grey_pixels(source).tolist() == [[0, 254], [0, 21]], source


def test_a_picture_smaller_than_a_patch_is_refused():
    with pytest.raises(
        ValueError, match=r"^the picture has 31 × 64 pixels, less than one patch of 32 × 64: give .*\.$"
    ):
        image_patches(np.zeros((31, 64), np.uint8))


def test_pixels_of_16_bits_are_refused(tmp_path):
    deep = np.zeros((32, 64), np.uint16)
    with pytest.raises(ValueError, match=r"^the picture is an array of uint16 with 2 axes: 8-bit pixels of .*\.$"):
        grey_pixels(deep)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with pytest.raises(
        ValueError, match=r"^the picture is of Pillow's mode 'I;16': 8-bit pixels .* convert it first\.$"
    ):
        grey_pixels(tmp_path / "deep.png")


def test_a_sample_is_its_upper_byte_around_128(tmp_path):
    samples = [-32768, -257, -256, -1, 0, 255, 256, 32767, 5]
    path = save_sound(tmp_path / "sound.wav", samples)
    # by hand what lin2lin to one byte and bias by 128 make of them; the ninth is a rest
    assert audio_pieces(path, piece=4).tolist() == [[0, 126, 127, 127], [128, 128, 129, 255]]
    assert audio_samples(path).tolist() == samples


def test_pieces_of_real_speech_are_its_upper_bytes(shared_data):
    path = shared_data / "audio" / "jfk.wav"
    raw = np.frombuffer(path.read_bytes()[-352_000:], "<i2")  # 11 seconds of samples behind the header
    assert (audio_samples(path) == raw).all()
    assert (audio_pieces(path).ravel() == (raw // 256 + 128)[: 85 * 2048]).all()


@pytest.mark.parametrize(
    ("samples", "rate", "told"),
    [(np.zeros(4000), 8000, "8,000 samples a second in 1"), (np.zeros((4000, 2)), 16000, "16,000 .* in 2")],
)
def test_sound_of_another_rate_or_of_two_channels_is_refused(tmp_path, samples, rate, told):
    path = save_sound(tmp_path / "other.wav", samples, rate)
    with pytest.raises(
        ValueError, match=rf"other\.wav has {told} .*channel\(s\): 16,000 in one channel are .*first\.$"
    ):
        audio_pieces(path)


def test_sound_shorter_than_a_piece_is_refused(tmp_path):
    path = save_sound(tmp_path / "short.wav", np.zeros(2047))
    with pytest.raises(ValueError, match=r"short\.wav has 2,047 samples, less than one piece of 2,048: give .*\.$"):
        audio_pieces(path)


def test_text_loses_its_highest_bits_and_bytes_their_lowest():
    text = to_ascii(b"a\xc3\xa9\x00", "text")
    assert (text.text, text.lost, text.n_lost) == ("aC)\x00", bytes([0b01100000]), 2)
    values = to_ascii(bytes([0, 1, 254, 255, 128, 7, 7, 7, 7]), "bytes")
    assert values.text == "\x00\x00\x7f\x7f\x40\x03\x03\x03\x03"
    assert (values.lost, values.n_lost) == (bytes([0b01010111, 0b10000000]), 9)


@pytest.mark.parametrize("kind", ["text", "bytes"])
@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(data=st.binary(max_size=300))
def test_any_bytes_come_back_from_ascii_and_from_the_code_of_their_lost_bits(kind, data):
    mapped = to_ascii(data, kind)
    assert mapped.text.isascii() and len(mapped.text) == len(data)
    lost = decode_lost_bits(encode_lost_bits(mapped), mapped.text)
    assert from_ascii(Mapped(mapped.text, lost, mapped.n_lost, kind)) == data


def slow_code_length(mapped: Mapped) -> float:
    """Krichevsky and Trofimov's code length in bits, bit by bit as the formula is written."""
    counts: dict[tuple[str, int], list[int]] = {}
    before, total = 0, 0.0
    for place, character in enumerate(mapped.text):
        bit = mapped.lost[place // 8] >> (7 - place % 8) & 1
        seen = counts.setdefault((character, before), [0, 0])
        total -= math.log2((seen[bit] + 0.5) / (sum(seen) + 1))
        seen[bit] += 1
        before = bit
    return total


@pytest.mark.parametrize(("data", "kind"), [(UTF8, "text"), (UTF8, "bytes"), (NOISE, "bytes"), (NOISE, "text")])
def test_the_coder_takes_what_its_model_says_within_two_words(data, kind):
    mapped = to_ascii(data, kind)
    expected = slow_code_length(mapped)
    # the range coder ends on whole words of 32 bits; 24-bit probabilities cost 1e-4 of a bit each at the very most
    assert expected - 1 <= lost_bits_coded(mapped) <= expected + 64 + 1e-4 * len(data)


def test_lost_bits_of_noise_cost_a_bit_each_and_of_plain_text_next_to_nothing():
    # 256 contexts of 78 bits each: half of log2(78) plus at most 1 bit lost in each is 5 % of 20,000
    assert 1.0 <= lost_bits_coded(to_ascii(NOISE, "bytes")) / len(NOISE) < 1.05
    plain = b"plain text without an accent " * 200
    mapped = to_ascii(plain, "text")
    assert mapped.n_lost == 0
    assert lost_bits_coded(mapped) < 0.03 * len(plain)


def test_lost_bits_of_real_pictures_are_nearly_noise_and_of_real_text_nearly_free(shared_data):
    patches = image_patches(shared_data / "images" / "camera.png").tobytes()
    assert 0.98 < lost_bits_coded(to_ascii(patches, "bytes")) / len(patches) < 1.0  # measured 0.990
    text = (shared_data / "text" / "wiki.test.raw").read_bytes()[:400_000]
    mapped = to_ascii(text, "text")
    assert from_ascii(mapped) == text
    # to tell where the bits are takes more than the one bit each that the paper counts, and far less than one a byte
    assert mapped.n_lost < lost_bits_coded(mapped) < 0.02 * len(text)


def test_the_three_rules_by_hand_as_42_percent_of_7_bit_data():
    mapped = to_ascii(NOISE, "bytes")
    rates = mapped_rates(0.42 * 8 * len(NOISE), mapped)
    assert rates["scaled"].bits_per_byte / 8 == pytest.approx(0.48)  # 42 % · 8 / 7
    assert rates["appended"].bits_per_byte / 8 == pytest.approx(0.545)  # 42 % + 1 / 8
    assert rates["coded"].bits_per_byte == pytest.approx(0.42 * 8 + lost_bits_coded(mapped) / len(NOISE))
    assert 0.545 <= rates["coded"].bits_per_byte / 8 < 0.552
    assert all(rate.rule for rate in rates.values()) and len({rate.rule for rate in rates.values()}) == 3


def test_in_text_only_bytes_above_127_are_counted_as_lost():
    data = b"abcdefg\xe9" * 100  # one byte of eight
    rates = mapped_rates(1000.0, to_ascii(data, "text"))
    assert rates["appended"].bits_per_byte == pytest.approx((1000 + 100) / 800)
    assert rates["scaled"].bits_per_byte == pytest.approx(1000 / 800 * 6400 / 6300)
    assert "without its place" in rates["appended"].rule


def test_a_wrong_kind_is_refused():
    with pytest.raises(
        ValueError, match=r"^kind is 'audio': 'text' loses the highest bit and 'bytes' the lowest; give"
    ):
        to_ascii(b"abc", "audio")  # type: ignore[arg-type]


def test_text_beyond_ascii_is_refused():
    with pytest.raises(ValueError, match=r"^text has a character beyond ASCII: .* map it anew\.$"):
        from_ascii(Mapped("é", b"\0", 0, "text"))


def test_lost_bits_that_do_not_fit_the_text_are_refused():
    with pytest.raises(ValueError, match=r"^lost has 1 bytes: 9 characters have 2 bytes of lost bits\.$"):
        from_ascii(Mapped("nine char", b"\0", 0, "text"))


@pytest.mark.parametrize(("bits", "data"), [(10.0, b""), (-1.0, b"a"), (math.nan, b"a"), (math.inf, b"a")])
def test_rates_of_nothing_or_of_no_number_of_bits_are_refused(bits, data):
    with pytest.raises(ValueError, match=rf"^text_bits is {bits} for {len(data)} bytes: a rate needs .* in bits\.$"):
        mapped_rates(bits, to_ascii(data, "bytes"))


def test_lost_bits_that_do_not_come_back_are_refused():
    # the last byte of 'lost' holds one bit of the text and seven beyond its end, which no decoder gives back
    with pytest.raises(RuntimeError, match=r"^the 1 lost bits did not come back from their 1 words: .*file\.$"):
        lost_bits_coded(Mapped("a", b"\xff", 1, "bytes"))
