"""Compiled kernels of depthwise_conv for the CPU: one unit of work is a band of rows of one image.

A pixel's channels are gone through 16 at a time; the last vector ends with the last channel and overlaps the one
before, so that no channel is left over. Both then write the same values. All arrays are contiguous, so each kernel is
compiled once; x and y may have more channels than the weights, and their first ones are meant then.

Shapes: B images, H x W pixels, C >= 16 channels, k sides of the weights, U units, at most BAND rows each.
"""

from numba import njit

from mambair.ops.cpu.compilation import SOURCES, kernel
from mambair.ops.cpu.simd import LANES, broadcast, fma, load, sigmoid, store

# 8 rows of 64 pixels with 72 channels take 147 KB: the second-level cache holds them while they are read again.
BAND = 8
# Pixels beside each other that share what is loaded of the weights.
TOGETHER = 4


@njit(error_model="numpy")
def locate_band(unit, height):
    """(image, first row, row behind the last) of a unit."""
    bands = (height + BAND - 1) // BAND
    first = unit % bands * BAND
    return unit // bands, first, min(first + BAND, height)


@njit(error_model="numpy")
def taps_inside(position, size, taps, reach, step):
    """(first tap, tap behind the last) whose pixel, position + step tap - reach, lies in [0, size)."""
    first, last = 0, taps
    while first < last and position + step * first - reach < 0:
        first += 1
    while last > first and position + step * (last - 1) - reach >= size:
        last -= 1
    return first, last


@njit(error_model="numpy")
def correlate(image, i, j, rows, columns, reach, dilation, channel, weight, value):
    """value + the weighted sum of 16 channels of image (H, W, C) around pixel (i, j); weight: (k, k, C).

    rows, columns: the taps inside of the image.
    """
    for row in range(rows[0], rows[1]):
        for column in range(columns[0], columns[1]):
            pixel = load(image, (i + row * dilation - reach, j + column * dilation - reach, channel))
            value = fma(pixel, load(weight, (row, column, channel)), value)
    return value


@njit(error_model="numpy")
def correlate_together(image, i, j, rows, reach, dilation, channel, weight, value):
    """`correlate` for the TOGETHER pixels from (i, j) on, all of whose columns of taps are inside of the image."""
    first, second, third, fourth = value, value, value, value
    for row in range(rows[0], rows[1]):
        pixel_row = i + row * dilation - reach
        for column in range(weight.shape[1]):
            weights = load(weight, (row, column, channel))
            pixel = j + column * dilation - reach
            first = fma(load(image, (pixel_row, pixel, channel)), weights, first)
            second = fma(load(image, (pixel_row, pixel + 1, channel)), weights, second)
            third = fma(load(image, (pixel_row, pixel + 2, channel)), weights, third)
            fourth = fma(load(image, (pixel_row, pixel + 3, channel)), weights, fourth)
    return first, second, third, fourth


@njit(error_model="numpy")
def finish(value, silu, before, y, place):
    """Write a result of the convolution to `place` (image, i, j, channel), see `forward_units`."""
    if before.shape[0] > 0:
        store(before, place, value)
    if silu:
        value = value * sigmoid(value)
    store(y, place, value)


@kernel
def forward_units(first_unit, last_unit, dilation, silu, x, weight, bias, before, y, sources=SOURCES):
    """y = the convolution, and SiLU of it if `silu`; without that last step it is also kept if `before` is not empty.

    x, before, y: (B, H, W, C).  weight: (k, k, C).  bias: (C,).
    """
    for unit in range(first_unit, last_unit):
        height, width, channels = x.shape[1], x.shape[2], weight.shape[2]
        image, first_row, last_row = locate_band(unit, height)
        taps = weight.shape[0]
        reach = taps // 2 * dilation
        source = x[image]
        for i in range(first_row, last_row):
            rows = taps_inside(i, height, taps, reach, dilation)
            j = 0
            while j < width:
                if reach <= j and j + TOGETHER + reach <= width:
                    for start in range(0, channels, LANES):
                        channel = min(start, channels - LANES)
                        shift = load(bias, (channel,))
                        values = correlate_together(source, i, j, rows, reach, dilation, channel, weight, shift)
                        finish(values[0], silu, before, y, (image, i, j, channel))
                        finish(values[1], silu, before, y, (image, i, j + 1, channel))
                        finish(values[2], silu, before, y, (image, i, j + 2, channel))
                        finish(values[3], silu, before, y, (image, i, j + 3, channel))
                    j += TOGETHER
                else:
                    columns = taps_inside(j, width, taps, reach, dilation)
                    for start in range(0, channels, LANES):
                        channel = min(start, channels - LANES)
                        shift = load(bias, (channel,))
                        value = correlate(source, i, j, rows, columns, reach, dilation, channel, weight, shift)
                        finish(value, silu, before, y, (image, i, j, channel))
                    j += 1


