"""What can keep an answer from being taken. Each message is a sentence for the reviewer; nothing was changed."""


class ReviewRefused(Exception):
    """Nothing was changed; the message says why and what to do."""


class ClusterChanged(ReviewRefused):
    """What was shown is not what is there now."""


class CapReached(ReviewRefused):
    """The reviewer has done what one person does in a day."""


class NothingToUndo(ReviewRefused):
    """This is not the reviewer's last answer, or it was undone already."""
