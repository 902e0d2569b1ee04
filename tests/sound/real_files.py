"""What is right for each real file of the folder `shared`, by what a data engineer would want."""

from __future__ import annotations

from emolib.errors import Code

# What is expected of each real file. Is there usable sound in it? Whether it is speech, or too short, is judged later.
DECODED: dict[str, dict[Code, str]] = {
    "calls": {
        Code.OK: """
            activated.gsm added.gsm agent-alreadyon.gsm agent-incorrect.gsm asterisk_16_bit_48khz_2_4_2.opus
            asterisk_talking.wav aws_pca_Auto0_Mono.wav azure_katiesteve_mono.wav azure_test_audio_stereo.wav
            azure_whatstheweatherlike-mulaw.wav call40_agentL_callerR_alaw.wav call40_agentL_callerR_ulaw.wav
            call40_caller_gsm610.wav call40_mixed_mono.mp3 call40_mixed_mono.ogg call40_mixed_mono.opus cross.wav
            hf_test_audio_16000.mp3 lhotse_big_buck_bunny_small.mp4 lhotse_mono_c0.opus lhotse_stereo.mp3
            lhotse_stereo.opus lhotse_stereo.sph lhotse_stereo.wav nemo_curator_audio_1.opus speechbrain_example3.sph
        """,
        # Headerless, and nothing in them says what they are. (GSM does: each 33 bytes begin with the same four bits.)
        Code.UNSUPPORTED: "asterisk_talking-g.g722 asterisk_talking_silence_test.ulaw cq_ref.raw",
    },
    "broken": {
        Code.OK: """
            clipped_hard.wav cpython_pluck-pcm16.wav cpython_pluck-pcm24-ext.wav cpython_pluck-pcm24.wav
            cpython_pluck-pcm32.wav cpython_pluck-pcm8.wav dc_offset.wav float32_nan_inf.wav
            float32_over_full_scale.wav ina_silence2sec.wav mp3_bytes_named.wav odd_length_data.wav ogg_bytes_named.wav
            one_sample.wav opso_audiomoth_gps.wav opso_metadata.wav opso_silence_10s.mp3 opso_stereo_98bytes.wav
            opso_veryshort.wav silence_digital_3s.wav six_channels.wav sndhdr.aifc sndhdr.aiff sndhdr.au sndhdr.wav
            stream_ffffffff_sizes.wav stream_zero_sizes.wav test-1234Hz-le-1ch-10S-20bit-extra.wav
            test-44100Hz-2ch-32bit-float-be.wav test-44100Hz-2ch-32bit-float-le.wav test-44100Hz-be-1ch-4bytes.wav
            test-44100Hz-le-1ch-4bytes-rf64.wav test-44100Hz-le-1ch-4bytes.wav
            test-48000Hz-2ch-64bit-float-le-wavex.wav test-8000Hz-be-3ch-5S-24bit.wav test-8000Hz-le-1ch-1byte-ulaw.wav
            test-8000Hz-le-2ch-1byteu.wav test-8000Hz-le-3ch-5S-24bit-inconsistent.wav
            test-8000Hz-le-3ch-5S-24bit-rf64.wav test-8000Hz-le-3ch-5S-24bit.wav test-8000Hz-le-3ch-5S-64bit.wav
            test-8000Hz-le-4ch-9S-12bit.wav test-8000Hz-le-5ch-9S-5bit.wav trailing_garbage.wav very_short_10ms.wav
            wav_bytes_named.mp3
        """,
        Code.TRUNCATED: "test-44100Hz-le-1ch-4bytes-early-eof.wav truncated_half_data.wav",
        Code.EMPTY: "funasr_tmp_46bytes.wav header_only_datalen0.wav opso_empty_2c.wav zero_byte.wav",
        # Known containers whose header is broken off or says what cannot be.
        Code.CORRUPT: """
            channels_zero.wav samplerate_zero.wav test-44100Hz-le-1ch-4bytes-early-eof-no-data.wav
            test-44100Hz-le-1ch-4bytes-incomplete-chunk.wav truncated_in_header.wav
        """,
        # Headerless samples, text, noise, and sample widths that no decoder knows.
        Code.UNSUPPORTED: """
            azure_good_morning.pcm azure_missing_wav_header.wav html_error_page.wav random_bytes.wav
            speechbrain_example4.raw speechbrain_symlink_as_text_example1.wav test-8000Hz-le-3ch-5S-36bit.wav
            test-8000Hz-le-3ch-5S-45bit.wav test-8000Hz-le-3ch-5S-53bit.wav text.wav
        """,
    },
}
# Those that decode to sound of which nothing can be scored, or so little that damage may have taken the rest.
_JUDGED: dict[Code, str] = {
    Code.TOO_SHORT: """
        cpython_pluck-pcm16.wav cpython_pluck-pcm24-ext.wav cpython_pluck-pcm24.wav cpython_pluck-pcm32.wav
        cpython_pluck-pcm8.wav one_sample.wav opso_stereo_98bytes.wav opso_veryshort.wav sndhdr.aifc sndhdr.aiff
        sndhdr.wav test-1234Hz-le-1ch-10S-20bit-extra.wav test-44100Hz-2ch-32bit-float-be.wav
        test-44100Hz-2ch-32bit-float-le.wav test-44100Hz-be-1ch-4bytes.wav test-44100Hz-le-1ch-4bytes-rf64.wav
        test-44100Hz-le-1ch-4bytes.wav test-48000Hz-2ch-64bit-float-le-wavex.wav test-8000Hz-be-3ch-5S-24bit.wav
        test-8000Hz-le-1ch-1byte-ulaw.wav test-8000Hz-le-2ch-1byteu.wav test-8000Hz-le-3ch-5S-24bit-inconsistent.wav
        test-8000Hz-le-3ch-5S-24bit-rf64.wav test-8000Hz-le-3ch-5S-24bit.wav test-8000Hz-le-3ch-5S-64bit.wav
        test-8000Hz-le-4ch-9S-12bit.wav test-8000Hz-le-5ch-9S-5bit.wav very_short_10ms.wav
    """,
    # Silence, a ring, birds; and of music and of far voices less than half a second in any window.
    Code.NO_SPEECH: """
        asterisk_16_bit_48khz_2_4_2.opus ina_silence2sec.wav lhotse_mono_c0.opus lhotse_stereo.mp3 lhotse_stereo.opus
        lhotse_stereo.sph lhotse_stereo.wav opso_audiomoth_gps.wav opso_metadata.wav opso_silence_10s.mp3
        silence_digital_3s.wav
    """,
    Code.CORRUPT: "test-44100Hz-le-1ch-4bytes-early-eof.wav",
}


def decoded(folder: str) -> dict[str, Code]:
    """Return the code of each file of a folder that is decoded."""
    return {name: code for code, names in DECODED[folder].items() for name in names.split()}


def scored(folder: str) -> dict[str, Code]:
    """Return the code of each file of a folder that is scored."""
    judged = {name: code for code, names in _JUDGED.items() for name in names.split()}
    return {name: judged.get(name, code) for name, code in decoded(folder).items()}
