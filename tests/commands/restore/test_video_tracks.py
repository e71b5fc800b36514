"""What is in a video's file beside its pictures is in the restored one, or is said to be left out."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair.commands.restore.inputs import Job
from mambair.commands.restore.outcome import Outcome
from mambair.errors import UserError
from tests.commands.restore.videos import Made, av, first_frame, grays, restored, sounds_of, times_of

FONT = b"\0\1\0\0" * 20
CHAPTERS = [
    {"id": number, "start": 400 * number, "end": 400 * (number + 1), "time_base": Fraction(1, 1000), "metadata": title}
    for number, title in enumerate([{"title": "One"}, {"title": "Two"}])
]
SUBTITLES = "1\n00:00:00,100 --> 00:00:00,500\nHello\n\n2\n00:00:00,600 --> 00:00:00,900\nWorld\n\n"


@dataclass
class Parts:
    """What a film consists of beside its pictures."""

    sounds: Iterable[str] = ("jpn", "eng")
    """Languages."""
    subtitles: bool = False
    attachments: bool = False
    cover: bool = False
    chapters: bool = True
    second_video: bool = False
    tags: tuple[tuple[str, str], ...] = (("title", "My film"), ("artist", "Me"))
    options: tuple[tuple[str, str], ...] = ()


def jpeg(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def film(path: Path, parts: Parts) -> Path:
    """A film of one second at 10 frames per second with those parts."""
    pictures = Made(codec="libx264").write(path.with_name("pictures.mkv"), grays(10))
    path.with_name("s.srt").write_text(SUBTITLES)
    path.with_name("cover.jpg").write_bytes(jpeg("red"))
    with av.open(str(path), "w", container_options=dict(parts.options)) as writer:
        writer.metadata.update(parts.tags)
        if parts.chapters:
            writer.set_chapters(CHAPTERS)
        sources = [(pictures, "und", 1)]
        sources += [(path.with_name("s.srt"), "fre", 0)] if parts.subtitles else []
        sources += [(pictures, "und", 0)] if parts.second_video else []
        sources += [(path.with_name("cover.jpg"), "und", 1024)] if parts.cover else []
        readers = [av.open(str(source)) for source, *_ in sources]
        copies = []
        for reader, (_, language, disposition) in zip(readers, sources, strict=True):
            copies.append(writer.add_stream_from_template(reader.streams[0], opaque=True))
            copies[-1].metadata["language"] = language
            copies[-1].disposition = disposition
        sounds = [writer.add_stream("aac", rate=16000, layout="mono") for _ in parts.sounds]
        for sound, language in zip(sounds, parts.sounds, strict=True):
            sound.metadata.update(language=language, title=f"in {language}")
        if parts.attachments:
            writer.add_attachment("a.ttf", "application/x-truetype-font", FONT)
            writer.add_attachment("cover.jpg", "image/jpeg", jpeg("blue"))
        for reader, copy in zip(readers, copies, strict=True):
            for packet in reader.demux():
                if packet.size:
                    packet.stream = copy
                    writer.mux(packet)
            reader.close()
        for sound in sounds:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 16000, 0, Fraction(1, 16000)
            writer.mux(sound.encode(samples))
            writer.mux(sound.encode(None))
    return path


def parts_of(path: Path) -> list[tuple]:
    """(type, codec, language, title, disposition) of each stream, in order."""
    with av.open(str(path)) as reader:
        return [
            (
                stream.type,
                stream.codec_context and stream.codec_context.name,
                stream.metadata.get("language"),
                stream.metadata.get("title", stream.metadata.get("name")),
                stream.disposition.value,
            )
            for stream in reader.streams
        ]


def chapters_of(path: Path) -> list[tuple]:
    with av.open(str(path)) as reader:
        return [
            (float(chapter["start"] * chapter["time_base"]), chapter["metadata"]["title"])
            for chapter in reader.chapters()
        ]


def tags_of(path: Path) -> dict[str, str]:
    with av.open(str(path)) as reader:
        return dict(reader.metadata)


FULL = {
    ".mkv": Parts(subtitles=True, attachments=True, tags=(("title", "My film"), ("Mood", "blue"))),
    ".mp4": Parts(cover=True, tags=(("title", "My film"), ("location", "+48.0000+011.0000/"))),
    ".mov": Parts(tags=(("com.apple.quicktime.make", "Apple"), ("com.apple.quicktime.creationdate", "2024"))),
}


@pytest.mark.parametrize("suffix", FULL)
def test_everything_is_kept_in_a_file_of_the_same_kind(suffix: str, tmp_path: Path) -> None:
    parts = FULL[suffix]
    if suffix == ".mov":
        parts.options = (("movflags", "use_metadata_tags"),)
    source, target = film(tmp_path / f"in{suffix}", parts), tmp_path / f"out{suffix}"
    assert restored(source, target) == []
    assert parts_of(target) == parts_of(source)
    assert chapters_of(target) == chapters_of(source) == [(0, "One"), (0.4, "Two")]
    tags = tags_of(target)
    assert {key: tags.get(key) for key, _ in parts.tags} == dict(parts.tags) or suffix == ".mkv"
    assert {key.lower() for key in tags_of(source)} == {key.lower() for key in tags}
    assert first_frame(target).width == 128
    np.testing.assert_allclose(sounds_of(target), sounds_of(source), rtol=0, atol=1e-6)
    np.testing.assert_allclose(times_of(target), times_of(source), rtol=0, atol=1e-6)


def test_the_words_of_subtitles_are_kept(tmp_path: Path) -> None:
    restored(film(tmp_path / "in.mkv", Parts(subtitles=True)), tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as reader:
        said = [(packet.pts, packet.duration, bytes(packet)) for packet in reader.demux(subtitles=0) if packet.size]
    assert said == [(100, 400, b"Hello"), (600, 300, b"World")]


def subtitles_of(path: Path) -> list[tuple]:
    with av.open(str(path)) as reader:
        (stream,) = reader.streams.subtitles
        packets = [packet for packet in reader.demux(stream) if packet.size]
        return [(stream.codec_context.name, stream.language, float(p.pts * p.time_base), bytes(p)) for p in packets]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_subtitles_of_mp4_are_kept(suffix: str, tmp_path: Path) -> None:
    """Matroska has no place for MP4's kind: there they become SubRip."""
    pictures = Made().write(tmp_path / "pictures.mp4", grays(10))
    said = [(0, ""), (100, "Hallö"), (400, ""), (600, "two\nlines")]
    with av.open(str(pictures)) as reader, av.open(str(tmp_path / "in.mp4"), "w") as writer:
        video = writer.add_stream_from_template(reader.streams[0], opaque=True)
        stream = writer.add_mux_stream("mov_text", time_base=Fraction(1, 1000))
        stream.metadata["language"] = "ger"
        for packet in reader.demux():
            if packet.size:
                packet.stream = video
                writer.mux(packet)
        for start, text in said:
            words = text.encode()
            packet = av.Packet(2 + len(words))
            packet.update(len(words).to_bytes(2, "big") + words)
            packet.pts, packet.dts, packet.duration, packet.time_base = start, start, 200, Fraction(1, 1000)
            packet.stream = stream
            writer.mux(packet)
    assert restored(tmp_path / "in.mp4", tmp_path / f"out{suffix}") == []
    wanted = [part for part in subtitles_of(tmp_path / "in.mp4") if any(part[3][2:])]
    found = [part for part in subtitles_of(tmp_path / f"out{suffix}") if any(part[3][2:])]
    assert len(wanted) == 2
    if suffix == ".mkv":
        wanted = [("srt", language, start, words[2:]) for _, language, start, words in wanted]
    assert found == wanted


