"""Speech through the telephone, through `emolib.sound.telephone`."""

from __future__ import annotations

from functools import cache

import av
import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.sound import speech_codecs
from emolib.sound.impairments import active_level
from emolib.sound.synthetic import utterance, voice
from emolib.sound.telephone import CONDITIONS, through

Signal = NDArray[np.float32]


@cache
def _speech(sampling_rate: int = 8000, duration_s: float = 3.0, seed: int = 1) -> Signal:
    signal = utterance(voice(seed), "anger", seed=seed, sampling_rate=sampling_rate, duration_s=duration_s)
    signal.setflags(write=False)
    return signal


def _noise(samples: int, seed: int = 0) -> Signal:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def _ratio_db(wanted: Signal, unwanted: Signal) -> float:
    return float(10 * np.log10(np.sum(wanted.astype(np.float64) ** 2) / np.sum(unwanted.astype(np.float64) ** 2)))


def _power(signal: Signal, sampling_rate: int, low_hz: float, high_hz: float) -> float:
    frequency = np.fft.rfftfreq(len(signal), 1 / sampling_rate)
    return float(np.sum(np.abs(np.fft.rfft(signal)[(frequency >= low_hz) & (frequency < high_hz)]) ** 2))


def _delay_s(reference: Signal, signal: Signal, sampling_rate: int) -> float:
    """Where the cross-correlation of two signals has its peak."""
    length = 2 * len(signal)
    product = np.fft.rfft(signal, length) * np.conj(np.fft.rfft(reference, length))
    lag = int(np.fft.irfft(product, length).argmax())
    return (lag - length * (lag > length // 2)) / sampling_rate


def _fit(signal: Signal, like: Signal) -> None:
    assert signal.shape == like.shape
    assert signal.dtype == np.float32
    assert np.isfinite(signal).all()
    assert np.abs(signal).max(initial=0) <= 1


class TestAnyCondition:
    @pytest.mark.parametrize("condition", CONDITIONS)
    @pytest.mark.parametrize("sampling_rate", [8000, 16_000, 44_100, 48_000])
    def test_keeps_length_and_place_in_time(self, condition: str, sampling_rate: int) -> None:
        speech = _speech(sampling_rate, 1.5)
        heard = through(condition, speech, sampling_rate=sampling_rate, seed=4)
        _fit(heard, speech)
        assert abs(_delay_s(speech, heard, sampling_rate)) <= 0.001

    @pytest.mark.parametrize("condition", CONDITIONS)
    def test_is_heard(self, condition: str) -> None:
        speech = _speech()
        heard = through(condition, speech, sampling_rate=8000, seed=0)
        assert not np.array_equal(heard, speech)
        assert float(np.corrcoef(heard, speech)[0, 1]) > 0.5

    @pytest.mark.parametrize("condition", CONDITIONS)
    def test_same_seed_same_bits(self, condition: str) -> None:
        speech = _speech(16_000, 1.0)
        first = through(condition, speech, sampling_rate=16_000, seed=3)
        through(condition, _speech(16_000, 1.2, 2), sampling_rate=16_000, seed=9)
        again = through(condition, speech.copy(), sampling_rate=16_000, seed=3)
        assert first.tobytes() == again.tobytes()

    @pytest.mark.parametrize("condition", ["loss", "reverb", "noise20", "telephone"])
    def test_another_seed_is_another_chance(self, condition: str) -> None:
        speech = _speech()
        heard = [through(condition, speech, sampling_rate=8000, seed=seed).tobytes() for seed in range(4)]
        assert len(set(heard)) == 4

    @pytest.mark.parametrize("condition", CONDITIONS)
    def test_silence_stays_silence(self, condition: str) -> None:
        silence = np.zeros(12_345, np.float32)
        heard = through(condition, silence, sampling_rate=16_000, seed=0)
        _fit(heard, silence)
        assert np.abs(heard).max() < 1e-3

    @pytest.mark.parametrize("condition", CONDITIONS)
    @pytest.mark.parametrize("samples", [1, 37, 3200])
    def test_clipped_and_short(self, condition: str, samples: int) -> None:
        loud = 40 * _noise(samples)
        _fit(through(condition, loud, sampling_rate=8000, seed=1), loud)

    @given(
        st.sampled_from([*CONDITIONS]),
        st.integers(1, 6000),
        st.sampled_from([8000, 11_025, 44_100]),
        st.integers(0, 99),
    )
    @example("telephone", 2, 44_100, 0)
    def test_any_length(self, condition: str, samples: int, sampling_rate: int, seed: int) -> None:
        signal = _noise(samples, seed)
        before = signal.copy()
        _fit(through(condition, signal, sampling_rate=sampling_rate, seed=seed), signal)
        assert np.array_equal(signal, before)

    @pytest.mark.parametrize("condition", ["band", "ulaw", "noise10"])
    def test_everybody_speaks_at_one_level(self, condition: str) -> None:
        speech = _speech(16_000, 1.0)
        heard = [through(condition, gain * speech, sampling_rate=16_000, seed=3) for gain in (0.25, 0.01, 0.003)]
        assert 20 * np.log10(active_level(heard[0])) == pytest.approx(-26, abs=1.5)
        for other in heard[1:]:
            assert np.mean((other - heard[0]) ** 2) < 1e-3 * np.mean(heard[0] ** 2)

    def test_an_offset_is_no_speech(self) -> None:
        heard = through("ulaw", 0.05 * _speech() + np.float32(0.3), sampling_rate=8000, seed=3)
        assert 20 * np.log10(active_level(heard)) == pytest.approx(-26, abs=1.5)

    @pytest.mark.parametrize("condition", CONDITIONS)
    @pytest.mark.parametrize("signal", [np.zeros(0, np.float32), np.full(400, 1e-42, np.float32)])
    def test_nothing_and_next_to_nothing(self, condition: str, signal: Signal) -> None:
        _fit(through(condition, signal, sampling_rate=8000, seed=1), signal)

    def test_unknown_condition_and_rate(self) -> None:
        with pytest.raises(SettingsError, match="'fax' found, expected one of band, ulaw"):
            through("fax", _speech(), sampling_rate=8000, seed=0)
        with pytest.raises(SettingsError, match="6000 Hz found, expected at least 8000 Hz"):
            through("band", _speech(), sampling_rate=6000, seed=0)


class TestBand:
    def test_edges(self) -> None:
        noise = _noise(48_000)
        heard = through("band", noise, sampling_rate=16_000, seed=0)

        def passed_db(low_hz: float, high_hz: float) -> float:
            return 10 * np.log10(_power(heard, 16_000, low_hz, high_hz) / _power(noise, 16_000, low_hz, high_hz))

        level_db = passed_db(300, 3400)
        assert abs(passed_db(300, 400) - level_db) < 0.1
        assert abs(passed_db(3300, 3400) - level_db) < 0.1
        assert passed_db(0, 220) - level_db < -35
        assert passed_db(3480, 8000) - level_db < -35


def _by_the_tables(words: NDArray[np.int64], law: str) -> NDArray[np.int64]:
    """Return the levels of 16-bit samples after tables 1 and 2 of G.711: segments of sixteen equal steps."""
    if law == "ulaw":
        magnitude = np.minimum(np.abs(words) // 4, 8158) + 33
        step = 2 << np.frexp(magnitude)[1] - 6
        level = 4 * (magnitude // step * step + step // 2 - 33)
    else:
        magnitude = np.minimum(np.abs(words) // 16, 2047)
        step = 1 << np.maximum(np.frexp(magnitude)[1] - 5, 0)
        level = 16 * (magnitude // step * step) + 8 * step
    return np.where(words < 0, -level, level)


def _by_ffmpeg(words: NDArray[np.int16], codec: str) -> NDArray[np.float32]:
    encoder, decoder = av.CodecContext.create(codec, "w"), av.CodecContext.create(codec, "r")
    encoder.format = "s16"
    for context in (encoder, decoder):
        context.sample_rate, context.layout = 8000, "mono"
    frame = av.AudioFrame.from_ndarray(words[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    frames = [made.to_ndarray()[0] for packet in encoder.encode(frame) for made in decoder.decode(packet)]
    return np.concatenate(frames).astype(np.float32) / 32_768


class TestCodecs:
    @pytest.mark.parametrize("law", ["ulaw", "alaw"])
    def test_companding_is_exact(self, law: str) -> None:
        sent = 3 * _speech()  # clipped, for the outer segments
        heard = 32_768 * getattr(speech_codecs, law)(sent)
        words = np.clip(np.round(32_768 * sent), -32_768, 32_767).astype(np.int64)
        assert np.array_equal(heard, _by_the_tables(words, law))
        assert len(np.unique(heard)) > 240

    @pytest.mark.parametrize(("law", "codec"), [("ulaw", "pcm_mulaw"), ("alaw", "pcm_alaw")])
    def test_companding_agrees_with_ffmpeg(self, law: str, codec: str) -> None:
        # FFmpeg goes to the nearest level, G.711 does not at the seams of its segments.
        sent = through("band", _speech(), sampling_rate=8000, seed=0)
        other = _by_ffmpeg(np.round(32_768 * sent).astype(np.int16), codec)
        heard = through(law, _speech(), sampling_rate=8000, seed=0)
        assert np.mean(heard != other) < 0.1
        assert abs(_ratio_db(sent, heard - sent) - _ratio_db(sent, other - sent)) < 0.2

    @pytest.mark.parametrize("law", ["ulaw", "alaw"])
    def test_companding_noise(self, law: str) -> None:
        noise = _noise(24_000)
        sent = through("band", noise, sampling_rate=8000, seed=0)
        heard = through(law, noise, sampling_rate=8000, seed=0)
        assert _ratio_db(sent, heard - sent) == pytest.approx(37.5, abs=1)

    def test_low_rates_cost_more(self) -> None:
        sent, law, gsm = (through(name, _speech(), sampling_rate=8000, seed=0) for name in ("band", "ulaw", "gsm"))
        assert 8 < _ratio_db(sent, gsm - sent) < _ratio_db(sent, law - sent) - 10

    def test_opus_is_not_band_limited(self) -> None:
        opus, law = (through(name, _speech(), sampling_rate=8000, seed=0) for name in ("opus", "ulaw"))
        assert _power(opus, 8000, 100, 220) > 10 * _power(law, 8000, 100, 220)


class TestNoise:
    @pytest.mark.parametrize(("condition", "snr_db"), [("noise20", 20), ("noise10", 10), ("noise5", 5)])
    @pytest.mark.parametrize("pause_s", [0, 2])
    def test_has_its_level_against_active_speech(self, condition: str, snr_db: float, pause_s: int) -> None:
        speech = np.pad(_speech(), (8000 * pause_s, 0))
        heard, clean = (through(name, speech, sampling_rate=8000, seed=5) for name in (condition, "ulaw"))
        power = np.mean(clean.reshape(-1, 160) ** 2, axis=1)
        active = power[power > 10**-2.5 * power.max()].mean()
        assert 10 * np.log10(active / np.mean((heard - clean) ** 2)) == pytest.approx(snr_db, abs=1)

    def test_is_the_same_at_every_level(self) -> None:
        clean, *noisy = (
            through(name, _speech(), sampling_rate=8000, seed=5).astype(np.float64)
            for name in ("ulaw", "noise20", "noise10", "noise5")
        )
        assert np.corrcoef([heard - clean for heard in noisy]).min() > 0.95


class TestLoss:
    def test_share_bursts_and_concealment(self) -> None:
        speech = np.tile(_speech(), 30)
        clean, heard = (through(name, speech, sampling_rate=8000, seed=2) for name in ("ulaw", "loss"))
        talking = np.abs(clean.reshape(-1, 160)).max(axis=1) > 0.02
        # The seams reach into the packets beside a gap by less than 4 ms each.
        lost = np.mean((heard != clean).reshape(-1, 160), axis=1) > 0.5
        assert np.mean(lost[talking]) == pytest.approx(0.05, abs=0.015)
        gaps = np.repeat(lost & talking, 160)
        assert np.corrcoef(clean[gaps], heard[gaps])[0, 1] > 0.3
        assert -6 < _ratio_db(heard[gaps], clean[gaps]) < 0

    def test_steady_tone_is_concealed(self) -> None:
        tone = (0.3 * np.sin(2 * np.pi * 400 * np.arange(24_000) / 8000)).astype(np.float32)
        clean, heard = (through(name, tone, sampling_rate=8000, seed=2) for name in ("ulaw", "loss"))
        inner = slice(800, -800)
        assert 0 < np.mean((heard - clean)[inner] ** 2) < 0.01 * np.mean(clean[inner] ** 2)


class TestReverb:
    def test_rings_as_long_as_its_time_and_keeps_the_level(self) -> None:
        burst = np.zeros(16_000, np.float32)
        burst[4000:8000] = 2 * _noise(4000)
        dry, wet = (through(name, burst, sampling_rate=8000, seed=1).astype(np.float64) for name in ("ulaw", "reverb"))
        assert np.abs(wet[:3800]).max() < 0.01
        assert 10 * np.log10(np.mean(wet[4800:8000] ** 2) / np.mean(dry[4800:8000] ** 2)) == pytest.approx(0, abs=1.5)
        early, late = np.mean(wet[8000:8400] ** 2), np.mean(wet[9200:9600] ** 2)
        assert 10 * np.log10(early / late) == pytest.approx(60 * 0.15 / 0.45, abs=2.5)


class TestTelephone:
    def test_draws_every_codec_and_levels(self) -> None:
        speech = _speech(8000, 1.0)
        heard = [through("telephone", speech, sampling_rate=8000, seed=seed) for seed in range(40)]
        levels_db = [20 * np.log10(active_level(signal)) for signal in heard]
        assert -41 < min(levels_db) < -34
        assert -26 < max(levels_db) < -20
        low = [_power(signal, 8000, 100, 200) / _power(signal, 8000, 300, 3400) for signal in heard]
        assert 0.05 < np.mean(np.array(low) > 0.01) < 0.6  # Opus alone lets these through
