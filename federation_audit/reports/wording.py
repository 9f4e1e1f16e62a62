"""The sentences of a report, in English. Another language is another `Wording`.

They are meant for somebody who runs an instance in their free time and has never heard of us: polite, factual, without
blame. Braces are filled in by `reports.report`.
"""

from dataclasses import dataclass
from typing import Final

Plural = tuple[str, str]
"""The template for one, and that for any other number."""


@dataclass(frozen=True, slots=True)
class Wording:
    """Every sentence of a report, as templates of `str.format`."""

    language: str
    subject: str
    greeting: str
    opening: str
    no_accusation: str
    no_images: str
    heading_found: str
    found: tuple[str, ...]
    found_together: str
    rate: str
    removal: str
    removal_none: str
    heading_why: str
    heading_incidents: str
    incidents_left_out: str
    incident: str
    posted: str
    judged: str
    communities: str
    host: str
    host_own: str
    post: str
    no_post: str
    presence_up: str
    presence_gone: str
    presence_unknown: str
    rule: str
    listed: str
    confirmed_by: str
    sha256: str
    pdq: str
    heading_sure: str
    sure: tuple[str, ...]
    heading_wrong: str
    wrong: tuple[str, ...]
    heading_answer: str
    answer: tuple[str, ...]
    answer_to: str
    closing: str
    incidents_counted: Plural
    accounts_counted: Plural
    days_counted: Plural
    posts_counted: Plural
    minutes_counted: Plural
    hours_counted: Plural
    median: str


ENGLISH: Final = Wording(
    language="en",
    subject="Abusive images from {domain}: {listed}",
    greeting="Hello admins of {domain},",
    opening="we run {tenant}. From {since} to {until} some images that reached us from your instance were refused as"
    " abusive. We write so that you can look at the posts below and remove what should not be there.",
    no_accusation="We do not think that you or your instance wanted this. A few accounts can do it to anybody.",
    no_images="This report has no image, and no link to one. Please do not send us any.",
    heading_found="What we found",
    found=(
        "{exposure} different images reached us from {domain} in that time; {flagged} were flagged by a machine."
        " Of an instance of that size, about {expected} are flagged by mistake.",
        "{confirmed}, by {actors} on {days}. An incident is one account, one day and one picture,"
        " however often it was posted.",
    ),
    found_together="All numbers, here and under the next heading, are those of {tenants} instances that look at images"
    " together, {tenant} among them; an image counts once for each that it reached. The list of incidents has what"
    " reached {tenant} alone: {listed}.",
    rate="That is {middle} times as many flags as usual (90 % interval: {low} to {high} times).",
    removal="We looked at {looked_at} again: {removed} had been removed on your side{median}.",
    removal_none="We have not looked whether the posts are still there.",
    heading_why="Why we write",
    heading_incidents="The incidents",
    incidents_left_out="{count} more incidents are in the attached JSON.",
    incident="{number}. {day}, account {actor}",
    posted="posted {at}",
    judged="judged {at}",
    communities="in {names}",
    host="The image lay on {host}.",
    host_own="The image lay on your instance.",
    post="Post: {url} ({presence})",
    no_post="We do not know the address of the post.",
    presence_up="still there when we looked",
    presence_gone="gone when we looked",
    presence_unknown="not looked at again",
    rule="Rule {name}: {sentence}",
    listed="On the list of known images: {names}",
    confirmed_by="Confirmed by {who}",
    sha256="SHA-256: {hash}",
    pdq="PDQ: {hash}",
    heading_sure="How sure we are",
    sure=(
        "A machine flagged the images. Only incidents that were confirmed, each by what is said beside it, are in this"
        " report.",
        "Which instance an image came from is taken from our own server's records of the post, not from where the"
        " image lay.",
        "Accounts are named by a pseudonym of this quarter: we do not keep their names. The posts tell you who it was.",
    ),
    heading_wrong="What a mistake would look like",
    wrong=(
        "The picture is harmless (a painting, a medical picture, a family at the beach), and both reviewers erred.",
        "The post was forged in the name of your user, or edited after it had reached us.",
        "You removed it long ago, and we have not seen the removal.",
    ),
    heading_answer="How to answer",
    answer=(
        "Tell us which incident you mean, by its number and the SHA-256, and whether you removed it or think that we"
        " are wrong. One line is enough.",
        "Where you think that we are wrong, a person will look at it again, and it will no longer be counted if so.",
        "Without an answer within 7 days we may stop taking images from {domain} until we know more.",
    ),
    answer_to="Answer to: {address}",
    closing="Thank you for your time,\nthe admins of {tenant}",
    incidents_counted=("{count} confirmed incident", "{count} confirmed incidents"),
    accounts_counted=("{count} account", "{count} accounts"),
    days_counted=("{count} day", "{count} days"),
    posts_counted=("{count} post", "{count} posts"),
    minutes_counted=("{count} minute", "{count} minutes"),
    hours_counted=("{count} hour", "{count} hours"),
    median=", in {duration} (median)",
)
