"""What is computed with waveforms (..., channels, samples): reading, resampling, filters.

The filters are the second-order ones of R. Bristow-Johnson, "Cookbook formulae for audio equalizer biquad
filter coefficients" (W3C note, 2021).
"""

from __future__ import annotations

import math

import numpy
import torch


def read_audio(path):
    """(waveform (channels, samples) of -1..1, samples per second). ValueError if there is none."""
    import av

    with av.open(path) as container:
        if not container.streams.audio:
            raise ValueError(f"'{path}' has no sound in it. Choose an audio file, or a video with sound.")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        pieces = [
            piece.to_ndarray() for frame in container.decode(stream) for piece in resampler.resample(frame)
        ]
        if not pieces:
            raise ValueError(f"The sound in '{path}' is empty. Choose another file.")
        return torch.from_numpy(numpy.concatenate(pieces, axis=1)), int(stream.sample_rate)


def resampled(waveform, rate, wanted):
    """The same sound at another sample rate, through a filter that keeps what both rates can hold."""
    if rate == wanted or waveform.shape[-1] == 0:
        return waveform
    from scipy.signal import resample_poly

    common = math.gcd(int(rate), int(wanted))
    values = waveform.detach().cpu().float().numpy()
    result = resample_poly(values, int(wanted) // common, int(rate) // common, axis=-1)
    return torch.from_numpy(numpy.ascontiguousarray(result)).to(waveform)


def at_one_rate(first, second):
    """(waveform, waveform, rate) of two sounds, both at the higher rate."""
    rate = max(first["sample_rate"], second["sample_rate"])
    pair = [resampled(audio["waveform"], audio["sample_rate"], rate) for audio in (first, second)]
    return pair[0], pair[1].to(pair[0].device), rate


def _constants(gain, frequency, q, rate):
    """(A, cos w0, alpha) of the cookbook. A frequency that the rate cannot hold is an error."""
    if frequency * 2 >= rate:
        raise ValueError(
            f"{rate} samples per second hold no tones of {frequency} Hz. Choose less than {rate // 2}."
        )
    w0 = 2 * math.pi * frequency / rate
    return 10 ** (gain / 40), math.cos(w0), math.sin(w0) / (2 * q)


def peak(gain, frequency, q, rate):
    """(b, a) of a filter that changes the tones around a frequency by `gain` decibels."""
    A, cos, alpha = _constants(gain, frequency, q, rate)
    return (1 + alpha * A, -2 * cos, 1 - alpha * A), (1 + alpha / A, -2 * cos, 1 - alpha / A)


def low_shelf(gain, frequency, q, rate):
    """(b, a) of a filter that changes the tones below a frequency by `gain` decibels."""
    A, cos, alpha = _constants(gain, frequency, q, rate)
    return _shelf(A, cos, alpha, 1)


def high_shelf(gain, frequency, q, rate):
    """(b, a) of a filter that changes the tones above a frequency by `gain` decibels."""
    A, cos, alpha = _constants(gain, frequency, q, rate)
    return _shelf(A, cos, alpha, -1)


def _shelf(A, cos, alpha, side):
    """The two shelves mirror one another: `side` is 1 for the low one and -1 for the high one."""
    c, beta = side * cos, 2 * math.sqrt(A) * alpha
    b = (
        A * ((A + 1) - (A - 1) * c + beta),
        2 * A * side * ((A - 1) - (A + 1) * c),
        A * ((A + 1) - (A - 1) * c - beta),
    )
    a = (
        (A + 1) + (A - 1) * c + beta,
        -2 * side * ((A - 1) + (A + 1) * c),
        (A + 1) + (A - 1) * c - beta,
    )
    return b, a


def filtered(waveform, b, a):
    """The sound behind a filter, cut to -1..1."""
    from scipy.signal import lfilter

    values = lfilter(b, a, waveform.detach().cpu().double().numpy(), axis=-1)
    return torch.from_numpy(numpy.clip(values, -1.0, 1.0)).to(waveform)