def test_attachments_and_covers_are_kept(tmp_path: Path) -> None:
    restored(film(tmp_path / "in.mkv", Parts(attachments=True)), tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as reader:
        attachment = next(stream for stream in reader.streams if stream.type == "attachment")
        assert (attachment.name, attachment.data) == ("a.ttf", FONT)
        cover = next(stream for stream in reader.streams if stream.metadata.get("filename") == "cover.jpg")
        assert next(bytes(packet) for packet in reader.demux(cover) if packet.size) == jpeg("blue")


def test_a_cover_moves_from_mp4_to_matroska(tmp_path: Path) -> None:
    assert restored(film(tmp_path / "in.mp4", Parts(cover=True)), tmp_path / "out.mkv") == []
    with av.open(str(tmp_path / "out.mkv")) as reader:
        cover = next(stream for stream in reader.streams if stream.metadata.get("filename") == "cover.jpg")
        assert next(bytes(packet) for packet in reader.demux(cover) if packet.size) == jpeg("red")


def test_a_cover_before_the_film_is_not_taken_for_it(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    film(tmp_path / "film.mp4", Parts())
    with av.open(str(tmp_path / "film.mp4")) as reader, av.open(str(source), "w") as writer:
        cover = av.open(str(tmp_path / "cover.jpg"))
        first = writer.add_stream_from_template(cover.streams[0], opaque=True)
        first.disposition = 1024
        second = writer.add_stream_from_template(reader.streams.video[0], opaque=True)
        for packets, stream in ((cover.demux(), first), (reader.demux(video=0), second)):
            for packet in packets:
                if packet.size:
                    packet.stream = stream
                    writer.mux(packet)
        cover.close()
    assert restored(source, tmp_path / "out.mp4") == []
    with av.open(str(tmp_path / "out.mp4")) as reader:
        films = [stream for stream in reader.streams.video if not stream.disposition.value & 1024]
        assert [(stream.width, stream.frames) for stream in films] == [(128, 10)]


def test_what_the_container_cannot_hold_is_said_once(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", FULL[".mkv"])
    (line,) = restored(source, tmp_path / "out.mp4")
    assert line.startswith("left out, since .mp4 files cannot hold it: subtitles (srt, fre), an attachment (a.ttf), ")
    assert "the tag MOOD" in line
    assert [part[:3] for part in parts_of(tmp_path / "out.mp4")][:3] == [
        ("video", "h264", "und"),
        ("audio", "aac", "jpn"),
        ("audio", "aac", "eng"),
    ]
    assert len(chapters_of(tmp_path / "out.mp4")) == 2


def test_a_second_video_is_copied_and_said_to_be(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", Parts(second_video=True))
    assert restored(source, tmp_path / "out.mkv") == [
        "its first video track is restored; the others are copied as they are"
    ]
    with av.open(str(tmp_path / "out.mkv")) as reader:
        assert [stream.width for stream in reader.streams.video] == [128, 64]
        second = next(reader.decode(reader.streams.video[1]))
    np.testing.assert_array_equal(second.to_ndarray(format="rgb24"), shown_again(source))


def shown_again(path: Path) -> np.ndarray:
    with av.open(str(path)) as reader:
        return next(reader.decode(reader.streams.video[1])).to_ndarray(format="rgb24")


def test_sound_that_no_file_of_the_kind_holds_ends_before_the_work(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", Parts())

    def never(images: list[np.ndarray]) -> list[np.ndarray]:
        raise AssertionError("frames were restored")

    with pytest.raises(UserError, match=r"in\.mkv: its sound \(aac\) .* write \.mkv"):
        restored(source, tmp_path / "out.webm", never)
    assert not (tmp_path / "out.webm").exists()


def test_packets_that_go_back_in_time_do_not_end_the_film(tmp_path: Path) -> None:
    """Matroska stores whatever it is given; MP4 does not."""
    source = tmp_path / "in.mkv"
    with (
        av.open(str(film(tmp_path / "film.mkv", Parts(sounds=("jpn",))))) as reader,
        av.open(str(source), "w") as writer,
    ):
        copies = {stream.index: writer.add_stream_from_template(stream, opaque=True) for stream in reader.streams}
        for packet in reader.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                if packet.stream.type == "audio":
                    packet.pts = packet.dts = packet.pts // 100 * 100
                writer.mux(packet)
    assert len(set(sounds_of(source))) < len(sounds_of(source))
    restored(source, tmp_path / "out.mp4")
    assert len(sounds_of(tmp_path / "out.mp4")) == len(sounds_of(source))
    np.testing.assert_allclose(sorted(sounds_of(tmp_path / "out.mp4")), sounds_of(source), rtol=0, atol=0.1)


def test_of_many_files_one_is_named_and_the_others_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    outcome = Outcome(restored=3)
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        outcome.note(Job(Path(name), Path("out") / name), "its transparency is left out")
    outcome.note(Job(Path("c.mp4"), Path("out/c.mp4")), "its frames change size")
    assert caplog.messages == ["a.mp4: its transparency is left out", "c.mp4: its frames change size"]
    assert list(outcome.summary(Path("out")))[1:] == ["  3 files: its transparency is left out"]
