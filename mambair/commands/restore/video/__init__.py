"""Videos are restored frame by frame, through PyAV (the extra `video`); everything else in the file is kept."""

from mambair.commands.restore.video.transcode import restore_video

__all__ = ["restore_video"]