@njit(error_model="numpy")
def sum_row(x, dbefore, width, shifts, channel):
    """Three sums over j of dbefore (W, C) at j times x (W, C) at j + a shift, where that is inside."""
    first, second, third = broadcast(0.0), broadcast(0.0), broadcast(0.0)
    left = min(width, max(0, -min(shifts)))
    right = max(left, width - max(0, max(shifts)))
    for j in range(left, right):
        gradient = load(dbefore, (j, channel))
        first = fma(gradient, load(x, (j + shifts[0], channel)), first)
        second = fma(gradient, load(x, (j + shifts[1], channel)), second)
        third = fma(gradient, load(x, (j + shifts[2], channel)), third)
    for edge in range(width - (right - left)):
        j = edge if edge < left else edge + right - left
        gradient = load(dbefore, (j, channel))
        if 0 <= j + shifts[0] < width:
            first = fma(gradient, load(x, (j + shifts[0], channel)), first)
        if 0 <= j + shifts[1] < width:
            second = fma(gradient, load(x, (j + shifts[1], channel)), second)
        if 0 <= j + shifts[2] < width:
            third = fma(gradient, load(x, (j + shifts[2], channel)), third)
    return first, second, third


@kernel
def weights_units(first_unit, last_unit, dilation, silu, x, before, dy, dbefore, dweight, dbias, sources=SOURCES):
    """Gradients of weight and bias of one unit, dweight (U, k, k, C) and dbias (U, C).

    If `silu`, dbefore is written: the gradient of the convolution's result `before`. Otherwise it is dy itself.
    """
    for unit in range(first_unit, last_unit):
        height, width, channels = x.shape[1], x.shape[2], dweight.shape[3]
        image, first_row, last_row = locate_band(unit, height)
        taps = dweight.shape[1]
        reach = taps // 2 * dilation
        for start in range(0, channels, LANES):
            channel = min(start, channels - LANES)
            total = broadcast(0.0)
            for i in range(first_row, last_row):
                # A sum of sums loses less to rounding.
                of_row = broadcast(0.0)
                for j in range(width):
                    gradient = load(dy, (image, i, j, channel))
                    if silu:
                        value = load(before, (image, i, j, channel))
                        gate = sigmoid(value)
                        # SiLU's derivative: s + v s (1 - s).
                        gradient = gradient * fma(value * gate, broadcast(1.0) - gate, gate)
                        store(dbefore, (image, i, j, channel), gradient)
                    of_row = of_row + gradient
                total = total + of_row
            store(dbias, (unit, channel), total)
            for row in range(taps):
                down = row * dilation - reach
                # Three columns of taps share what is loaded of dbefore; behind the last one it is repeated.
                for column in range(0, taps, 3):
                    second, third = min(column + 1, taps - 1), min(column + 2, taps - 1)
                    shifts = (column * dilation - reach, second * dilation - reach, third * dilation - reach)
                    sums = broadcast(0.0), broadcast(0.0), broadcast(0.0)
                    for i in range(max(first_row, -down), min(last_row, height - down)):
                        of_row3 = sum_row(x[image, i + down], dbefore[image, i], width, shifts, channel)
                        sums = sums[0] + of_row3[0], sums[1] + of_row3[1], sums[2] + of_row3[2]
                    store(dweight, (unit, row, third, channel), sums[2])
                    store(dweight, (unit, row, second, channel), sums[1])
                    store(dweight, (unit, row, column, channel), sums[0])
